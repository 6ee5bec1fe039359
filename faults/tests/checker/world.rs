//! A small world that keeps the promise, and writes the history of doing so: users, devices that come and go, publishes.

use std::collections::BTreeMap;

use faults::history::{Event, Item, Line};
use faults::random::Random;

const USERS: usize = 3;
const DEVICES: usize = 2;
const PUBLISHES: usize = 90;

struct Device {
    name: String,
    user: String,
    online: bool,
    items: Vec<Item>,
    last_seq: u64,
}

struct World {
    restores: bool,
    random: Random,
    at: u64,
    lines: Vec<Line>,
    devices: Vec<Device>,
    /// What each user has, in seq order.
    stored: BTreeMap<String, Vec<Item>>,
}

/// The history of a run in which everything was as promised, faults included.
pub(crate) fn good_history(seed: u64) -> Vec<Line> {
    history(seed, false)
}

/// The same, with an older copy of the database in its place from some time on.
pub(crate) fn restored_history(seed: u64) -> Vec<Line> {
    history(seed, true)
}

fn history(seed: u64, restores: bool) -> Vec<Line> {
    let mut world = World {
        restores,
        random: Random::new(seed),
        at: 0,
        lines: Vec::new(),
        devices: Vec::new(),
        stored: BTreeMap::new(),
    };
    for user in 0..USERS {
        world.stored.insert(format!("u{user}"), Vec::new());
        for device in 0..DEVICES {
            world.devices.push(Device {
                name: format!("u{user}.{device}"),
                user: format!("u{user}"),
                online: false,
                items: Vec::new(),
                last_seq: 0,
            });
        }
    }
    for device in 0..world.devices.len() {
        world.connect(device);
    }
    world.live();
    world.end();
    world.lines
}

impl World {
    fn add(&mut self, event: Event) {
        self.at += self.random.between(100, 5_000);
        self.lines.push(Line { at: self.at, event });
    }

    fn live(&mut self) {
        for publish in 0..PUBLISHES {
            if publish == PUBLISHES / 4 {
                // What the fault reaches back to is its own time only.
                self.at += 11_000_000;
                let fault = "F".to_owned();
                self.add(Event::FaultStart { fault });
                self.disconnect(0);
            }
            if publish == PUBLISHES / 2 {
                let fault = "F".to_owned();
                self.add(Event::FaultStop { fault });
            }
            if publish == PUBLISHES * 5 / 8 && self.restores {
                self.restore();
            }
            if publish == PUBLISHES * 3 / 4 {
                self.connect_all();
                // Nothing of the fault is felt any more.
                self.at += 3_500_000;
            }
            self.publish(publish);
            let device = self.random.below(self.devices.len());
            if self.devices[device].online && self.random.below(10) == 0 {
                self.disconnect(device);
            } else if !self.devices[device].online {
                self.connect(device);
            }
        }
        self.connect_all();
    }

    fn connect_all(&mut self) {
        for device in 0..self.devices.len() {
            if !self.devices[device].online {
                self.connect(device);
            }
        }
    }

    /// The last of each user is gone, and all are told.
    fn restore(&mut self) {
        self.connect_all();
        self.add(Event::Restored {});
        for items in self.stored.values_mut() {
            items.pop();
        }
        for device in 0..self.devices.len() {
            let (name, user) = (
                self.devices[device].name.clone(),
                self.devices[device].user.clone(),
            );
            let items = self.stored[&user].clone();
            let head = items.len() as u64;
            self.add(Event::Refresh {
                device: name.clone(),
                user: user.clone(),
                reason: "reset".to_owned(),
                seq: head,
            });
            self.add(Event::List {
                device: name,
                user,
                seq: head,
                unread: head,
                items: items.clone(),
            });
            self.devices[device].items = items;
            self.devices[device].last_seq = head;
        }
    }

    fn publish(&mut self, number: usize) {
        let user = format!("u{}", self.random.below(USERS));
        let seq = self.stored[&user].len() as u64 + 1;
        // Each kind is there: acknowledged, uncertain and carried out, uncertain and not, refused.
        let kind = [
            "ok", "ok", "ok", "ok", "ok", "ok", "ok", "info", "none", "fail",
        ][number % 10];
        let (key, id) = (format!("{kind}-{number}"), format!("{kind}-id-{number}"));
        self.add(Event::Invoke {
            key: key.clone(),
            user: user.clone(),
        });
        if number.is_multiple_of(7) || kind == "info" || kind == "none" {
            let why = "connection lost".to_owned();
            self.add(Event::Info {
                key: key.clone(),
                user: user.clone(),
                why,
                millis: 2,
            });
        }
        if kind == "fail" {
            let why = "422".to_owned();
            self.add(Event::Fail {
                key: key.clone(),
                user: user.clone(),
                why,
                millis: 2,
            });
        }
        if kind == "ok" {
            let (key, user, id) = (key.clone(), user.clone(), id.clone());
            self.add(Event::Ok {
                key,
                user,
                id,
                seq,
                deferred: false,
                millis: 3,
            });
        }
        if kind == "ok" || kind == "info" {
            let item = Item {
                id,
                seq,
                owner: user.clone(),
                key: Some(key),
                read: false,
            };
            self.stored.get_mut(&user).unwrap().push(item.clone());
            for device in 0..self.devices.len() {
                if self.devices[device].user == user && self.devices[device].online {
                    self.deliver(device, &item);
                }
            }
        }
    }

    fn deliver(&mut self, device: usize, item: &Item) {
        let (name, user) = (self.devices[device].name.clone(), item.owner.clone());
        let heard = Event::Recv {
            device: name.clone(),
            user: user.clone(),
            name: "notification:new".to_owned(),
            id: item.id.clone(),
            seq: item.seq,
            owner: Some(user.clone()),
            key: item.key.clone(),
        };
        self.add(heard.clone());
        if item.seq <= self.devices[device].last_seq {
            return;
        }
        let (id, seq) = (item.id.clone(), item.seq);
        self.add(Event::Apply {
            device: name,
            user,
            id,
            seq,
        });
        self.devices[device].items.push(item.clone());
        self.devices[device].last_seq = item.seq;
        if self.random.below(12) == 0 {
            self.add(heard); // on the raw wire at least once
        }
    }

    fn connect(&mut self, device: usize) {
        let (name, user) = (
            self.devices[device].name.clone(),
            self.devices[device].user.clone(),
        );
        let last_seq = self.devices[device].last_seq;
        self.add(Event::Connect {
            device: name.clone(),
            user: user.clone(),
            node: 0,
            last_seq: Some(last_seq),
        });
        let missed = self.stored[&user].clone();
        let head = missed.len() as u64;
        if self.random.below(4) == 0 {
            let (device_name, user_name) = (name.clone(), user.clone());
            self.add(Event::Refresh {
                device: device_name,
                user: user_name,
                reason: "gap".to_owned(),
                seq: head,
            });
            self.add(Event::List {
                device: name.clone(),
                user: user.clone(),
                seq: head,
                unread: head,
                items: missed.clone(),
            });
            self.devices[device].items = missed;
            self.devices[device].last_seq = head;
        } else {
            for item in missed.iter().filter(|item| item.seq > last_seq) {
                self.deliver(device, item);
            }
        }
        self.add(Event::Synced {
            device: name,
            user,
            seq: head,
            epoch: "e".to_owned(),
            replayed: head - last_seq,
        });
        self.devices[device].online = true;
    }

    fn disconnect(&mut self, device: usize) {
        if !std::mem::take(&mut self.devices[device].online) {
            return;
        }
        let (device, user) = (
            self.devices[device].name.clone(),
            self.devices[device].user.clone(),
        );
        self.add(Event::Disconnect {
            device,
            user,
            why: "lost".to_owned(),
        });
    }

    fn end(&mut self) {
        for device in std::mem::take(&mut self.devices) {
            let count = Some(device.items.len() as u64);
            let Device {
                name: device,
                user,
                items,
                last_seq,
                ..
            } = device;
            self.add(Event::DeviceEnd {
                device,
                user,
                last_seq: Some(last_seq),
                count,
                items,
            });
        }
        for (user, items) in std::mem::take(&mut self.stored) {
            let head = items.len() as u64;
            self.add(Event::DatabaseUser {
                user: user.clone(),
                head,
                unread: head,
            });
            for item in items {
                let Item { id, seq, key, .. } = item;
                let user = user.clone();
                self.add(Event::DatabaseRow {
                    user,
                    id,
                    created_seq: seq,
                    seq,
                    key,
                    read: false,
                    deleted: false,
                });
            }
        }
    }
}
