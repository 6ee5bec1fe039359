//! The file to import: checked from end to end in bounded memory, then read again in the order of creation.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::TOLD;
use super::progress::Progress;
use crate::api::FieldError;
use crate::api::old::{self, Old, OldRules};
use crate::command::Failure;
use crate::notification::Notification;
use crate::user::UserId;

/// A line is no longer: a notification within the rules has less than half of it.
const MAX_LINE: u32 = 64 * 1024;

/// After so many lines whoever waits for Ctrl-C has its turn.
const YIELD: u64 = 1_000;

/// The whole export, in a file that can be read twice.
#[derive(Debug)]
pub(super) struct Export {
    file: File,
}

/// What retention would keep of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Older ones go.
    pub(super) oldest: Option<DateTime<Utc>>,
    /// So many of one user stay; 0: all.
    pub(super) each: u32,
}

/// Why a line is not imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    Invalid,
    TooOld,
    TooMany,
    Expired,
    Deleted,
}

impl Skip {
    const ALL: [Self; 5] = [
        Self::Invalid,
        Self::TooOld,
        Self::TooMany,
        Self::Expired,
        Self::Deleted,
    ];
}

/// How many lines are not imported, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    fn add(&mut self, skip: Skip, more: u64) {
        for (count, reason) in self.0.iter_mut().zip(Skip::ALL) {
            *count += if reason == skip { more } else { 0 };
        }
    }

    pub(super) fn of(self, skip: Skip) -> u64 {
        self.each()
            .find_map(|(reason, count)| (reason == skip).then_some(count))
            .unwrap_or(0)
    }

    /// Those that there are.
    pub(super) fn each(self) -> impl Iterator<Item = (Skip, u64)> {
        Skip::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
    }
}

/// Where a good line is.
#[derive(Clone, Copy, Debug)]
struct Place {
    created_ms: i64,
    offset: u64,
    length: u32,
}

/// What was found, before anything is written.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Without empty ones.
    pub(super) lines: u64,
    /// The first bad lines, as they are told.
    pub(super) bad: Vec<String>,
    pub(super) has_unknown_members: bool,
    pub(super) skipped: Skipped,
    /// 24 bytes a line, in the order of creation: lists are in the order in which rows were added.
    places: Vec<Place>,
    /// How many good lines each user has; after the check, how many of the oldest are too many.
    users: HashMap<UserId, u32>,
}

impl Checked {
    pub(super) fn good(&self) -> u64 {
        u64::try_from(self.places.len()).unwrap_or(u64::MAX) - self.skipped.of(Skip::TooMany)
    }

    fn take(
        &mut self,
        number: u64,
        read: Result<Old, Vec<FieldError>>,
        limits: Limits,
        at: (u64, u32),
        now: DateTime<Utc>,
    ) {
        let one = match read {
            Ok(Old::Notification(one)) => one,
            Ok(Old::Deleted) => return self.skipped.add(Skip::Deleted, 1),
            Err(faults) => return self.refuse(number, &faults),
        };
        if one.expires_at.is_some_and(|end| end <= now) {
            return self.skipped.add(Skip::Expired, 1);
        }
        if limits.oldest.is_some_and(|oldest| one.created_at < oldest) {
            return self.skipped.add(Skip::TooOld, 1);
        }
        *self.users.entry(one.user_id).or_default() += 1;
        self.places.push(Place {
            created_ms: one.created_at.timestamp_millis(),
            offset: at.0,
            length: at.1,
        });
    }

    fn refuse(&mut self, number: u64, faults: &[FieldError]) {
        self.skipped.add(Skip::Invalid, 1);
        self.has_unknown_members |= faults.iter().any(|fault| fault.code == "unknown_field");
        if self.bad.len() < TOLD {
            let faults: Vec<_> = faults.iter().map(told).collect();
            self.bad
                .push(format!("line {number}: {}", faults.join("; ")));
        }
    }

    /// Sorts what is good, and finds what is too much.
    fn settle(&mut self, each: u32) {
        // By place where times are the same: as they stand in the file.
        self.places
            .sort_unstable_by_key(|place| (place.created_ms, place.offset));
        self.users.retain(|_, count| {
            *count = count.saturating_sub(each);
            each > 0 && *count > 0
        });
        let too_many = self.users.values().copied().map(u64::from).sum::<u64>();
        self.skipped.add(Skip::TooMany, too_many);
    }
}

/// A fault as people read it: where, what would be right, and the rule's code.
fn told(fault: &FieldError) -> String {
    let place = match fault.pointer.as_str() {
        "" => "the line",
        pointer => pointer,
    };
    if fault.code == "unknown_field" {
        return format!("{place}: no member of a notification (unknown_field)");
    }
    format!("{place}: {} ({})", fault.expected, fault.code)
}

impl Export {
    /// Opens it; standard input is written to a temporary file first, for it can be read only once.
    pub(super) fn open(path: &str) -> Result<Self, Failure> {
        if path != "-" {
            let file = File::open(path).map_err(|error| Failure(format!("{path}: {error}")))?;
            if !file.metadata()?.is_file() {
                return Err(Failure(format!(
                    "{path} is no file that can be read twice; give it as standard input: bellhop import - < {path}"
                )));
            }
            return Ok(Self { file });
        }
        let mut file = tempfile::tempfile()?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.flush()?;
        file.rewind()?;
        Ok(Self { file })
    }

    /// Reads every line once.
    pub(super) async fn check(
        &self,
        rules: OldRules<'_>,
        limits: Limits,
        interrupted: &CancellationToken,
    ) -> Result<Checked, Failure> {
        let mut checked = Checked::default();
        let mut progress = Progress::new("bytes checked", self.file.metadata()?.len());
        let mut lines = BufReader::with_capacity(256 * 1024, &self.file);
        let (mut offset, mut number, mut line) = (0, 0, Vec::new());
        loop {
            line.clear();
            let length = next_line(&mut lines, &mut line)?;
            if length == 0 {
                break;
            }
            number += 1;
            if number % YIELD == 0 {
                tokio::task::yield_now().await;
            }
            if interrupted.is_cancelled() {
                return Err(Failure::new("interrupted; nothing was written"));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                checked.lines += 1;
                let short = u32::try_from(length)
                    .ok()
                    .filter(|length| *length <= MAX_LINE);
                let read = match short {
                    Some(_) => old::read(content(number, &line), rules),
                    None => Err(vec![too_long()]),
                };
                let at = (offset, short.unwrap_or(MAX_LINE));
                checked.take(number, read, limits, at, rules.now);
            }
            offset += length;
            progress.at(offset);
        }
        checked.settle(limits.each);
        Ok(checked)
    }

    /// What was good, in the order of creation.
    pub(super) fn chunks<'a>(
        &'a self,
        checked: &'a mut Checked,
        rules: OldRules<'a>,
    ) -> Chunks<'a> {
        Chunks {
            file: &self.file,
            places: checked.places.iter(),
            too_many: &mut checked.users,
            rules,
        }
    }
}

/// Reads up to and with the next newline, and keeps no more of it than a line may have. Answers its length; 0 is the end.
fn next_line(lines: &mut BufReader<&File>, line: &mut Vec<u8>) -> std::io::Result<u64> {
    let kept = lines
        .take(u64::from(MAX_LINE) + 1)
        .read_until(b'\n', line)?;
    let mut length = u64::try_from(kept).unwrap_or(u64::MAX);
    while kept > 0 && line.last() != Some(&b'\n') {
        let rest = lines.fill_buf()?;
        let (count, is_end) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (rest.len(), rest.is_empty()),
        };
        lines.consume(count);
        length += u64::try_from(count).unwrap_or(u64::MAX);
        if is_end {
            break;
        }
    }
    Ok(length)
}

/// The line without the mark that some editors put before a file's first one.
fn content(number: u64, line: &[u8]) -> &[u8] {
    match line.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if number == 1 => rest,
        Some(_) | None => line,
    }
}

fn too_long() -> FieldError {
    FieldError {
        pointer: String::new(),
        code: "too_large",
        expected: "at most 64 KiB",
    }
}

/// The good lines, some at a time.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    file: &'a File,
    places: std::slice::Iter<'a, Place>,
    /// Of these users so many of the oldest are left out.
    too_many: &'a mut HashMap<UserId, u32>,
    rules: OldRules<'a>,
}

impl Chunks<'_> {
    /// The next ones, at most `limit`; none at the end.
    pub(super) fn next(&mut self, limit: usize) -> Result<Vec<Notification>, Failure> {
        let mut chunk = Vec::with_capacity(limit);
        while chunk.len() < limit
            && let Some(place) = self.places.next()
        {
            let one = self.at(*place)?;
            match self.too_many.get_mut(&one.user_id) {
                Some(count) if *count > 0 => *count -= 1,
                Some(_) | None => chunk.push(one),
            }
        }
        Ok(chunk)
    }

    fn at(&self, place: Place) -> Result<Notification, Failure> {
        let mut line = vec![0; usize::try_from(place.length)?];
        self.file.read_exact_at(&mut line, place.offset)?;
        let number = if place.offset == 0 { 1 } else { 2 };
        match old::read(content(number, &line), self.rules) {
            Ok(Old::Notification(one)) => Ok(*one),
            Ok(Old::Deleted) | Err(_) => Err(Failure::new(
                "the file has changed since it was checked; what was imported stays: repeat the command once nobody writes to it",
            )),
        }
    }
}
