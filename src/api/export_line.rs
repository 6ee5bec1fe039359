//! A line of another system's export, an old notification: the rules of a draft, and what only the past has.

mod id;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use self::id::OldId;
use super::draft::{self, MAX_MESSAGE, MESSAGE, Rules, TITLE};
use super::fields::Fields;
use super::json;
use super::problem::{FieldError, Problem};
use crate::notification::{Draft, Kind, Notification, Priority};
use crate::user::UserId;

/// How far ahead the clock of the old system may have been.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);

const USER: &str = "whose it is: 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -, or an integer";
const TIME: &str = "a time, as in 2024-01-31T08:00:00Z (RFC 3339), or milliseconds since 1970";
const PAST: &str = "when it was created, as in 2024-01-31T08:00:00Z (RFC 3339) or milliseconds since 1970, not in the future";
const KIND: &str = "1 to 64 letters, digits, _, - and spaces, the first a letter";
const DATA: &str = "an object, or a text that is one written as JSON";
const READ: &str = "the same as isRead";

/// Members that mean nothing here: Bellhop's own answers have them.
const MEANINGLESS: [&str; 2] = ["seq", "delivery"];

/// What a line of an export is.
#[derive(Debug)]
pub(crate) enum Line {
    /// With its old times and states, even if its `expiresAt` is over; its `seq` is 0.
    Notification(Box<Notification>),
    /// It was deleted there (`deletedAt`).
    Deleted,
}

/// What the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRules<'a> {
    pub(crate) http_urls: bool,
    pub(crate) now: DateTime<Utc>,
    /// Members that the caller does not want.
    pub(crate) ignored: &'a [String],
}

/// Reads one line; what breaks a rule is answered with its place, all of it at once.
pub(crate) fn read(line: &[u8], rules: LineRules<'_>) -> Result<Line, Vec<FieldError>> {
    parse(line, rules).map_err(faults)
}

fn faults(problem: Problem) -> Vec<FieldError> {
    let code = problem.code();
    if let Problem::Invalid(errors) = problem {
        return errors;
    }
    vec![FieldError {
        pointer: String::new(),
        code,
        expected: match code {
            "utf8_invalid" => "text in UTF-8",
            "json_duplicate_key" => "an object in which no name comes twice",
            "json_too_deep" => "an object that is not nested so deeply",
            _ => "one JSON object, and nothing else",
        },
    }]
}

fn parse(line: &[u8], rules: LineRules<'_>) -> Result<Line, Problem> {
    let mut fields = Fields::of(line)?;
    let ignored = rules.ignored.iter().map(String::as_str);
    for name in MEANINGLESS.into_iter().chain(ignored) {
        fields.take(name);
    }
    let is_deleted = time(&mut fields, "deletedAt").is_some();
    let notification = notification(&mut fields, rules);
    fields.finish()?;
    match notification {
        _ if is_deleted => Ok(Line::Deleted),
        Some(notification) => Ok(Line::Notification(Box::new(notification))),
        None => Err(Problem::Defect(
            "an old notification lacks what was found in it",
        )),
    }
}

/// Takes every member. `None` only where one is missing or wrong, which is noted then.
fn notification(fields: &mut Fields<'_>, rules: LineRules<'_>) -> Option<Notification> {
    let (user, id) = (user(fields), OldId::take(fields));
    let created_at = created_at(fields, rules.now);
    let state = State::take(fields, created_at);
    let draft = draft(fields, rules);

    let (user, id) = (user?, id?);
    let draft = Draft {
        data: id.kept_in(draft.data),
        ..draft
    };
    let id = id.uuid(&user);
    Some(Notification {
        is_read: state.read_at.is_some(),
        read_at: state.read_at,
        clicked_at: state.clicked_at,
        ..Notification::created(&draft, user, id, 0, created_at?)
    })
}

fn draft(fields: &mut Fields<'_>, rules: LineRules<'_>) -> Draft {
    if !fields.has("title") {
        fields.refuse("title", "required", TITLE);
    }
    let urls = Rules {
        http_urls: rules.http_urls,
        now: rules.now,
    };
    let priority = priority(fields);
    Draft {
        kind: kind(fields),
        priority,
        title: draft::title(fields),
        message: draft::text(fields, "message", MAX_MESSAGE, MESSAGE).unwrap_or_default(),
        data: data(fields),
        action_url: draft::link(fields, "actionUrl", urls),
        icon: draft::link(fields, "icon", urls),
        badge: draft::link(fields, "badge", urls),
        silent: fields.boolean("silent").unwrap_or(false),
        sticky: fields
            .boolean("sticky")
            .unwrap_or(priority == Priority::Urgent),
        expires_at: time(fields, "expiresAt"),
    }
}

fn user(fields: &mut Fields<'_>) -> Option<UserId> {
    let Some(json) = fields.take("userId") else {
        fields.refuse("userId", "required", USER);
        return None;
    };
    fields.user("userId", json)
}

/// An object, or a text that holds one, as columns of text have it.
fn data(fields: &mut Fields<'_>) -> Box<RawValue> {
    if !fields.is_text("data") {
        return draft::data(fields);
    }
    let text = fields.text("data").unwrap_or_default();
    // By itself first: what is no JSON could end the object around it.
    if !text.trim_start().starts_with('{') || json::check(text.as_bytes()).is_err() {
        fields.refuse("data", "type_mismatch", DATA);
        return Box::default();
    }
    let around = format!(r#"{{"data":{text}}}"#);
    let Ok(mut inside) = Fields::of(around.as_bytes()) else {
        fields.refuse("data", "too_deep", DATA);
        return Box::default();
    };
    let data = draft::data(&mut inside);
    if let Err(problem) = inside.finish() {
        for fault in faults(problem) {
            fields.refuse("data", fault.code, fault.expected);
        }
    }
    data
}

/// In any case, and with `-` or a space where ours have `_`: `order-shipped` is `ORDER_SHIPPED`.
fn kind(fields: &mut Fields<'_>) -> Kind {
    let Some(text) = fields.text("type") else {
        return Kind::default();
    };
    let text = text.to_ascii_uppercase().replace(['-', ' '], "_");
    Kind::parse(&text).unwrap_or_else(|| {
        fields.refuse("type", "pattern_mismatch", KIND);
        Kind::default()
    })
}

/// In any case.
fn priority(fields: &mut Fields<'_>) -> Priority {
    let Some(text) = fields.text("priority") else {
        return Priority::default();
    };
    Priority::parse(&text.to_ascii_uppercase()).unwrap_or_else(|| {
        fields.refuse("priority", "unknown_value", "LOW, NORMAL, HIGH or URGENT");
        Priority::default()
    })
}

/// What its user had done with it.
struct State {
    read_at: Option<DateTime<Utc>>,
    clicked_at: Option<DateTime<Utc>>,
}

impl State {
    /// `isRead` (or `read`) decides; where neither is there, `readAt` and `clickedAt` do. A read one whose time of
    /// reading is not known was read when it was clicked, changed last (`updatedAt`), or created.
    fn take(fields: &mut Fields<'_>, created_at: Option<DateTime<Utc>>) -> Self {
        let (is_read, read) = (fields.boolean("isRead"), fields.boolean("read"));
        if is_read.is_some() && read.is_some() && is_read != read {
            fields.refuse("read", "contradiction", READ);
        }
        let read_at = time(fields, "readAt");
        let clicked_at = time(fields, "clickedAt");
        let updated_at = time(fields, "updatedAt");
        let known = read_at.or(clicked_at);
        let read_at = match is_read.or(read) {
            Some(true) => known.or(updated_at).or(created_at),
            Some(false) => None,
            None => known,
        };
        Self {
            read_at,
            clicked_at,
        }
    }
}

fn created_at(fields: &mut Fields<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if !fields.has("createdAt") {
        fields.take("createdAt");
        fields.refuse("createdAt", "required", PAST);
        return None;
    }
    let time = time(fields, "createdAt")?;
    if time > now + CLOCK_DIFFERENCE {
        fields.refuse("createdAt", "time_future", PAST);
    }
    Some(time)
}

fn time(fields: &mut Fields<'_>, name: &str) -> Option<DateTime<Utc>> {
    /// The beginning of the year 10000.
    const END: i64 = 253_402_300_800_000;
    let json = fields.take(name)?;
    let time = if json.starts_with('"') {
        let text = serde_json::from_str::<String>(json).ok();
        // Databases write theirs without an offset, and they keep UTC.
        text.and_then(|text| draft::time(&text).or_else(|| draft::time(&format!("{text}Z"))))
    } else {
        let milliseconds = json.parse().ok().filter(|number| (0..END).contains(number));
        milliseconds.and_then(DateTime::from_timestamp_millis)
    };
    if time.is_none() {
        fields.refuse(name, "time_invalid", TIME);
    }
    time
}

#[cfg(test)]
mod tests;
