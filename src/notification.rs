//! What is sent: the draft that a publisher hands in, the notification it becomes, and the changes it lives through.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::user::UserId;

/// How loud a notification is. `Urgent` ones are sticky unless the publisher says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

impl Priority {
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// As it is spelled in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Normal => "NORMAL",
            Self::High => "HIGH",
            Self::Urgent => "URGENT",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == text)
    }
}

/// The application's own kind of notification, `type` in JSON: `[A-Z][A-Z0-9_]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind(String);

impl Kind {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let first = text.bytes().next()?;
        (text.len() <= 64 && first.is_ascii_uppercase() && text.bytes().all(allowed))
            .then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self("GENERAL".to_owned())
    }
}

/// What a publisher wants to be shown, checked: everything in it is within the contract's limits.
///
/// One draft may go to many users; what differs between them (id, seq, user) is not in it.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: Kind,
    pub priority: Priority,
    /// 1 to 200 characters, no control characters but newline and tab.
    pub title: String,
    /// At most 4096 characters, no control characters but newline and tab.
    pub message: String,
    /// A JSON object, at most 8 KiB compact; kept as the text it is, never taken apart again.
    pub data: Box<RawValue>,
    pub action_url: Option<String>,
    pub icon: Option<String>,
    pub badge: Option<String>,
    pub silent: bool,
    pub sticky: bool,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A notification as its user sees it. Serialises to the JSON of the contract.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    pub id: Uuid,
    pub user_id: UserId,
    /// The user's change counter at this notification's last change.
    pub seq: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub priority: Priority,
    pub title: String,
    pub message: String,
    pub data: Box<RawValue>,
    pub action_url: Option<String>,
    pub icon: Option<String>,
    pub badge: Option<String>,
    pub silent: bool,
    pub sticky: bool,
    pub is_read: bool,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub read_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub clicked_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl Notification {
    /// The notification that `draft` becomes for `user`, unread and not yet clicked.
    #[must_use]
    pub fn created(
        draft: &Draft,
        user: UserId,
        id: Uuid,
        seq: u64,
        created_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            user_id: user,
            seq,
            kind: draft.kind.clone(),
            priority: draft.priority,
            title: draft.title.clone(),
            message: draft.message.clone(),
            data: draft.data.clone(),
            action_url: draft.action_url.clone(),
            icon: draft.icon.clone(),
            badge: draft.badge.clone(),
            silent: draft.silent,
            sticky: draft.sticky,
            is_read: false,
            read_at: None,
            clicked_at: None,
            created_at,
            expires_at: draft.expires_at,
        }
    }
}

impl Notification {
    /// When it was read; of one that is read without a time, when it was created.
    pub(crate) fn was_read_at(&self) -> Option<DateTime<Utc>> {
        self.read_at.or(self.is_read.then_some(self.created_at))
    }
}

/// Why a notification is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// By its user.
    Deleted,
    /// By a publisher.
    Withdrawn,
    /// Its time was over.
    Expired,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Deleted, Self::Withdrawn, Self::Expired];

    /// As it is spelled in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// One step of a user's inbox: it took the seq, and left so many unread.
///
/// One seq is one change, and one change is one event to every device of the user.
#[derive(Clone, Debug)]
pub struct Change {
    pub user: UserId,
    pub seq: u64,
    /// Unread notifications after this change.
    pub unread: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    New(Notification),
    Updated(Notification),
    Deleted {
        id: Uuid,
        reason: Reason,
    },
    /// Everything up to here was marked read at once.
    ReadAll,
    /// Everything up to here was deleted at once.
    Cleared,
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-23T08:00:00.123Z`: the one spelling of a time on the wire.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

pub(crate) fn rfc3339<S: Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}

pub(crate) fn rfc3339_or_null<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_upper_case_and_short() {
        for text in ["GENERAL", "A", "ORDER_2", &"A".repeat(64)] {
            assert_eq!(Kind::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a", "1A", "_A", "A-B", "A B", "É", &"A".repeat(65)] {
            assert_eq!(Kind::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn priorities_and_reasons_are_read_as_they_are_written() {
        for priority in Priority::ALL {
            assert_eq!(Priority::parse(priority.as_str()), Some(priority));
            assert_eq!(serde_json::to_value(priority).unwrap(), priority.as_str());
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_notification_has_the_fields_of_the_contract() {
        let draft = Draft {
            kind: Kind::default(),
            priority: Priority::High,
            title: "WebSocket Test".to_owned(),
            message: "Testing real-time delivery".to_owned(),
            data: RawValue::from_string(r#"{"orderId":7}"#.to_owned()).unwrap(),
            action_url: Some("/orders/7".to_owned()),
            icon: None,
            badge: None,
            silent: false,
            sticky: false,
            expires_at: None,
        };
        let created_at = DateTime::parse_from_rfc3339("2026-11-23T08:00:00.123456Z")
            .unwrap()
            .to_utc();
        let user = UserId::try_from("123").unwrap();

        let notification = Notification::created(&draft, user, Uuid::nil(), 42, created_at);

        assert_eq!(
            serde_json::to_value(&notification).unwrap(),
            serde_json::json!({
                "id": "00000000-0000-0000-0000-000000000000", "userId": "123", "seq": 42, "type": "GENERAL",
                "priority": "HIGH", "title": "WebSocket Test", "message": "Testing real-time delivery",
                "data": {"orderId": 7}, "actionUrl": "/orders/7", "icon": null, "badge": null, "silent": false,
                "sticky": false, "isRead": false, "readAt": null, "clickedAt": null,
                "createdAt": "2026-11-23T08:00:00.123Z", "expiresAt": null
            })
        );
    }
}
