//! An old notification, as the export of another system spells it: the rules of a draft, and what only the past has.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};
use uuid::{Builder, Uuid};

use super::draft::{self, MAX_MESSAGE, MESSAGE, Rules, TITLE};
use super::fields::Fields;
use super::problem::{FieldError, Problem};
use crate::notification::{Draft, Kind, Notification, Priority};
use crate::user::UserId;

/// What ids that are no UUIDs are mapped under (RFC 9562 section 5.5). With another one a repeated import would
/// add everything again: it must never change.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d2b_9c1e_57a4_4f0b_9a3e_3c8f_71d0_5b26);

/// How far ahead the clock of the old system may have been.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);

/// An id that is no UUID is no longer than this.
const MAX_ID: usize = 255;

const USER: &str = "whose it is: 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -, or an integer";
const ID: &str = "a UUID, another text of 1 to 255 characters, or an integer; without it a repeated import would add it again";
const TIME: &str = "a time, as in 2024-01-31T08:00:00Z (RFC 3339), or milliseconds since 1970";
const PAST: &str = "when it was created, as in 2024-01-31T08:00:00Z (RFC 3339) or milliseconds since 1970, not in the future";
const KIND: &str = "1 to 64 letters, digits, _, - and spaces, the first a letter";
const READ: &str = "the same as isRead";

/// Members that mean nothing here: Bellhop's own answers have them.
const MEANINGLESS: [&str; 2] = ["seq", "delivery"];

/// What a line of an export is.
#[derive(Debug)]
pub(crate) enum Old {
    /// With its old times and states, even if its `expiresAt` is over; its `seq` is 0.
    Notification(Box<Notification>),
    /// It was deleted there (`deletedAt`).
    Deleted,
}

/// What the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldRules<'a> {
    pub(crate) http_urls: bool,
    pub(crate) now: DateTime<Utc>,
    /// Members that the caller does not want.
    pub(crate) ignored: &'a [String],
}

/// Reads one line; what breaks a rule is answered with its place, all of it at once.
pub(crate) fn read(line: &[u8], rules: OldRules<'_>) -> Result<Old, Vec<FieldError>> {
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
            "utf8_invalid" => "a line in UTF-8",
            "json_duplicate_key" => "an object in which no name comes twice",
            "json_too_deep" => "an object that is not nested so deeply",
            _ => "a line with one JSON object, and nothing else",
        },
    }]
}

fn parse(line: &[u8], rules: OldRules<'_>) -> Result<Old, Problem> {
    let mut fields = Fields::of(line)?;
    let ignored = rules.ignored.iter().map(String::as_str);
    for name in MEANINGLESS.into_iter().chain(ignored) {
        fields.take(name);
    }
    let is_deleted = time(&mut fields, "deletedAt").is_some();
    let notification = notification(&mut fields, rules);
    fields.finish()?;
    match notification {
        _ if is_deleted => Ok(Old::Deleted),
        Some(notification) => Ok(Old::Notification(Box::new(notification))),
        None => Err(Problem::Defect(
            "an old notification lacks what was found in it",
        )),
    }
}

/// Takes every member. `None` only where one is missing or wrong, which is noted then.
fn notification(fields: &mut Fields<'_>, rules: OldRules<'_>) -> Option<Notification> {
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

fn draft(fields: &mut Fields<'_>, rules: OldRules<'_>) -> Draft {
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
        data: draft::data(fields),
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

/// The id that the old system knew it by.
enum OldId {
    Uuid(Uuid),
    Other {
        /// An integer as its decimal spelling.
        text: String,
        /// As the export has it: a string, or an integer.
        json: Value,
    },
}

impl OldId {
    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let Some(json) = fields.take("id") else {
            fields.refuse("id", "required", ID);
            return None;
        };
        let json = serde_json::from_str(json).unwrap_or_default();
        let text = match &json {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                fields.refuse("id", "type_mismatch", ID);
                return None;
            }
        };
        if !(1..=MAX_ID).contains(&text.chars().count()) {
            fields.refuse("id", "too_long", ID);
            return None;
        }
        // With its hyphens: other texts of 32 digits are other systems' ids, and kept as these spell them.
        let uuid = Uuid::parse_str(&text).ok().filter(|_| text.len() == 36);
        Some(uuid.map_or(Self::Other { text, json }, Self::Uuid))
    }

    /// The id here: its own, or one that is always the same for this user and id.
    fn uuid(&self, user: &UserId) -> Uuid {
        match self {
            Self::Uuid(uuid) => *uuid,
            Self::Other { text, .. } => version_5(&format!("{user}\0{text}")),
        }
    }

    /// The data, and in it as `legacyId` the id that is not kept otherwise; unless the data has its own.
    fn kept_in(&self, data: Box<RawValue>) -> Box<RawValue> {
        let Self::Other { json, .. } = self else {
            return data;
        };
        let is_taken = serde_json::from_str::<Value>(data.get())
            .is_ok_and(|data| data.get("legacyId").is_some());
        let rest = data.get().strip_prefix('{').filter(|_| !is_taken);
        let text = match rest {
            None => return data,
            Some("}") => format!(r#"{{"legacyId":{json}}}"#),
            Some(rest) => format!(r#"{{"legacyId":{json},{rest}"#),
        };
        RawValue::from_string(text).unwrap_or(data)
    }
}

/// RFC 9562 section 5.5: the same name has the same UUID, everywhere.
fn version_5(name: &str) -> Uuid {
    let digest = Sha1::new()
        .chain_update(NAMESPACE.as_bytes())
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 16];
    for (byte, digest) in bytes.iter_mut().zip(digest) {
        *byte = digest;
    }
    Builder::from_sha1_bytes(bytes).into_uuid()
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::notification::timestamp;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn read(line: &Value) -> Result<Old, Vec<FieldError>> {
        let rules = OldRules {
            http_urls: false,
            now: draft::time(NOW).unwrap(),
            ignored: &["sender".to_owned()],
        };
        super::read(line.to_string().as_bytes(), rules)
    }

    fn with(more: &Value) -> Value {
        let mut line = json!({
            "userId": 42, "id": "clh3x9k2c0000", "title": "Hello", "createdAt": "2024-01-31T08:00:00.000Z"
        });
        let more = more.as_object().unwrap().clone();
        line.as_object_mut().unwrap().extend(more);
        line
    }

    fn notification(more: &Value) -> Notification {
        match read(&with(more)) {
            Ok(Old::Notification(notification)) => *notification,
            other => panic!("{more}: {other:?}"),
        }
    }

    #[test]
    fn an_export_of_another_system_is_understood() {
        let one = notification(&json!({
            "message": "Your order", "type": "order-shipped", "priority": "high", "data": {"orderId": 7},
            "actionUrl": "/orders/7", "icon": null, "isRead": true, "readAt": null,
            "updatedAt": "2024-02-01T00:00:00Z", "sender": {"id": 1}
        }));
        assert_eq!(one.user_id.as_str(), "42");
        assert_eq!(
            (one.kind.as_str(), one.priority),
            ("ORDER_SHIPPED", Priority::High)
        );
        assert_eq!(
            one.data.get(),
            r#"{"legacyId":"clh3x9k2c0000","orderId":7}"#
        );
        assert_eq!(timestamp(one.created_at), "2024-01-31T08:00:00.000Z");
        assert!(one.is_read);
        assert_eq!(timestamp(one.read_at.unwrap()), "2024-02-01T00:00:00.000Z");
    }

    #[test]
    fn an_id_is_kept_or_always_mapped_alike() {
        let uuid = "0198F1C2-0000-7000-8000-000000000001";
        let kept = notification(&json!({ "id": uuid }));
        assert_eq!(kept.id, Uuid::parse_str(uuid).unwrap());
        assert_eq!(kept.data.get(), "{}");

        let (number, text) = (
            notification(&json!({"id": 7})),
            notification(&json!({"id": "7"})),
        );
        assert_eq!(number.id, text.id);
        assert_eq!(number.data.get(), r#"{"legacyId":7}"#);
        assert_eq!(number.id.get_version_num(), 5);
        // As every release maps it: a repeated import must not add it again.
        assert_eq!(
            number.id.to_string(),
            "2676ccdf-104b-51f8-83ea-ab349a12bd4b"
        );
        let other = notification(&json!({ "id": 7, "userId": "4" }));
        assert_ne!(other.id, number.id);
        let own = notification(&json!({ "id": 7, "data": {"legacyId": "mine"} }));
        assert_eq!(own.data.get(), r#"{"legacyId":"mine"}"#);
    }

    #[test]
    fn a_read_one_has_a_time_of_reading() {
        let (created, late) = ("2024-01-31T08:00:00.000Z", "2024-03-01T00:00:00.000Z");
        for (state, read_at) in [
            (json!({}), None),
            (json!({"isRead": false, "readAt": late}), None),
            (json!({"read": true}), Some(created)),
            (json!({"isRead": true, "read": true}), Some(created)),
            (json!({"readAt": late}), Some(late)),
            (json!({"readAt": "2024-03-01T00:00:00"}), Some(late)),
            (json!({"readAt": "2024-03-01 01:00:00+01:00"}), Some(late)),
            (json!({"clickedAt": late}), Some(late)),
            (
                json!({"isRead": true, "readAt": 1_709_251_200_000_i64}),
                Some(late),
            ),
        ] {
            let one = notification(&state);
            assert_eq!(one.read_at.map(timestamp).as_deref(), read_at, "{state}");
            assert_eq!(one.is_read, read_at.is_some());
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_all_at_once() {
        for (more, expected) in [
            (json!({"id": null}), "/id required"),
            (json!({"id": 1.5}), "/id type_mismatch"),
            (json!({"id": ""}), "/id too_long"),
            (json!({"userId": "a b"}), "/userId user_id_invalid"),
            (json!({"createdAt": null}), "/createdAt required"),
            (
                json!({"createdAt": "2026-01-01T00:01:00Z"}),
                "/createdAt time_future",
            ),
            (json!({"createdAt": "yesterday"}), "/createdAt time_invalid"),
            (json!({"readAt": -1}), "/readAt time_invalid"),
            (json!({"type": "2nd"}), "/type pattern_mismatch"),
            (json!({"priority": "LOUD"}), "/priority unknown_value"),
            (
                json!({"isRead": true, "read": false}),
                "/read contradiction",
            ),
            (json!({"created_at": 1}), "/created_at unknown_field"),
            (
                json!({"title": null, "userId": null}),
                "/userId required, /title required",
            ),
        ] {
            let faults = read(&with(&more)).unwrap_err();
            let told: Vec<_> = faults
                .iter()
                .map(|fault| format!("{} {}", fault.pointer, fault.code))
                .collect();
            assert_eq!(told.join(", "), expected, "{more}");
        }
        let faults = super::read(
            b"{",
            OldRules {
                http_urls: false,
                now: Utc::now(),
                ignored: &[],
            },
        );
        assert_eq!(faults.unwrap_err()[0].code, "json_invalid");
    }

    #[test]
    fn what_is_over_is_read_all_the_same() {
        let one = notification(&json!({ "expiresAt": "2024-02-01T00:00:00Z", "seq": 7 }));
        assert!(one.expires_at.is_some() && one.seq == 0);
        let deleted = read(&with(&json!({ "deletedAt": "2024-02-01T00:00:00Z" })));
        assert!(matches!(deleted, Ok(Old::Deleted)));
    }
}
