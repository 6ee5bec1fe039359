//! Publishes that come at the same time go to the database together: one statement, one round trip, one commit.
//!
//! At rest a publish is a statement of its own and waits for nobody. Those who come while one is under way wait for its end,
//! and the first of them takes all into the next. So statements grow with the load, and the latency at rest does not. A
//! second one is begun beside it for many at once, or for who has waited long: because of a slow commit, or a lock.
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

/// So many are worth a statement beside another: what a statement costs the server whatever is in it, and its commit, is
/// then a third of what each of them costs. (8 in two at a time cost it a third more than 15 in one.)
const ENOUGH: usize = 24;

/// After this, few are worth one too.
const LATE: Duration = Duration::from_millis(10);

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
    /// Statements under way.
    under_way: usize,
    /// Somebody is about to begin one, and takes along whoever waits by then.
    gathers: bool,
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

/// The right to one statement. When it ends, whoever waits gets it.
#[derive(Debug)]
struct Turn {
    /// Empty: it was taken back.
    desk: Option<Arc<Mutex<Desk>>>,
    /// Whoever has it has not yet taken along those who wait.
    gathers: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            let mut open = desk.lock();
            open.under_way -= 1;
            open.gathers &= !self.gathers;
            open.pass_on(&desk);
        }
    }
}

impl Desk {
    /// Whether a statement for so many may be begun.
    fn may_begin(&self, publishes: usize) -> bool {
        let is_beside = self.under_way > 0 && publishes < ENOUGH;
        !self.gathers && !is_beside && self.under_way < Gathering::WIDTH as usize
    }

    fn begin(&mut self, desk: &Arc<Mutex<Self>>) -> Turn {
        self.under_way += 1;
        self.gathers = true;
        Turn {
            desk: Some(Arc::clone(desk)),
            gathers: true,
        }
    }

    /// Gives a turn to the first who still waits, if a statement may be begun.
    fn pass_on(&mut self, desk: &Arc<Mutex<Self>>) {
        while self.may_begin(self.waiting.len())
            && let Some(first) = self.waiting.pop_front()
        {
            match first.tell.send(Told::Lead(self.begin(desk))) {
                Ok(()) => {}
                Err(Told::Lead(mut turn)) => {
                    // Its drop would want the lock that this holds.
                    turn.desk = None;
                    self.under_way -= 1;
                    self.gathers = false;
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
    fn others(&mut self, turn: &mut Turn, first: &Request) -> Vec<Waiting> {
        (self.gathers, turn.gathers) = (false, false);
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
    /// the commit, and are smaller.
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
                under_way: 0,
                gathers: false,
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
        if desk.may_begin(desk.waiting.len() + 1) {
            return Ok(desk.begin(&self.desk));
        }
        let (tell, told) = oneshot::channel();
        desk.waiting.push_back(Waiting {
            request: Arc::clone(request),
            tell,
        });
        Err(told)
    }

    /// A turn for who has waited for [`LATE`], unless it was taken into a statement, or will be.
    fn enter_late(&self, request: &Arc<Request>) -> Option<Turn> {
        let mut desk = self.desk.lock();
        let may_begin = desk.may_begin(ENOUGH) && desk.give_up(request);
        may_begin.then(|| desk.begin(&self.desk))
    }

    /// Waits for what becomes of the request. `None`: nothing in time, and nothing will.
    async fn told(&self, request: &Arc<Request>) -> Option<Told> {
        let mut told = match self.enter(request) {
            Ok(turn) => return Some(Told::Lead(turn)),
            Err(told) => told,
        };
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(told) = tokio::time::timeout(LATE, &mut told).await {
                return told.ok();
            }
            if let Some(turn) = self.enter_late(request) {
                return Some(Told::Lead(turn));
            }
        }
        if self.desk.lock().give_up(request) {
            return None;
        }
        // It is in a statement, which has its own deadline.
        told.await.ok()
    }

    /// Writes the request, and with it whoever waits.
    async fn lead(&self, mut turn: Turn, first: &Arc<Request>) -> Written {
        let others = self.desk.lock().others(&mut turn, first);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gathering() -> Gathering {
        Gathering::new(PgConnectOptions::new(), watch::Sender::default())
    }

    fn request() -> Arc<Request> {
        Arc::new(Request {
            batch: Batch {
                drafts: Vec::new(),
                to: Vec::new(),
            },
            key: None,
        })
    }

    /// A turn whose statement has begun, with so many others in it.
    fn under_way(gathering: &Gathering) -> (Turn, usize) {
        let mut turn = gathering.enter(&request()).unwrap();
        let others = gathering.desk.lock().others(&mut turn, &request());
        (turn, others.len())
    }

    fn waiting(gathering: &Gathering) -> oneshot::Receiver<Told> {
        gathering.enter(&request()).unwrap_err()
    }

    /// Whether it was told to lead; the turn lasts as long as what is answered.
    fn lead(told: &mut oneshot::Receiver<Told>) -> Option<Told> {
        told.try_recv().ok()
    }

    #[test]
    fn who_comes_meanwhile_waits_for_the_end_and_all_go_together() {
        let gathering = gathering();
        let (turn, others) = under_way(&gathering);
        assert_eq!(others, 0);
        let (mut first, mut second) = (waiting(&gathering), waiting(&gathering));
        assert!(lead(&mut first).is_none());
        drop(turn);
        let Some(Told::Lead(mut turn)) = lead(&mut first) else {
            panic!("nobody leads");
        };
        let mut third = waiting(&gathering);
        let others = gathering.desk.lock().others(&mut turn, &request());
        assert_eq!(others.len(), 2);
        assert!(lead(&mut second).is_none() && lead(&mut third).is_none());
    }

    #[test]
    fn many_have_a_second_statement_and_nobody_a_third() {
        let gathering = gathering();
        let _first = under_way(&gathering);
        let _waiting: Vec<_> = (1..ENOUGH).map(|_| waiting(&gathering)).collect();
        let (_second, others) = under_way(&gathering);
        assert_eq!(others, ENOUGH - 1);
        let _waiting: Vec<_> = (0..2 * ENOUGH).map(|_| waiting(&gathering)).collect();
    }

    #[test]
    fn a_leader_that_has_gone_holds_up_nobody() {
        let gathering = gathering();
        let (turn, _) = under_way(&gathering);
        let gone = waiting(&gathering);
        let mut second = waiting(&gathering);
        let third = waiting(&gathering);
        drop(gone);
        drop(turn);
        // Told, and gone before it has begun.
        drop(lead(&mut second).unwrap());
        drop((second, third));
        assert_eq!(under_way(&gathering).1, 0);
    }

    /// The first is held up; the second one's turn ends after those who wait were late, and they are few.
    #[tokio::test(start_paused = true)]
    async fn few_who_have_waited_long_have_the_second_statement_whenever_it_is_free() {
        let gathering = gathering();
        let _held_up = under_way(&gathering);
        let request = request();
        let Some(Told::Lead(mut second)) = gathering.told(&request).await else {
            panic!("who was late does not lead");
        };
        let others = gathering.desk.lock().others(&mut second, &request);
        assert!(others.is_empty());
        let ends = async {
            tokio::time::sleep(LATE * 3 / 2).await;
            drop(second);
        };
        let began = tokio::time::Instant::now();
        let (led, ()) = tokio::join!(gathering.told(&request), ends);
        assert!(matches!(led, Some(Told::Lead(_))));
        assert!(began.elapsed() <= LATE * 2);
    }
}
