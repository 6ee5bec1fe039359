//! What was found in a file to import: what is good and where, and what is left out and why.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::TOLD;
use crate::api::FieldError;
use crate::api::export_line::Line;
use crate::notification::Notification;
use crate::user::UserId;

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
pub(super) struct Place {
    created_ms: i64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What was found, before anything is written.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Without empty ones.
    pub(super) lines: u64,
    /// The first bad lines, as they are told.
    pub(super) bad: Vec<String>,
    pub(super) has_unknown_members: bool,
    /// One of these is spelled as databases spell them.
    pub(super) has_snake_case: bool,
    /// The first lines whose id came before with other content.
    pub(super) differing: Vec<u64>,
    /// How many of these there are.
    pub(super) differ: u64,
    /// How many good lines came before, by their user and id: the first of them is the notification.
    pub(super) repeated: u64,
    pub(super) skipped: Skipped,
    /// 24 bytes a line, in the order of creation: lists are in the order in which rows were added.
    pub(super) places: Vec<Place>,
    /// Which of the good lines there were, as digests of 128 bits, and what was in them.
    seen: HashMap<[u64; 2], u64>,
    digests: [RandomState; 2],
    /// How many notifications each user has; after the check, how many of the oldest are too many.
    pub(super) users: HashMap<UserId, u32>,
}

impl Checked {
    pub(super) fn good(&self) -> u64 {
        u64::try_from(self.places.len()).unwrap_or(u64::MAX) - self.skipped.of(Skip::TooMany)
    }

    pub(super) fn take(
        &mut self,
        number: u64,
        read: Result<Line, Vec<FieldError>>,
        limits: Limits,
        (offset, length, text): (u64, u32, &[u8]),
        now: DateTime<Utc>,
    ) {
        let one = match read {
            Ok(Line::Notification(one)) => one,
            Ok(Line::Deleted) => return self.skipped.add(Skip::Deleted, 1),
            Err(faults) => return self.refuse(number, &faults, text),
        };
        if one.expires_at.is_some_and(|end| end <= now) {
            return self.skipped.add(Skip::Expired, 1);
        }
        if limits.oldest.is_some_and(|oldest| one.created_at < oldest) {
            return self.skipped.add(Skip::TooOld, 1);
        }
        if self.is_repeated(number, &one) {
            return;
        }
        *self.users.entry(one.user_id).or_default() += 1;
        self.places.push(Place {
            created_ms: one.created_at.timestamp_millis(),
            offset,
            length,
        });
    }

    /// Whether its user had one with its id before; notes it then.
    fn is_repeated(&mut self, number: u64, one: &Notification) -> bool {
        let [first, second] = &self.digests;
        let name = (&one.user_id, one.id);
        let key = [first.hash_one(name), second.hash_one(name)];
        let content = first.hash_one(serde_json::to_string(one).unwrap_or_default());
        let before = match self.seen.entry(key) {
            Entry::Vacant(place) => {
                place.insert(content);
                return false;
            }
            Entry::Occupied(before) => *before.get(),
        };
        self.repeated += 1;
        if before != content {
            self.differ += 1;
            if self.differing.len() < TOLD {
                self.differing.push(number);
            }
        }
        true
    }

    fn refuse(&mut self, number: u64, faults: &[FieldError], text: &[u8]) {
        self.skipped.add(Skip::Invalid, 1);
        let mut unknown = faults.iter().filter(|fault| fault.code == "unknown_field");
        self.has_unknown_members |= unknown.clone().next().is_some();
        self.has_snake_case |= unknown.any(|fault| fault.pointer.contains('_'));
        if self.bad.len() < TOLD {
            let faults: Vec<_> = faults.iter().map(|fault| told(fault, text)).collect();
            self.bad
                .push(format!("line {number}: {}", faults.join("; ")));
        }
    }

    /// Sorts what is good, and finds what is too much.
    pub(super) fn settle(&mut self, each: u32) {
        self.seen = HashMap::new();
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

/// A fault of the line `text` as people read it: where, what would be right, the rule's code, and of a short closed set
/// what is there instead.
fn told(fault: &FieldError, text: &[u8]) -> String {
    let place = match fault.pointer.as_str() {
        "" => String::new(),
        pointer => format!("{}: ", shown(pointer)),
    };
    let found = match fault.code {
        "unknown_field" => return format!("{place}no member of a notification (unknown_field)"),
        "unknown_value" => found(fault, text),
        _ => None,
    };
    let found = found.map_or_else(String::new, |found| format!(", not {found:?}"));
    format!("{place}{}{found} ({})", fault.expected, fault.code)
}

/// The beginning of the text that is there.
fn found(fault: &FieldError, text: &[u8]) -> Option<String> {
    const SHOWN: usize = 32;
    let line: Value = serde_json::from_slice(text).ok()?;
    let found = line.pointer(&fault.pointer)?.as_str()?;
    Some(found.chars().take(SHOWN).collect())
}

/// A name from the file as a terminal may be given it: what would steer one is escaped.
fn shown(text: &str) -> String {
    let escaped = |character: char| match character {
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    text.chars().map(escaped).collect()
}
