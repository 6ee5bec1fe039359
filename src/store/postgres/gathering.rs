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
use tokio::sync::{oneshot, watch};

use super::Store;
use super::connections::{Connections, broke_the_connection};
use super::create::insert;
use crate::store::{Batch, Created, IdempotencyKey, StoreError};
use crate::user::UserId;

/// How long a statement waits for one row that somebody else holds, and how long it may take with all such waits. The
/// server goes by these; behind a pooler that ignores them, by what is set there.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
const STATEMENT_TIMEOUT: &str = "500";

/// Publishes in one statement, at most.
const LARGEST: usize = 128;

/// How long a publish waits to be taken into a statement. Then there is no database, or no end to what came before.
const PATIENCE: Duration = Duration::from_secs(1);

/// A publish whose statement failed this long after it came is not tried again: its caller has waited enough.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// For how long a user whose publish holds up the others is kept out of their statements; renewed as long as it would.
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
    /// Nothing was sent.
    Unsent,
    /// The server has refused the statement: nothing was written.
    Refused,
    /// Nobody knows whether it was written.
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
    /// Statements under way at a time, each on a connection of its own. More are not faster: they wait for each other at
    /// the commit.
    pub(super) const WIDTH: u32 = 2;

    pub(super) fn new(options: PgConnectOptions, made: watch::Sender<u64>) -> Self {
        let lock_timeout = LOCK_TIMEOUT.as_millis().to_string();
        let options = options.options([
            ("lock_timeout", lock_timeout.as_str()),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
        Self {
            connections: Connections::new(options, Self::WIDTH, made),
            desk: Arc::new(Mutex::new(Desk {
                waiting: VecDeque::new(),
                turns: Self::WIDTH as usize,
                apart: HashMap::new(),
            })),
        }
    }

    pub(super) async fn create(
        &self,
        store: &Store,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let began = Instant::now();
        if self.is_apart(batch) {
            return self.alone(store, batch, key).await;
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
        let (may_try_again, may_be_to_blame) = match written {
            Written::Created(created) => return Ok(created),
            Written::Taken => return store.replay(batch, key).await,
            Written::Refused => (true, true),
            // The link is to blame, or nobody has a connection.
            Written::Unsent => (true, false),
            Written::Unknown => (key.is_some(), false),
        };
        if !may_try_again || began.elapsed() > SECOND_TRY {
            let why = "the statement that it was in failed; the log says why";
            return Err(StoreError::Unavailable(sqlx::Error::Protocol(
                why.to_owned(),
            )));
        }
        if may_be_to_blame {
            self.alone(store, batch, key).await
        } else {
            store.create_alone(batch, key).await.0
        }
    }

    /// Writes in a statement of its own, and notes whether it would hold up others.
    async fn alone(
        &self,
        store: &Store,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let (created, took) = store.create_alone(batch, key).await;
        let is_refused = match &created {
            Err(StoreError::Unavailable(error) | StoreError::Failed(error)) => {
                !broke_the_connection(error)
            }
            Ok(_) | Err(_) => false,
        };
        if took > LOCK_TIMEOUT || is_refused {
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
            Err(_unsent) => return requests.iter().map(|_| Written::Unsent).collect(),
        };
        let error = match insert(lease, requests).await {
            Ok(created) => {
                let written = created.into_iter();
                let written = written.map(|one| one.map_or(Written::Taken, Written::Created));
                return written.collect();
            }
            Err(StoreError::Unavailable(error) | StoreError::Failed(error)) => error,
            Err(_other) => return requests.iter().map(|_| Written::Unknown).collect(),
        };
        let is_known = !broke_the_connection(&error);
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            publishes = requests.len(),
            "a statement failed; what is safe to write again is"
        );
        let what_became = |_| {
            if is_known {
                Written::Refused
            } else {
                Written::Unknown
            }
        };
        requests.iter().map(what_became).collect()
    }

    fn is_apart(&self, batch: &Batch) -> bool {
        let desk = self.desk.lock();
        let now = Instant::now();
        let is_apart = |user| desk.apart.get(user).is_some_and(|until| *until > now);
        !desk.apart.is_empty() && batch.to.iter().any(|address| is_apart(&address.user))
    }

    fn keep_apart(&self, batch: &Batch) {
        let mut desk = self.desk.lock();
        let now = Instant::now();
        desk.apart.retain(|_, until| *until > now);
        for address in &batch.to {
            if desk.apart.len() < MOST_APART || desk.apart.contains_key(&address.user) {
                desk.apart.insert(address.user.clone(), now + APART);
            }
        }
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}
