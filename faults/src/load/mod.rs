//! The load: publishers that repeat until they know, and devices that come back.

mod bulk;
mod cluster;
mod crowd;
mod device;
mod inbox;
mod polling;
mod publisher;
mod socket;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

pub use bulk::Bulk;
pub use cluster::Cluster;
pub use crowd::Crowd;
pub use device::{Command, Progress, Slow};
pub use publisher::{Publish, user_name};

use crate::history::Recorder;
use crate::random::Random;
use crate::tasks::Task;
use device::Device;
use inbox::Inbox;
use publisher::Publishers;
use socket::Transport;

/// Why a publish certainly was not carried out: nobody took the connection.
pub const REFUSED: &str = "connection refused";

/// One of so many devices polls.
const POLLING: usize = 8;
/// The receive buffer of a slow device.
const SMALL_BUFFER: u32 = 4_096;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub users: usize,
    pub devices_per_user: usize,
    /// Notifications a second.
    pub rate: u64,
}

/// A device as seen from outside.
pub struct Handle {
    pub name: String,
    pub user: String,
    pub commands: watch::Sender<Command>,
    pub progress: Arc<Mutex<Progress>>,
    task: Task,
}

pub struct Load {
    pub cluster: Arc<Cluster>,
    pub recorder: Arc<Recorder>,
    pub devices: Vec<Handle>,
    pub size: Size,
    random: Random,
    stop: watch::Sender<bool>,
    publishers: Option<Task>,
}

impl Load {
    #[must_use]
    pub fn new(cluster: Cluster, recorder: Arc<Recorder>, size: Size, random: Random) -> Self {
        Self {
            cluster: Arc::new(cluster),
            recorder,
            devices: Vec::new(),
            size,
            random,
            stop: watch::Sender::new(false),
            publishers: None,
        }
    }

    /// Connects all devices. `slow`: how the n-th will be slow, if it will.
    pub fn start_devices(&mut self, slow: impl Fn(usize) -> Option<Slow>) {
        for number in 0..self.size.users * self.size.devices_per_user {
            let (user, device) = (
                number / self.size.devices_per_user,
                number % self.size.devices_per_user,
            );
            let user = user_name(user);
            let name = format!("{user}.{device}");
            let commands = watch::Sender::new(Command::Live);
            let progress = Arc::new(Mutex::new(Progress::default()));
            let device = Device {
                name: name.clone(),
                user: user.clone(),
                cluster: Arc::clone(&self.cluster),
                recorder: Arc::clone(&self.recorder),
                commands: commands.subscribe(),
                progress: Arc::clone(&progress),
                random: self.random.fork(1_000 + number as u64),
                inbox: Inbox::default(),
                fetching: None,
                transport: match (slow(number), number % POLLING) {
                    (Some(_), _) => Transport::SmallWebSocket(SMALL_BUFFER),
                    (None, 3) => Transport::Polling,
                    (None, _) => Transport::WebSocket,
                },
                slow: slow(number),
            };
            self.devices.push(Handle {
                name,
                user,
                commands,
                progress,
                task: Task::start(device.live()),
            });
        }
    }

    pub fn start_publishing(&mut self, name: String) {
        let publishers = Publishers {
            cluster: Arc::clone(&self.cluster),
            recorder: Arc::clone(&self.recorder),
            users: self.size.users,
            rate: self.size.rate,
            random: self.random.fork(1),
            stop: self.stop.subscribe(),
        };
        self.publishers = Some(Task::start(publishers.run(name)));
    }

    /// Begins no more publishes.
    pub fn hush(&self) {
        self.stop.send_replace(true);
    }

    /// Begins no more publishes, and waits until the outcome of the last is known or given up.
    pub async fn stop_publishing(&mut self) {
        self.hush();
        if let Some(publishers) = self.publishers.take() {
            publishers.await;
        }
    }

    pub fn tell(&self, command: Command, which: impl Fn(usize) -> bool) {
        for (number, device) in self.devices.iter().enumerate() {
            if which(number) {
                device.commands.send_replace(command);
            }
        }
    }

    /// Waits until each device is connected, has its list, and is at its user's head. Answers those that are not.
    pub async fn settled(&self, heads: &BTreeMap<String, u64>, within: Duration) -> Vec<String> {
        let until = Instant::now() + within;
        loop {
            let behind: Vec<_> = self
                .devices
                .iter()
                .filter(|device| {
                    let progress = *device.progress.lock();
                    let head = heads.get(&device.user).copied().unwrap_or_default();
                    !progress.synced || progress.fetching || progress.last_seq < head
                })
                .map(|device| device.name.clone())
                .collect();
            if behind.is_empty() || Instant::now() > until {
                return behind;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all devices: each says what it shows.
    pub async fn end(&mut self) {
        self.tell(Command::End, |_| true);
        for device in self.devices.drain(..) {
            let ending = tokio::time::timeout(Duration::from_secs(10), device.task);
            // One that does not end is found by the checker: it has no end.
            let _late = ending.await.is_err();
        }
    }
}
