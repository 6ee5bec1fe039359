//! What a socket hears: an event's name and its payload, encoded once, where the change is made.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::notification::{Change, Notification, What};
use crate::user::UserId;

/// The names of the contract. Applications may not emit these themselves.
pub const NEW: &str = "notification:new";
pub const UPDATED: &str = "notification:updated";
pub const DELETED: &str = "notification:deleted";
pub const UNREAD_COUNT: &str = "notification:unread-count";
pub const REFRESH: &str = "notification:refresh";
pub const SYNCED: &str = "notification:synced";
pub const AUTH_EXPIRING: &str = "auth:expiring";
pub const SERVER_DRAIN: &str = "server:drain";

/// Whether it may name an event: it looks the same in JSON.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    name.bytes().all(is_plain)
}

/// An event as every node passes it on: the payload is JSON text that nobody takes apart again.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: Cow<'static, str>,
    pub payload: Box<RawValue>,
}

impl Event {
    /// Encodes `payload`. The payloads are this crate's own types, which always have a JSON form.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, payload: &impl Serialize) -> Self {
        let payload = serde_json::value::to_raw_value(payload).unwrap_or_default();
        Self {
            name: name.into(),
            payload,
        }
    }

    /// Length of what [`write_packet`](Self::write_packet) writes.
    #[must_use]
    pub fn packet_length(&self) -> usize {
        self.name.len() + self.payload.get().len() + r#"42["",]"#.len()
    }

    /// Writes the Socket.IO EVENT packet in its Engine.IO message. Names need no escapes: only such are made here, and let in
    /// from other nodes.
    pub fn write_packet(&self, into: &mut Vec<u8>) {
        for part in [r#"42[""#, &*self.name, r#"","#, self.payload.get(), "]"] {
            into.extend_from_slice(part.as_bytes());
        }
    }

    /// The one event of a change, as live sockets and resuming ones hear it.
    #[must_use]
    pub fn of(change: &Change, epoch: &str) -> Self {
        let seq = change.seq;
        match &change.what {
            What::New(notification) => Self::created(notification),
            What::Updated(notification) => Self::new(UPDATED, notification),
            What::Deleted { id, reason } => Self::new(
                DELETED,
                &serde_json::json!({ "id": id, "seq": seq, "reason": reason }),
            ),
            What::ReadAll => Self::refresh("read-all", seq, epoch),
            What::Cleared => Self::refresh("cleared", seq, epoch),
        }
    }

    /// Its payload is the notification.
    #[must_use]
    pub fn created(notification: &Notification) -> Self {
        Self::new(NEW, notification)
    }

    #[must_use]
    pub fn unread_count(count: u64, seq: u64) -> Self {
        // One for each notification that is delivered: no map is made for it.
        #[derive(Serialize)]
        struct UnreadCount {
            count: u64,
            seq: u64,
        }
        Self::new(UNREAD_COUNT, &UnreadCount { count, seq })
    }

    #[must_use]
    pub fn refresh(reason: &str, seq: u64, epoch: &str) -> Self {
        Self::new(
            REFRESH,
            &serde_json::json!({ "reason": reason, "seq": seq, "epoch": epoch }),
        )
    }

    #[must_use]
    pub fn synced(seq: u64, epoch: &str, replayed: u64) -> Self {
        Self::new(
            SYNCED,
            &serde_json::json!({ "seq": seq, "epoch": epoch, "replayed": replayed }),
        )
    }
}

/// What travels from the node where it happened to the nodes where its user is.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whom it is for; `None` is everyone who is connected.
    pub to: Option<UserId>,
    /// When the publisher's node accepted it, in milliseconds since 1970 by that node's clock.
    pub published_at: u64,
    /// The history that it is of, as its node knew it before the commit: in another one its seq means something else.
    pub epoch: Arc<str>,
    pub body: Body,
}

/// What a message says. All but a transient emit is about one user's inbox, and is in the store before it is said.
#[derive(Clone, Debug)]
pub enum Body {
    /// A change, with its one event.
    Change(Position, Arc<Event>),
    /// A transient emit: nothing remembers it.
    Emit(Arc<Event>),
    /// Tokens of the user that were issued at or before a time, in milliseconds since 1970, are no longer
    /// believed. Takes a seq, and has no event.
    Revoked(Position, u64),
    /// The user's head is at least this seq: for changes that were not announced one by one.
    Reached(u64),
}

impl Body {
    /// Where it stands in the user's order, if it has a place of its own there.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Change(position, _) | Self::Revoked(position, _) => Some(*position),
            Self::Emit(_) | Self::Reached(_) => None,
        }
    }

    /// What sockets hear of it.
    #[must_use]
    pub fn event(&self) -> Option<&Arc<Event>> {
        match self {
            Self::Change(_, event) | Self::Emit(event) => Some(event),
            Self::Revoked(..) | Self::Reached(_) => None,
        }
    }
}

/// Where in a user's order a durable change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub seq: u64,
    /// Unread notifications after this change.
    pub unread: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Reason;

    #[test]
    fn each_change_is_one_event() {
        let change = |what| Change {
            user: UserId::try_from("42").unwrap(),
            seq: 7,
            unread: 0,
            what,
        };
        let heard = |what| {
            let event = Event::of(&change(what), "e1");
            (event.name.into_owned(), event.payload.get().to_owned())
        };

        let deleted = What::Deleted {
            id: uuid::Uuid::nil(),
            reason: Reason::Deleted,
        };
        assert_eq!(
            heard(What::ReadAll).1,
            r#"{"epoch":"e1","reason":"read-all","seq":7}"#
        );
        assert_eq!(
            heard(What::Cleared).1,
            r#"{"epoch":"e1","reason":"cleared","seq":7}"#
        );
        assert_eq!(
            heard(deleted),
            (
                DELETED.to_owned(),
                r#"{"id":"00000000-0000-0000-0000-000000000000","reason":"deleted","seq":7}"#
                    .to_owned()
            )
        );
    }
}
