//! Publishes that come at the same time go to the database together: one statement, one round trip, one commit.
//!
//! At rest a publish is a statement of its own and waits for nobody. While as many statements are under way as there may
//! be, those who come meanwhile wait for one to end, and the first of them takes all into the next. So statements grow
//! with the load, and the latency at rest does not.
//!
//! A statement that fails is nobody's answer: what is wrong with one publish is not the others' loss. Each is tried again
//! by itself, unless its outcome is unknown and no key makes that safe.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot;

use super::Store;
use super::connections::Connections;
use super::create::insert;
use crate::store::{Batch, Created, IdempotencyKey, StoreError};
use crate::user::UserId;

/// How long a statement waits for a row that somebody else holds, in milliseconds.
const LOCK_TIMEOUT: &str = "100";

/// Statements under way at a time. More are not faster: they wait for each other at the commit.
const AT_ONCE: usize = 2;

/// Publishes in one statement, at most.
const LARGEST: usize = 128;

/// How long a publish waits to be taken into a statement. Then there is no database, or no end to what came before.
const PATIENCE: Duration = Duration::from_secs(1);

/// A publish whose statement failed this long after it came is not tried again: its caller has waited enough.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// For how long a user to whom a publish failed by itself is kept out of the others' statements.
const APART: Duration = Duration::from_secs(5);

/// Users who are kept apart at a time; of more, the next ones go with the others.
const MOST_APART: usize = 1_000;

#[derive(Debug)]
pub(super) struct Gathering {
    /// As many as there may be statements, with little patience for locks: who holds one user's row holds up everybody
    /// in the statement.
    connections: Connections,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug)]
struct Desk {
    waiting: VecDeque<Waiting>,
    /// Statements that may be begun.
    turns: usize,
    apart: HashMap<UserId, Instant>,
}

#[derive(Debug)]
struct Waiting {
    request: Arc<Request>,
    tell: oneshot::Sender<Told>,
}

#[derive(Debug)]
struct Request {
    batch: Batch,
    key: Option<IdempotencyKey>,
}

/// What becomes of a publish that waits.
#[derive(Debug)]
enum Told {
    Written(Written),
    /// It is the first of those who wait: it takes the others along.
    Lead(Turn),
}

/// What became of a publish in a statement.
#[derive(Debug)]
enum Written {
    Created(Created),
    /// Its key is taken.
    Taken,
    /// Nothing was written.
    Refused,
    /// Nobody knows whether it was.
    Unknown,
}

/// The right to one statement. When it ends, whoever waits gets it; empty: it has been passed on.
#[derive(Debug)]
struct Turn(Option<Arc<Mutex<Desk>>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(desk) = self.0.take() {
            let mut open = desk.lock();
            open.turns += 1;
            open.pass_on(&desk);
        }
    }
}

impl Desk {
    fn turn(&mut self, desk: &Arc<Mutex<Self>>) -> Option<Turn> {
        self.turns = self.turns.checked_sub(1)?;
        Some(Turn(Some(Arc::clone(desk))))
    }

    /// Gives a turn to the first who still waits.
    fn pass_on(&mut self, desk: &Arc<Mutex<Self>>) {
        while let Some(first) = self.waiting.pop_front() {
            let Some(turn) = self.turn(desk) else {
                return self.waiting.push_front(first);
            };
            match first.tell.send(Told::Lead(turn)) {
                Ok(()) => return,
                Err(Told::Lead(mut turn)) => {
                    // Its drop would want the lock that this holds.
                    turn.0 = None;
                    self.turns += 1;
                }
                Err(Told::Written(_)) => {}
            }
        }
    }

    /// Takes back a request that nobody has taken; whether it was there.
    fn give_up(&mut self, request: &Arc<Request>) -> bool {
        let before = self.waiting.len();
        self.waiting
            .retain(|waiting| !Arc::ptr_eq(&waiting.request, request));
        self.waiting.len() < before
    }

    /// Those who go along with `first`, in the order in which they came. Of one key, one goes: the others see then what
    /// it stands for.
    fn others(&mut self, first: &Request) -> Vec<Waiting> {
        let mut keys: HashSet<(String, String)> = first.key.iter().map(name).collect();
        let mut others = Vec::new();
        let mut left = VecDeque::new();
        while let Some(waiting) = self.waiting.pop_front() {
            if others.len() + 1 == LARGEST {
                left.push_back(waiting);
                break;
            }
            let is_first = waiting
                .request
                .key
                .as_ref()
                .is_none_or(|key| keys.insert(name(key)));
            match is_first {
                true => others.push(waiting),
                false => left.push_back(waiting),
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        others
    }
}

fn name(key: &IdempotencyKey) -> (String, String) {
    (key.scope.clone(), key.key.clone())
}

impl Gathering {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let options = options.options([("lock_timeout", LOCK_TIMEOUT)]);
        let most = u32::try_from(AT_ONCE).unwrap_or(1);
        Self {
            connections: Connections::new(options, most),
            desk: Arc::new(Mutex::new(Desk {
                waiting: VecDeque::new(),
                turns: AT_ONCE,
                apart: HashMap::new(),
            })),
        }
    }

    /// How many connections it has at most.
    pub(super) const WIDTH: u32 = 2;

    pub(super) async fn create(
        &self,
        store: &Store,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let began = Instant::now();
        if self.is_apart(batch) {
            return store.create_alone(batch, key).await;
        }
        let request = Arc::new(Request {
            batch: batch.clone(),
            key: key.cloned(),
        });
        let written = match self.told(&request).await {
            Some(Told::Written(written)) => written,
            Some(Told::Lead(turn)) => self.lead(turn, &request).await,
            None => return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        };
        let is_safe = match written {
            Written::Created(created) => return Ok(created),
            Written::Taken => return store.replay(batch, key).await,
            Written::Refused => true,
            Written::Unknown => key.is_some(),
        };
        if !is_safe || began.elapsed() > SECOND_TRY {
            return Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed));
        }
        let created = store.create_alone(batch, key).await;
        if matches!(created, Err(StoreError::Unavailable(_))) {
            self.keep_apart(batch);
        }
        created
    }

    /// A turn, or what to wait for.
    fn enter(&self, request: &Arc<Request>) -> Result<Turn, oneshot::Receiver<Told>> {
        let mut desk = self.desk.lock();
        if let Some(turn) = desk.turn(&self.desk) {
            return Ok(turn);
        }
        let (tell, told) = oneshot::channel();
        desk.waiting.push_back(Waiting {
            request: Arc::clone(request),
            tell,
        });
        Err(told)
    }

    /// Waits for what becomes of the request. `None`: nothing in time, and nothing will.
    async fn told(&self, request: &Arc<Request>) -> Option<Told> {
        let mut told = match self.enter(request) {
            Ok(turn) => return Some(Told::Lead(turn)),
            Err(told) => told,
        };
        if let Ok(told) = tokio::time::timeout(PATIENCE, &mut told).await {
            return told.ok();
        }
        if self.desk.lock().give_up(request) {
            return None;
        }
        // It is in a statement, which has its own deadline.
        told.await.ok()
    }

    /// Writes the request, and with it whoever waits.
    async fn lead(&self, turn: Turn, first: &Arc<Request>) -> Written {
        let others = self.desk.lock().others(first);
        let requests = std::iter::once(first).chain(others.iter().map(|one| &one.request));
        let requests: Vec<_> = requests
            .map(|request| (&request.batch, request.key.as_ref()))
            .collect();
        let mut written = self.write(&requests).await.into_iter();
        drop(turn);
        let own = written.next().unwrap_or(Written::Unknown);
        for (other, written) in others.into_iter().zip(written) {
            // Who does not wait any longer has gone.
            let _gone = other.tell.send(Told::Written(written));
        }
        own
    }

    async fn write(&self, requests: &[(&Batch, Option<&IdempotencyKey>)]) -> Vec<Written> {
        let lease = match self.connections.lease().await {
            Ok(lease) => lease,
            Err(_unsent) => return requests.iter().map(|_| Written::Refused).collect(),
        };
        match insert(lease, requests).await {
            Ok(created) => created
                .into_iter()
                .map(|created| created.map_or(Written::Taken, Written::Created))
                .collect(),
            Err(StoreError::Unavailable(sqlx::Error::Database(_))) => {
                requests.iter().map(|_| Written::Refused).collect()
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a gathered statement failed"
                );
                requests.iter().map(|_| Written::Unknown).collect()
            }
        }
    }

    fn is_apart(&self, batch: &Batch) -> bool {
        let mut desk = self.desk.lock();
        if desk.apart.is_empty() {
            return false;
        }
        desk.apart.retain(|_, until| *until > Instant::now());
        batch
            .to
            .iter()
            .any(|address| desk.apart.contains_key(&address.user))
    }

    fn keep_apart(&self, batch: &Batch) {
        let mut desk = self.desk.lock();
        let until = Instant::now() + APART;
        for address in &batch.to {
            if desk.apart.len() < MOST_APART {
                desk.apart.insert(address.user.clone(), until);
            }
        }
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}
