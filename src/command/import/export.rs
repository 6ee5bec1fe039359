//! The file to import: checked from end to end in some 80 bytes of memory a line, then read again in the order of creation.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;

use tokio_util::sync::CancellationToken;

use super::checked::{Checked, Limits, Place};
use super::progress::Progress;
use crate::api::FieldError;
use crate::api::export_line::{self, Line, LineRules};
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

impl Export {
    /// Opens it; standard input is written to a temporary file first, for it can be read only once.
    pub(super) fn open(path: &str) -> Result<Self, Failure> {
        if path != "-" {
            let file = File::open(path).map_err(|error| Failure(format!("{path}: {error}")))?;
            let kind = file.metadata()?;
            if kind.is_dir() {
                return Err(Failure(format!("{path} is a folder, not a file")));
            }
            if !kind.is_file() {
                return Err(Failure(format!(
                    "{path} is no file that can be read twice; give it as standard input: bellhop import - < {path}"
                )));
            }
            return Ok(Self { file });
        }
        let file = spooled().map_err(|error| {
            Failure(format!(
                "standard input cannot be kept in a temporary file: {error}; set TMPDIR to a folder with room"
            ))
        })?;
        Ok(Self { file })
    }

    /// Reads every line once.
    pub(super) async fn check(
        &self,
        rules: LineRules<'_>,
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
            let short = u32::try_from(length)
                .ok()
                .filter(|length| *length <= MAX_LINE);
            let text = content(number, &line);
            if checked.lines == 0 && text.trim_ascii_start().starts_with(b"[") {
                return Err(one_array());
            }
            // Of a line that is too long nothing is known: its end may be no blank.
            if short.is_none() || !line.iter().all(u8::is_ascii_whitespace) {
                checked.lines += 1;
                let read = match short {
                    Some(_) => export_line::read(text, rules),
                    None => Err(vec![too_long()]),
                };
                let at = (offset, short.unwrap_or(MAX_LINE), text);
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
        rules: LineRules<'a>,
    ) -> Chunks<'a> {
        Chunks {
            file: &self.file,
            places: checked.places.iter(),
            too_many: &mut checked.users,
            rules,
        }
    }
}

/// Standard input, in a file without a name.
fn spooled() -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
    file.rewind()?;
    Ok(file)
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

fn one_array() -> Failure {
    Failure::new(
        "nothing was written: the file is one JSON array, not one JSON object a line; try jq -c '.[]' FILE | bellhop import -",
    )
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
    rules: LineRules<'a>,
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
        match self.file.read_exact_at(&mut line, place.offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(changed()),
            read => read?,
        }
        let number = if place.offset == 0 { 1 } else { 2 };
        match export_line::read(content(number, &line), self.rules) {
            Ok(Line::Notification(one)) => Ok(*one),
            Ok(Line::Deleted) | Err(_) => Err(changed()),
        }
    }
}

fn changed() -> Failure {
    Failure::new(
        "the file has changed since it was checked; what was imported stays: repeat the command once nobody writes to it",
    )
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_meanwhile_is_told() {
        let line = r#"{"id": 7, "userId": 42, "title": "Hello", "createdAt": 1700000000000}"#;
        let other = line.replace("Hello", "");
        for changed in [String::new(), other] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, line).unwrap();
            let export = Export::open(file.path().to_str().unwrap()).unwrap();
            let rules = LineRules {
                http_urls: false,
                now: Utc::now(),
                ignored: &[],
            };
            let limits = Limits {
                oldest: None,
                each: 0,
            };
            let checked = export.check(rules, limits, &CancellationToken::new()).await;
            let mut checked = checked.unwrap();
            assert_eq!(checked.good(), 1);

            std::fs::write(&file, &changed).unwrap();
            let Failure(told) = export.chunks(&mut checked, rules).next(10).unwrap_err();
            assert!(told.contains("has changed"), "{changed:?}: {told}");
        }
    }
}
