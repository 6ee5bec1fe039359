//! A history turned around: by publish, by device, by user.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, Item, Line};

/// A line's number, counted from 1, as violations name it.
pub(super) type Number = usize;

/// An acknowledgement.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) line: Number,
    pub(super) at: u64,
    pub(super) id: &'a str,
    pub(super) seq: u64,
}

/// All that is known of one key.
pub(super) struct Publish<'a> {
    pub(super) user: &'a str,
    pub(super) invoked: Number,
    pub(super) answers: Vec<Answer<'a>>,
    pub(super) refused: Vec<Number>,
    pub(super) unknown: Vec<Number>,
}

/// Something that a device had before it: on the wire, or in a list.
pub(super) struct Sight<'a> {
    pub(super) line: Number,
    pub(super) id: &'a str,
    pub(super) owner: Option<&'a str>,
    pub(super) key: Option<&'a str>,
}

/// A step in the life of a device.
pub(super) enum Step<'a> {
    Connected,
    Disconnected,
    Synced,
    Reset,
    Listed(u64),
    Heard(&'a str, u64),
    Applied(&'a str, u64),
}

#[derive(Default)]
pub(super) struct Device<'a> {
    pub(super) user: &'a str,
    /// Line, time, and what happened.
    pub(super) steps: Vec<(Number, u64, Step<'a>)>,
    pub(super) sights: Vec<Sight<'a>>,
    /// When it first showed a notification, by id.
    pub(super) shown: BTreeMap<&'a str, u64>,
    pub(super) end: Option<End<'a>>,
    pub(super) slow: bool,
}

pub(super) struct End<'a> {
    pub(super) line: Number,
    pub(super) last_seq: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) items: &'a [Item],
}

pub(super) struct Row<'a> {
    pub(super) line: Number,
    pub(super) user: &'a str,
    pub(super) created_seq: u64,
    pub(super) seq: u64,
    pub(super) key: Option<&'a str>,
    pub(super) read: bool,
    pub(super) deleted: bool,
}

pub(super) struct Account {
    pub(super) line: Number,
    pub(super) head: u64,
    pub(super) unread: u64,
}

#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) history: &'a [Line],
    pub(super) publishes: BTreeMap<&'a str, Publish<'a>>,
    pub(super) devices: BTreeMap<&'a str, Device<'a>>,
    /// Names of devices, by user.
    pub(super) devices_of: BTreeMap<&'a str, BTreeSet<&'a str>>,
    pub(super) rows: BTreeMap<&'a str, Row<'a>>,
    pub(super) accounts: BTreeMap<&'a str, Account>,
    /// Users whose rows the scenario held.
    pub(super) held: BTreeSet<&'a str>,
    /// When an older copy of the database took its place: line and time.
    pub(super) restored: Option<(Number, u64)>,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(history: &'a [Line]) -> Self {
        let mut facts = Self {
            history,
            ..Self::default()
        };
        for (index, line) in history.iter().enumerate() {
            let number = index + 1;
            facts.add_publishing(number, line);
            facts.add_device(number, line);
            facts.add_database(number, &line.event);
            if matches!(line.event, Event::Restored {}) {
                facts.restored = Some((number, line.at));
            }
            if let Event::Held { user } = &line.event {
                facts.held.insert(user);
            }
        }
        facts.forget_what_was_undone();
        facts
    }

    /// Before an older copy took the place of the database: what is not in it was acknowledged by another history.
    fn forget_what_was_undone(&mut self) {
        let Some((restored, _)) = self.restored else {
            return;
        };
        let rows = &self.rows;
        let is_undone =
            |answer: &Answer<'_>| answer.line < restored && !rows.contains_key(answer.id);
        let keys: BTreeSet<_> = rows.values().filter_map(|row| row.key).collect();
        self.publishes.retain(|key, publish| {
            publish.answers.retain(|answer| !is_undone(answer));
            let goes_on = publish.invoked > restored || !publish.answers.is_empty();
            goes_on || keys.contains(key)
        });
        for device in self.devices.values_mut() {
            device
                .sights
                .retain(|sight| sight.line > restored || rows.contains_key(sight.id));
        }
    }

    pub(super) fn devices_of(&self, user: &str) -> impl Iterator<Item = (&'a str, &Device<'a>)> {
        let names = self.devices_of.get(user).into_iter().flatten();
        names.filter_map(|name| Some((*name, self.devices.get(name)?)))
    }

    fn add_publishing(&mut self, number: Number, line: &'a Line) {
        let (Event::Invoke { key, user }
        | Event::Ok { key, user, .. }
        | Event::Fail { key, user, .. }
        | Event::Info { key, user, .. }) = &line.event
        else {
            return;
        };
        let publish = self.publishes.entry(key).or_insert_with(|| Publish {
            user,
            invoked: number,
            answers: Vec::new(),
            refused: Vec::new(),
            unknown: Vec::new(),
        });
        if let Event::Ok { id, seq, .. } = &line.event {
            publish.answers.push(Answer {
                line: number,
                at: line.at,
                id,
                seq: *seq,
            });
        } else if matches!(line.event, Event::Fail { .. }) {
            publish.refused.push(number);
        } else if matches!(line.event, Event::Info { .. }) {
            publish.unknown.push(number);
        }
    }

    fn device(&mut self, name: &'a str, user: &'a str) -> &mut Device<'a> {
        self.devices_of.entry(user).or_default().insert(name);
        let device = self.devices.entry(name).or_default();
        device.user = user;
        device
    }

    fn add_device(&mut self, number: Number, line: &'a Line) {
        if let Event::Slow { device } = &line.event {
            self.devices.entry(device).or_default().slow = true;
        }
        let (Event::Connect { device, user, .. }
        | Event::Disconnect { device, user, .. }
        | Event::Synced { device, user, .. }
        | Event::Refresh { device, user, .. }
        | Event::Recv { device, user, .. }
        | Event::Apply { device, user, .. }
        | Event::List { device, user, .. }
        | Event::DeviceEnd { device, user, .. }) = &line.event
        else {
            return;
        };
        let device = self.device(device, user);
        device.see(number, &line.event);
        if let Event::Apply { id, .. } = &line.event {
            device.shown.entry(id).or_insert(line.at);
        }
        if let Event::List { items, .. } = &line.event {
            for item in items {
                device.shown.entry(&item.id).or_insert(line.at);
            }
        }
        if matches!(line.event, Event::DeviceEnd { .. }) {
            device.end = End::of(number, &line.event);
        }
        if let Some(step) = Step::of(&line.event) {
            device.steps.push((number, line.at, step));
        }
    }

    fn add_database(&mut self, number: Number, event: &'a Event) {
        if let Event::DatabaseUser { user, head, unread } = event {
            let account = Account {
                line: number,
                head: *head,
                unread: *unread,
            };
            self.accounts.insert(user, account);
        }
        if let Event::DatabaseRow {
            user,
            id,
            created_seq,
            seq,
            key,
            read,
            deleted,
        } = event
        {
            let row = Row {
                line: number,
                user,
                created_seq: *created_seq,
                seq: *seq,
                key: key.as_deref(),
                read: *read,
                deleted: *deleted,
            };
            self.rows.insert(id, row);
        }
    }
}

impl<'a> Step<'a> {
    fn of(event: &'a Event) -> Option<Self> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other events are no steps of a device"
        )]
        Some(match event {
            Event::Connect { .. } => Self::Connected,
            Event::Disconnect { .. } => Self::Disconnected,
            Event::Synced { .. } => Self::Synced,
            Event::Refresh { reason, .. } if reason == "reset" => Self::Reset,
            Event::Recv { id, seq, .. } => Self::Heard(id, *seq),
            Event::Apply { id, seq, .. } => Self::Applied(id, *seq),
            Event::List { seq, .. } => Self::Listed(*seq),
            _ => return None,
        })
    }
}

impl<'a> Device<'a> {
    fn see(&mut self, line: Number, event: &'a Event) {
        if let Event::Recv { id, owner, key, .. } = event {
            self.sights.push(Sight {
                line,
                id,
                owner: owner.as_deref(),
                key: key.as_deref(),
            });
        }
        if let Event::List { items, .. } = event {
            self.sights.extend(items.iter().map(|item| Sight {
                line,
                id: &item.id,
                owner: Some(&item.owner),
                key: item.key.as_deref(),
            }));
        }
    }
}

impl<'a> End<'a> {
    fn of(line: Number, event: &'a Event) -> Option<Self> {
        let Event::DeviceEnd {
            last_seq,
            count,
            items,
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            line,
            last_seq: *last_seq,
            count: *count,
            items,
        })
    }
}
