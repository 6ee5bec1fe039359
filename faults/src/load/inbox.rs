//! What a device keeps and shows: the client of Bellhop's README, without its socket.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::history::Item;

/// A change, with what it does to what is shown.
struct Change {
    id: String,
    seq: u64,
    what: What,
}

enum What {
    Upsert(Item),
    Delete,
    ReadAll,
    Clear,
}

/// What an event led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Changes that are shown from now on: id and seq.
    pub(super) applied: Vec<(String, u64)>,
    /// The list is wanted.
    pub(super) fetch: bool,
}

/// The whole list, as the server told it in pages.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Item>,
    pub(crate) seq: u64,
    pub(crate) unread: u64,
    pub(crate) epoch: String,
}

pub(super) struct Inbox {
    pub(super) items: BTreeMap<String, Item>,
    /// Count, and the seq that it is of.
    pub(super) count: Option<(u64, u64)>,
    /// Nothing moves it until the first list is there.
    pub(super) last_seq: Option<u64>,
    pub(super) epoch: Option<String>,
    /// What came while the list was on its way; none when it is there.
    held: Option<Vec<Change>>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            count: None,
            last_seq: None,
            epoch: None,
            held: Some(Vec::new()),
        }
    }
}

impl Inbox {
    /// Takes an event from the server. Events that it does not know do nothing.
    pub(super) fn hear(&mut self, name: &str, data: &Value) -> Effect {
        let seq = data.get("seq").and_then(Value::as_u64).unwrap_or_default();
        let change = |id: &str, what| Change {
            id: id.to_owned(),
            seq,
            what,
        };
        let applied = match name {
            "notification:new" | "notification:updated" => {
                let Some(item) = item_of(data) else {
                    return Effect::default();
                };
                let id = item.id.clone();
                self.change(change(&id, What::Upsert(item)))
            }
            "notification:deleted" => self.change(change(text(data, "id"), What::Delete)),
            "notification:unread-count" => {
                let count = data
                    .get("count")
                    .and_then(Value::as_u64)
                    .unwrap_or_default();
                if self.count.is_none_or(|(_, of)| seq >= of) {
                    self.count = Some((count, seq));
                }
                None
            }
            "notification:refresh" => match text(data, "reason") {
                "read-all" => self.change(change("", What::ReadAll)),
                "cleared" => self.change(change("", What::Clear)),
                reason => return self.refetch(reason == "reset"),
            },
            "notification:synced" => {
                if self.held.is_none() {
                    self.last_seq = Some(self.last_seq.unwrap_or_default().max(seq));
                    self.epoch = Some(text(data, "epoch").to_owned());
                }
                None
            }
            _ => None,
        };
        Effect {
            applied: applied.into_iter().collect(),
            fetch: false,
        }
    }

    /// Whether it waits for a list.
    #[must_use]
    pub(super) fn is_fetching(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the list that it waited for, then what came meanwhile and is above it.
    pub(super) fn list(&mut self, list: List) -> Effect {
        self.items = list
            .items
            .into_iter()
            .map(|item| (item.id.clone(), item))
            .collect();
        self.last_seq = Some(list.seq);
        self.epoch = Some(list.epoch);
        let held = self.held.take().into_iter().flatten();
        Effect {
            applied: held.filter_map(|change| self.change(change)).collect(),
            fetch: false,
        }
    }

    fn refetch(&mut self, reset: bool) -> Effect {
        if reset {
            (self.last_seq, self.epoch, self.count) = (None, None, None);
        }
        self.held.get_or_insert_default();
        Effect {
            applied: Vec::new(),
            fetch: true,
        }
    }

    fn change(&mut self, change: Change) -> Option<(String, u64)> {
        if let Some(held) = &mut self.held {
            held.push(change);
            return None;
        }
        let Change { id, seq, what } = change;
        if self.last_seq.is_some_and(|last| seq <= last) {
            return None;
        }
        self.last_seq = Some(seq);
        match what {
            What::Upsert(item) => drop(self.items.insert(id.clone(), item)),
            What::Delete => drop(self.items.remove(&id)),
            What::ReadAll => self.items.values_mut().for_each(|item| item.read = true),
            What::Clear => self.items.clear(),
        }
        Some((id, seq))
    }
}

/// A notification as the API and the events tell it.
#[must_use]
pub(super) fn item_of(data: &Value) -> Option<Item> {
    Some(Item {
        id: data.get("id")?.as_str()?.to_owned(),
        seq: data.get("seq")?.as_u64()?,
        owner: data.get("userId")?.as_str()?.to_owned(),
        key: key_of(data, data.get("userId")?.as_str()?),
        read: data.get("isRead")?.as_bool()?,
    })
}

fn key_of(data: &Value, user: &str) -> Option<String> {
    let key = data.get("data")?.get("key")?.as_str()?;
    Some(super::bulk::own_key(key, user))
}

fn text<'a>(data: &'a Value, name: &str) -> &'a str {
    data.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new(id: &str, seq: u64) -> Value {
        json!({ "id": id, "seq": seq, "userId": "u", "isRead": false, "data": { "key": id } })
    }

    fn list(seq: u64) -> List {
        List {
            items: Vec::new(),
            seq,
            unread: 0,
            epoch: "e".to_owned(),
        }
    }

    #[test]
    fn what_comes_before_the_list_is_held_and_applied_above_it() {
        let mut inbox = Inbox::default();
        assert_eq!(
            inbox.hear("notification:new", &new("a", 1)),
            Effect::default()
        );
        inbox.hear("notification:synced", &json!({"seq": 1, "epoch": "e"}));
        assert_eq!(inbox.last_seq, None);
        assert_eq!(
            inbox.hear("notification:new", &new("b", 2)),
            Effect::default()
        );
        assert_eq!(inbox.list(list(1)).applied, [("b".to_owned(), 2)]);
        assert_eq!(inbox.last_seq, Some(2));
    }

    #[test]
    fn a_repeat_is_not_shown_again_and_a_reset_forgets() {
        let mut inbox = Inbox::default();
        inbox.list(list(0));
        assert_eq!(
            inbox.hear("notification:new", &new("a", 1)).applied.len(),
            1
        );
        assert_eq!(
            inbox.hear("notification:new", &new("a", 1)).applied.len(),
            0
        );
        assert!(
            inbox
                .hear("notification:refresh", &json!({"reason": "reset"}))
                .fetch
        );
        assert_eq!(inbox.last_seq, None);
        assert!(inbox.is_fetching());
    }
}
