//! A crowd: many plain clients that only come, are caught up, and come again, to see what a storm of them costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::socket::{Socket, Transport};
use crate::random::Random;
use crate::tasks::Task;

/// Between two attempts, in milliseconds.
const PAUSE: (u64, u64) = (500, 1_500);

pub struct Crowd {
    /// How many times all have come, and in what time the last is to begin.
    round: watch::Sender<(u32, Duration)>,
    members: Vec<(Task, watch::Receiver<u32>)>,
}

/// What a round came to.
pub struct Round {
    /// From its beginning until the last was caught up.
    pub took: Duration,
    /// Who was not, when the patience was over.
    pub late: usize,
}

impl Crowd {
    /// So many clients of as many users, which connect to these addresses in turn.
    pub fn new(cluster: &Arc<Cluster>, nodes: &[SocketAddr], size: usize, random: &Random) -> Self {
        let round = watch::Sender::new((0, Duration::ZERO));
        let members = nodes.iter().cycle().zip(0..size);
        let members = members
            .map(|(node, number)| {
                let (done, been) = watch::channel(0);
                let member = Member {
                    node: *node,
                    token: cluster.token(&format!("crowd{number}")),
                    rounds: round.subscribe(),
                    done,
                    random: random.fork(number as u64),
                };
                (Task::start(member.live()), been)
            })
            .collect();
        Self { round, members }
    }

    /// All drop what they have, and come within this time.
    pub async fn come(&self, within: Duration, patience: Duration) -> Round {
        let began = Instant::now();
        self.round
            .send_modify(|(number, time)| (*number, *time) = (*number + 1, within));
        let round = self.round.borrow().0;
        let all = async {
            for (_, been) in &self.members {
                // An error: it has ended, and will be found late.
                let _ended = been.clone().wait_for(|done| *done >= round).await.is_err();
            }
        };
        let _late = tokio::time::timeout(patience, all).await.is_err();
        let is_late = |been: &watch::Receiver<u32>| *been.borrow() < round;
        let late = self.members.iter().filter(|(_, been)| is_late(been));
        Round {
            took: began.elapsed(),
            late: late.count(),
        }
    }
}

struct Member {
    node: SocketAddr,
    token: String,
    rounds: watch::Receiver<(u32, Duration)>,
    done: watch::Sender<u32>,
    random: Random,
}

impl Member {
    async fn live(mut self) {
        while self.rounds.changed().await.is_ok() {
            let (round, within) = *self.rounds.borrow_and_update();
            let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            self.pause(0, within.max(1)).await;
            let mut socket = loop {
                if let Some(socket) = self.caught_up().await {
                    break socket;
                }
                self.pause(PAUSE.0, PAUSE.1).await;
            };
            self.done.send_replace(round);
            let mut rounds = self.rounds.clone();
            tokio::select! {
                _next = rounds.wait_for(|(next, _)| *next > round) => {}
                // It stays away then until the next round.
                () = async { while socket.next().await.is_ok() {} } => {}
            }
        }
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let pause = self.random.between(least, most);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Resumes from the beginning, and hears the end of what it missed: nothing.
    async fn caught_up(&self) -> Option<Socket> {
        let auth = json!({ "token": self.token, "lastSeq": 0 });
        let mut socket = Socket::connect(self.node, &auth, Transport::WebSocket)
            .await
            .ok()?;
        let synced = async {
            loop {
                let (name, _) = socket.next().await.ok()?;
                if name == "notification:synced" {
                    return Some(());
                }
            }
        };
        let synced = tokio::time::timeout(Duration::from_secs(20), synced).await;
        synced.ok()??;
        Some(socket)
    }
}
