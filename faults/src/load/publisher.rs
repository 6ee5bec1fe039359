//! Publishers: so many notifications a second over all nodes, each under a key of its own, repeated until the outcome is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::REFUSED;
use super::cluster::{Cluster, NoAnswer};
use crate::history::{Event, Recorder};
use crate::random::Random;
use crate::tasks::Task;

/// Publishes under way; more are not begun.
const UNDER_WAY: usize = 1_000;
/// A publish is not repeated longer than this.
const PATIENCE: Duration = Duration::from_secs(45);
/// Milliseconds between two requests: after a broken connection, and after an answer with Retry-After, which says a second.
const SOON: (u64, u64) = (100, 600);
const LATER: (u64, u64) = (1_000, 2_000);

pub(super) struct Publishers {
    pub(super) cluster: Arc<Cluster>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) users: usize,
    pub(super) rate: u64,
    pub(super) random: Random,
    /// Becomes true when no more are to be begun.
    pub(super) stop: watch::Receiver<bool>,
}

impl Publishers {
    /// Publishes until it is told to stop, then until the last outcome is known or given up.
    pub(super) async fn run(mut self, name: String) {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let mut under_way: Vec<Task> = Vec::new();
        let period = Duration::from_micros(1_000_000 / self.rate.max(1));
        let mut beat = tokio::time::interval(period);
        for number in 0_u64.. {
            tokio::select! {
                _ = beat.tick() => {}
                _stopped = self.stop.wait_for(|stop| *stop) => break,
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            under_way.retain(|task| !task.is_finished());
            let user = self.random.below(self.users);
            let publish = Publish {
                cluster: Arc::clone(&self.cluster),
                recorder: Arc::clone(&self.recorder),
                key: format!("{name}-{number}"),
                user: user_name(user),
                random: self.random.fork(number),
                padding: 0,
            };
            under_way.push(Task::start(async move {
                publish.run().await;
                drop(place);
            }));
        }
        for task in under_way {
            task.await;
        }
    }
}

#[must_use]
pub fn user_name(number: usize) -> String {
    format!("u{number}")
}

/// One notification, from the first request to the last.
pub struct Publish {
    pub cluster: Arc<Cluster>,
    pub recorder: Arc<Recorder>,
    pub key: String,
    pub user: String,
    pub random: Random,
    /// Characters of the message.
    pub padding: usize,
}

impl Publish {
    pub async fn run(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let pause = match self.ask().await {
                Next::Settled => return,
                Next::Soon => SOON,
                Next::Later => LATER,
            };
            if Instant::now() > until {
                return;
            }
            let pause = self.random.between(pause.0, pause.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn body(&self) -> Value {
        // Four bytes each.
        let message = "🔔".repeat(self.padding.min(4_000));
        json!({ "userId": self.user, "title": "A fault is coming", "message": message, "data": { "key": self.key } })
    }

    /// Sends the request to some node, and answers when to ask again.
    async fn ask(&mut self) -> Next {
        let node = self.cluster.pick(&mut self.random, None);
        let (key, user) = (self.key.clone(), self.user.clone());
        self.recorder.add(Event::Invoke {
            key: key.clone(),
            user: user.clone(),
        });
        let began = Instant::now();
        let answer = self.cluster.publish(node, &key, &self.body()).await;
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (event, next) = match answer {
            Ok((201, _, body)) => (self.acknowledged(&body, millis), Next::Settled),
            Ok((status, says_when, body)) => {
                let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
                let outcome = Outcome::of(status);
                if !(says_when && matches!(status, 429 | 503)) {
                    let what = format!("a publish was answered {status} {code}");
                    self.recorder.add(Event::Expect { what, fine: false });
                }
                let event = self.unacknowledged(outcome, format!("{status} {code}"), millis);
                let settled = outcome == Outcome::Refused;
                (event, if settled { Next::Settled } else { Next::Later })
            }
            Err(NoAnswer::Refused) => {
                let event = self.unacknowledged(Outcome::NotYet, REFUSED.to_owned(), millis);
                (event, Next::Soon)
            }
            Err(NoAnswer::Lost(why)) => (
                self.unacknowledged(Outcome::Unknown, why, millis),
                Next::Soon,
            ),
        };
        self.recorder.add(event);
        next
    }

    fn unacknowledged(&self, outcome: Outcome, why: String, millis: u64) -> Event {
        let (key, user) = (self.key.clone(), self.user.clone());
        match outcome {
            Outcome::Refused | Outcome::NotYet => Event::Fail {
                key,
                user,
                why,
                millis,
            },
            Outcome::Unknown => Event::Info {
                key,
                user,
                why,
                millis,
            },
        }
    }

    fn acknowledged(&self, body: &Value, millis: u64) -> Event {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        Event::Ok {
            key: self.key.clone(),
            user: self.user.clone(),
            id: text("id").to_owned(),
            seq: body.get("seq").and_then(Value::as_u64).unwrap_or_default(),
            deferred: text("delivery") == "deferred",
            millis,
        }
    }
}

/// When to ask again.
enum Next {
    Settled,
    /// Another node may do it.
    Soon,
    /// The answer asked for patience.
    Later,
}

/// What an answer without an acknowledgement means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    /// Refused, and may be tried again.
    NotYet,
    Unknown,
}

impl Outcome {
    fn of(status: u16) -> Self {
        match status {
            429 => Self::NotYet,
            400..=499 => Self::Refused,
            _ => Self::Unknown,
        }
    }
}
