//! A device: connects, hears, shows; comes back when the connection is lost, and asks for the list when it is told to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::cluster::Cluster;
use super::inbox::{Effect, Inbox, List};
use super::socket::{Lost, Socket, Transport};
use super::told::told;
use crate::history::{Event, Recorder};
use crate::random::Random;
use crate::tasks::Task;

/// Between two attempts to connect, in milliseconds: the first pause, and the longest.
const PAUSE: (u64, u64) = (500, 3_000);
/// Between two attempts to get the list.
const LIST_PAUSE: Duration = Duration::from_secs(1);

/// What a device is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Live,
    /// Stops reading its socket.
    Stall,
    /// Polls another node than the one that it is connected to, as behind a balancer that has forgotten.
    Stray,
    /// Drops its connection and stays away.
    Away,
    /// Says what it shows, and ends.
    End,
}

/// What a device will be told to be, or is by its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// It will stop reading: its receive buffer is small, so that the node notices.
    Stalls,
    /// It reads, through the nodes' thin proxies.
    Crawls,
}

/// How far a device is, for those who wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The node that it is connected to.
    pub node: Option<usize>,
    pub synced: bool,
    pub last_seq: u64,
    pub fetching: bool,
}

pub(super) struct Device {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) cluster: Arc<Cluster>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) commands: watch::Receiver<Command>,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) random: Random,
    pub(super) inbox: Inbox,
    /// The list on its way.
    pub(super) fetching: Option<Task<List>>,
    pub(super) transport: Transport,
    pub(super) slow: Option<Slow>,
}

/// Why a session is over.
enum Over {
    Lost(Lost),
    Told,
}

impl Device {
    pub(super) async fn live(mut self) {
        let mut failures = 0_u32;
        let mut last = None;
        loop {
            let told = *self.commands.borrow_and_update();
            match told {
                Command::End => break,
                Command::Away => {
                    self.pause(Duration::from_secs(3_600)).await;
                    continue;
                }
                Command::Live | Command::Stall | Command::Stray => {}
            }
            // Another node than the one that was lost, as a balancer would.
            let node = self.cluster.pick(&mut self.random, last);
            last = Some(node);
            match self.connect(node).await {
                Ok(socket) => {
                    failures = 0;
                    self.session(socket, node).await;
                }
                Err(Lost::Refused(why)) => self.expect(&format!("connect_error {why}")),
                Err(_unreachable) => failures += 1,
            }
            if matches!(*self.commands.borrow(), Command::Live | Command::Stray) {
                self.pause(self.random.clone().backoff(failures)).await;
                self.random.draw();
            }
        }
        self.say_the_end();
    }

    async fn connect(&self, node: usize) -> Result<Socket, Lost> {
        let mut auth = json!({ "token": self.cluster.token(&self.user) });
        if let (Some(last_seq), Some(epoch)) = (self.inbox.last_seq, &self.inbox.epoch) {
            auth["lastSeq"] = json!(last_seq);
            auth["epoch"] = json!(epoch);
        }
        let nodes = match self.slow {
            Some(Slow::Crawls) => &self.cluster.thin,
            Some(Slow::Stalls) | None => &self.cluster.nodes,
        };
        let address = nodes.get(node);
        let address = address.ok_or(Lost::Unreachable("no such node".to_owned()))?;
        Socket::connect(*address, &auth, self.transport).await
    }

    async fn session(&mut self, mut socket: Socket, node: usize) {
        self.add(|device, user| Event::Connect {
            device,
            user,
            node,
            last_seq: self.inbox.last_seq,
        });
        self.report(|progress| progress.node = Some(node));
        let over = loop {
            let reads = *self.commands.borrow() != Command::Stall;
            tokio::select! {
                heard = socket.next(), if reads => match heard {
                    Ok((name, data)) => self.hear(&name, &data),
                    Err(lost) => break Over::Lost(lost),
                },
                list = fetched(&mut self.fetching) => self.list(list),
                changed = self.commands.changed() => {
                    let command = *self.commands.borrow();
                    if changed.is_err() || matches!(command, Command::End | Command::Away) {
                        break Over::Told;
                    }
                    if command == Command::Stray
                        && let Some(other) = self.cluster.nodes.get((node + 1) % self.cluster.nodes.len())
                    {
                        socket.stray(*other);
                    }
                }
            }
        };
        self.report(|progress| (progress.node, progress.synced) = (None, false));
        let why = match over {
            Over::Lost(lost) => lost.to_string(),
            Over::Told if *self.commands.borrow() == Command::End => return,
            Over::Told => "told to".to_owned(),
        };
        if why == Lost::Disconnected.to_string() {
            self.expect("an official client stays away after io server disconnect");
        }
        self.add(|device, user| Event::Disconnect { device, user, why });
    }

    /// Waits, and takes the list meanwhile. A command ends it.
    async fn pause(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                list = fetched(&mut self.fetching) => self.list(list),
                _changed = self.commands.changed() => return,
            }
        }
    }

    fn hear(&mut self, name: &str, data: &Value) {
        if let Some(heard) = told(&self.name, &self.user, name, data) {
            self.recorder.add(heard);
        }
        let effect = self.inbox.hear(name, data);
        if name == "notification:synced" {
            self.report(|progress| progress.synced = true);
        }
        self.take(effect);
    }

    fn list(&mut self, list: List) {
        self.fetching = None;
        self.add(|device, user| Event::List {
            device,
            user,
            seq: list.seq,
            unread: list.unread,
            items: list.items.clone(),
        });
        let effect = self.inbox.list(list);
        self.take(effect);
    }

    fn take(&mut self, effect: Effect) {
        for (id, seq) in effect.applied {
            self.add(|device, user| Event::Apply {
                device,
                user,
                id,
                seq,
            });
        }
        if effect.fetch {
            let (cluster, user) = (Arc::clone(&self.cluster), self.user.clone());
            let random = self.random.fork(7);
            self.random.draw();
            // One that is on its way is asked anew.
            self.fetching = Some(Task::start(fetch(cluster, user, random)));
        }
        let (last_seq, fetching) = (self.inbox.last_seq, self.inbox.is_fetching());
        self.report(|progress| {
            progress.last_seq = last_seq.unwrap_or_default();
            progress.fetching = fetching;
        });
    }

    fn say_the_end(&self) {
        self.add(|device, user| Event::DeviceEnd {
            device,
            user,
            last_seq: self.inbox.last_seq,
            count: self.inbox.count.map(|(count, _)| count),
            items: self.inbox.items.values().cloned().collect(),
        });
    }

    fn add(&self, event: impl FnOnce(String, String) -> Event) {
        self.recorder
            .add(event(self.name.clone(), self.user.clone()));
    }

    /// Something that must not happen has.
    fn expect(&self, what: &str) {
        let what = format!("{}: {what}", self.name);
        self.recorder.add(Event::Expect { what, fine: false });
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock());
    }
}

impl Random {
    /// A pause that doubles with each failure, half of it by chance.
    fn backoff(mut self, failures: u32) -> Duration {
        let longest = (PAUSE.0 << failures.min(4)).min(PAUSE.1).max(PAUSE.0 + 1);
        Duration::from_millis(self.between(PAUSE.0.max(longest / 2), longest + PAUSE.0))
    }
}

async fn fetched(fetching: &mut Option<Task<List>>) -> List {
    loop {
        match fetching {
            Some(task) => match task.await {
                Some(list) => return list,
                None => *fetching = None,
            },
            None => std::future::pending().await,
        }
    }
}

async fn fetch(cluster: Arc<Cluster>, user: String, mut random: Random) -> List {
    loop {
        let node = cluster.pick(&mut random, None);
        if let Some(list) = cluster.list(node, &user).await {
            return list;
        }
        tokio::time::sleep(LIST_PAUSE).await;
    }
}
