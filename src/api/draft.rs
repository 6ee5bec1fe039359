//! From the bytes of a body to what a publisher wants to be shown, within every limit of the contract.

use chrono::{DateTime, Datelike as _, TimeDelta, Timelike as _, Utc};
use serde_json::value::RawValue;
use url::Url;

use super::fields::Fields;
use super::problem::{Problem, TIME_PAST};
use super::recipients::recipients;
use crate::notification::{Draft, Kind, Priority};
use crate::publish::Recipients;
use crate::user::UserId;

pub(super) const TITLE: &str =
    "1 to 200 characters, not only spaces, no control characters but newline and tab";
pub(super) const MESSAGE: &str =
    "at most 4096 characters, no control characters but newline and tab";
const DATA: &str = "an object of at most 8 KiB written compactly, at most 8 containers deep";
const LINK: &str = "an https: URL or a path that begins with one /, at most 2048 characters";
const EXPIRY: &str = "a time in the future, as in 2030-01-31T08:00:00Z (RFC 3339)";

pub(super) const MAX_TITLE: usize = 200;
pub(super) const MAX_MESSAGE: usize = 4096;
const MAX_DATA_BYTES: usize = 8 * 1024;
const MAX_DATA_DEPTH: usize = 8;
pub(super) const MAX_LINK: usize = 2048;

/// What the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `http:` is as good as `https:`.
    pub(super) http_urls: bool,
    pub(super) now: DateTime<Utc>,
}

impl Rules {
    /// Those of the time up to which idempotency keys are honoured.
    pub(super) fn of_a_day_ago(self) -> Self {
        Self {
            now: self.now - TimeDelta::days(1),
            ..self
        }
    }
}

/// One draft and whom it is for.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) draft: Draft,
    pub(super) users: Vec<UserId>,
    /// It was addressed by `userIds`, and is answered so.
    pub(super) many: bool,
}

impl Publication {
    /// Reads the body of `POST /api/notifications`.
    pub(super) fn parse(body: &[u8], rules: Rules) -> Result<Self, Problem> {
        let mut fields = Fields::of(body)?;
        let many = fields.has("userIds");
        let recipients = recipients(&mut fields, false);
        let draft = titled_draft(&mut fields, rules);
        fields.finish()?;
        match recipients {
            Recipients::Users(users) => Ok(Self { draft, users, many }),
            Recipients::Everyone => Err(Problem::Defect("a notification for everyone")),
        }
    }
}

/// Reads the body of `POST /api/notifications/test`: no member is required, nor is there a body.
pub(super) fn test_draft(body: &[u8], rules: Rules) -> Result<Draft, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut fields = Fields::of(body)?;
    let (title, message) = (fields.has("title"), fields.has("message"));
    let mut draft = draft(&mut fields, rules);
    fields.finish()?;
    if !title {
        "Test notification".clone_into(&mut draft.title);
    }
    if !message {
        "If you can read this, notifications reach you.".clone_into(&mut draft.message);
    }
    Ok(draft)
}

/// Reads all members of a draft that has to have a title, but those that say whom it is for.
pub(super) fn titled_draft(fields: &mut Fields<'_>, rules: Rules) -> Draft {
    if !fields.has("title") {
        fields.refuse("title", "required", TITLE);
    }
    draft(fields, rules)
}

fn draft(fields: &mut Fields<'_>, rules: Rules) -> Draft {
    let priority = priority(fields);
    Draft {
        kind: kind(fields),
        priority,
        title: title(fields),
        message: text(fields, "message", MAX_MESSAGE, MESSAGE).unwrap_or_default(),
        data: data(fields),
        action_url: link(fields, "actionUrl", rules),
        icon: link(fields, "icon", rules),
        badge: link(fields, "badge", rules),
        silent: fields.boolean("silent").unwrap_or(false),
        sticky: fields
            .boolean("sticky")
            .unwrap_or(priority == Priority::Urgent),
        expires_at: expiry(fields, rules),
    }
}

fn kind(fields: &mut Fields<'_>) -> Kind {
    let Some(text) = fields.text("type") else {
        return Kind::default();
    };
    Kind::parse(&text).unwrap_or_else(|| {
        fields.refuse("type", "pattern_mismatch", "[A-Z][A-Z0-9_]{0,63}");
        Kind::default()
    })
}

fn priority(fields: &mut Fields<'_>) -> Priority {
    let Some(text) = fields.text("priority") else {
        return Priority::default();
    };
    Priority::parse(&text).unwrap_or_else(|| {
        fields.refuse("priority", "unknown_value", "LOW, NORMAL, HIGH or URGENT");
        Priority::default()
    })
}

pub(super) fn title(fields: &mut Fields<'_>) -> String {
    let Some(title) = text(fields, "title", MAX_TITLE, TITLE) else {
        return String::new();
    };
    if title.trim().is_empty() {
        fields.refuse("title", "blank", TITLE);
    }
    title
}

/// Text for people, with CR LF as LF. Characters are what Unicode calls scalar values.
pub(super) fn text(
    fields: &mut Fields<'_>,
    name: &str,
    limit: usize,
    expected: &'static str,
) -> Option<String> {
    let mut text = fields.text(name)?;
    if text.contains('\r') {
        text = text.replace("\r\n", "\n");
    }
    if text
        .chars()
        .any(|character| character.is_control() && !matches!(character, '\n' | '\t'))
    {
        fields.refuse(name, "control_character", expected);
        return None;
    }
    // Never more characters than bytes.
    if text.len() > limit && text.chars().count() > limit {
        fields.refuse(name, "too_long", expected);
        return None;
    }
    Some(text)
}

pub(super) fn data(fields: &mut Fields<'_>) -> Box<RawValue> {
    let compact = fields.object("data");
    if compact
        .as_ref()
        .is_some_and(|compact| compact.text.len() > MAX_DATA_BYTES)
    {
        fields.refuse("data", "too_large", DATA);
    }
    if compact
        .as_ref()
        .is_some_and(|compact| compact.depth > MAX_DATA_DEPTH)
    {
        fields.refuse("data", "too_deep", DATA);
    }
    let text = compact.map_or_else(|| "{}".to_owned(), |compact| compact.text);
    // Both are JSON: one was checked, the other is a literal.
    RawValue::from_string(text).unwrap_or_default()
}

pub(super) fn link(fields: &mut Fields<'_>, name: &str, rules: Rules) -> Option<String> {
    let link = fields.text(name)?;
    if !is_link(&link, rules.http_urls) {
        fields.refuse(name, "url_not_allowed", LINK);
    }
    Some(link)
}

/// Whether a page may follow it or show it: nothing that a browser could take for a script, a file,
/// another host than the one that is spelled, or credentials.
fn is_link(text: &str, http_urls: bool) -> bool {
    let forbidden =
        |character: char| character.is_control() || character.is_whitespace() || character == '\\';
    if text.chars().count() > MAX_LINK || text.chars().any(forbidden) {
        return false;
    }
    if text.starts_with('/') {
        return !text.starts_with("//");
    }
    // Browsers read `https:host` and `https:/host` as something else than it looks: two slashes, or nothing.
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let allowed =
        scheme.eq_ignore_ascii_case("https") || (http_urls && scheme.eq_ignore_ascii_case("http"));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    allowed
        && !authority.is_empty()
        && !authority.contains('@')
        && Url::parse(text).is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()))
}

pub(super) fn expiry(fields: &mut Fields<'_>, rules: Rules) -> Option<DateTime<Utc>> {
    let text = fields.text("expiresAt")?;
    let Some(time) = time(&text) else {
        fields.refuse("expiresAt", "time_invalid", EXPIRY);
        return None;
    };
    if time <= rules.now {
        fields.refuse("expiresAt", TIME_PAST, EXPIRY);
    }
    Some(time)
}

/// A point in time that every reader of RFC 3339 reads the same way, to the millisecond.
///
/// So no leap second, which most cannot represent, and no offset `-00:00`, which says that the offset is
/// not known (section 4.3).
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let milliseconds = time.timestamp_subsec_millis();
    let is_plain = milliseconds < 1_000 && time.year() <= 9999 && !text.ends_with("-00:00");
    time.with_nanosecond(milliseconds * 1_000_000)
        .filter(|_| is_plain)
}

#[cfg(test)]
mod tests;
