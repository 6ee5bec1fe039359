//! What a device heard, as a line of the history.

use serde_json::Value;

use crate::history::Event;

/// An event's line in the history; none for what is not about an inbox.
pub(super) fn told(device: &str, user: &str, name: &str, data: &Value) -> Option<Event> {
    let (device, user) = (device.to_owned(), user.to_owned());
    let number = |name: &str| data.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
    let (seq, epoch) = (number("seq"), text("epoch").unwrap_or_default());
    let reason = text("reason").unwrap_or_default();
    let is_change = matches!(reason.as_str(), "read-all" | "cleared");
    Some(match name {
        "notification:unread-count" => Event::Count {
            device,
            user,
            count: number("count"),
            seq,
        },
        "notification:synced" => Event::Synced {
            device,
            user,
            seq,
            epoch,
            replayed: number("replayed"),
        },
        "notification:refresh" if !is_change => Event::Refresh {
            device,
            user,
            reason,
            seq,
        },
        "notification:new"
        | "notification:updated"
        | "notification:deleted"
        | "notification:refresh" => Event::Recv {
            device,
            user,
            name: name.to_owned(),
            id: text("id").unwrap_or_default(),
            seq,
            owner: text("userId"),
            key: super::inbox::item_of(data).and_then(|item| item.key),
        },
        _ => return None,
    })
}
