//! The bus of a cluster: one channel per user, and two connections to each Redis that are replaced whenever in doubt.
//!
//! - [`places`] says which Redis a user's messages go by, when there are several.
//! - [`outbox`] holds what waits to be sent, or refuses it at once.
//! - [`publisher`] sends it, on a [`mod@line`] for nothing else, and proves by it that Redis answers.
//! - [`subscriber`] keeps the users' channels subscribed, by a [`listener`], and proves by probes that what is sent arrives.
//! - [`registry`] knows which channels are wanted, and how far each one is.
//! - [`intake`] decides what of that which arrives goes to the node.
//! - [`missed`] remembers that something was not sent, until the other nodes have been told.
//!
//! A connection is never repaired: the one that failed is dropped, with every command in it, and a new
//! one is opened. So an answer always belongs to the connection on which the question was asked.

mod connection;
mod health;
mod intake;
mod line;
mod listener;
mod missed;
mod outbox;
mod ping;
mod places;
mod publisher;
mod registry;
mod subscriber;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::ping::ping;

use self::connection::{Dialer, TRUST};
use self::health::{Direction, Health, Overall};
use self::intake::Intake;
use self::outbox::Outbox;
use self::places::Places;
use self::publisher::Publisher;
use self::registry::Registry;
use self::subscriber::Subscriber;
use super::backlog::Backlog;
use super::envelope::Sender;
use super::questions::Questions;
use super::{Elsewhere, Question, Receiver, Sent};
use crate::epoch::Epoch;
use crate::event::Message;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use crate::user::UserId;

/// How long a channel stays subscribed after its last socket has gone: this long at least, twice at most.
///
/// Long enough for a page load or a changed network, after which the user is back without a round trip to
/// Redis; uneven, so that a crowd that left together is not unsubscribed in one moment.
pub const LINGER: Duration = Duration::from_secs(30);

/// Which Redis, and what of it.
#[derive(Clone)]
pub struct Config {
    /// `redis://` or `rediss://`, with credentials and database if need be; `redis-sentinel://` works too.
    /// For a Redis in cluster mode name one of its nodes: plain pub/sub reaches all of them. Several, separated by
    /// commas: each has some of the users.
    pub url: String,
    /// What every channel begins with: clusters that share a Redis need different ones.
    pub prefix: String,
    /// See [`LINGER`].
    pub linger: Duration,
}

impl Config {
    #[must_use]
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: prefix.into(),
            linger: LINGER,
        }
    }
}

impl fmt::Debug for Config {
    /// Without the address, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why there can be no bus at all. That Redis is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Trying again does not help: the setting has to be changed.
    #[error("the address of Redis cannot be used")]
    Url(#[source] fred::error::Error),
    #[error("REDIS_URL names one Redis twice")]
    Twice,
    /// The barrier that confirms a subscription would be answered by any node of the cluster.
    #[error("for a Redis in cluster mode, name one of its nodes: redis://host:port")]
    ClusterUrl,
    /// It may be another time: [`Bus::connect`] waits for it, [`ping()`] says so.
    #[error("Redis does not answer")]
    Away(#[source] fred::error::Error),
    /// It answers, and this machine trusts nobody who vouches for it. Only [`ping()`] says so, and not of Sentinels.
    #[error("Redis has a certificate of an authority that is not trusted: {TRUST}")]
    Untrusted(#[source] fred::error::Error),
    #[error("the authorities to trust cannot be read; the system's or those in SSL_CERT_FILE")]
    Authorities(#[source] fred::error::Error),
}

impl From<fred::error::Error> for BusError {
    fn from(error: fred::error::Error) -> Self {
        match connection::advice(error.details()) {
            Some(_trust) => Self::Untrusted(error),
            None => Self::Away(error),
        }
    }
}

/// One node's end of the bus.
#[derive(Clone, Debug)]
pub struct Bus {
    /// In the order of [`Places`]; at least one.
    links: Arc<[Link]>,
    places: Places,
    overall: Arc<Overall>,
    questions: Arc<Questions>,
}

/// One Redis: what is sent there, and what is wanted from there.
#[derive(Debug)]
struct Link {
    outbox: Outbox,
    registry: Arc<Registry>,
    health: Arc<Health>,
}

/// Keeps one user's channel wanted until it is dropped, which is cheap and waits for nothing.
#[derive(Debug)]
pub struct Subscription {
    registry: Arc<Registry>,
    user: UserId,
    signal: Arc<registry::Signal>,
}

/// What a node's channels are called.
#[derive(Clone, Debug)]
struct Channels {
    /// Followed by the user's id.
    users: String,
    everyone: String,
    /// Followed by the node's number.
    nodes: String,
    /// This node's own: for its probes, and for the answers to its questions.
    own: String,
}

impl Channels {
    fn new(prefix: &str, node: u64) -> Self {
        let nodes = format!("{prefix}:node:");
        Self {
            users: format!("{prefix}:u:"),
            everyone: format!("{prefix}:all"),
            own: format!("{nodes}{node:016x}"),
            nodes,
        }
    }

    fn of_node(&self, node: u64) -> String {
        format!("{}{node:016x}", self.nodes)
    }

    fn of(&self, user: Option<&UserId>) -> String {
        match user {
            Some(user) => format!("{}{user}", self.users),
            None => self.everyone.clone(),
        }
    }
}

impl Bus {
    /// Joins the nodes that share this Redis and prefix. Returns at once, whether Redis is there or not:
    /// the bus is degraded until it is, tries for ever, and tells [`super::Incoming::Restored`] when it has joined.
    ///
    /// `epoch` is said in every message. Must be called inside a runtime; `tasks` owns the two tasks of each Redis.
    pub fn connect(
        config: &Config,
        epoch: Epoch,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<(super::Bus, Receiver), BusError> {
        let urls = config.url.split(',').map(str::trim);
        let dialers = urls.map(Dialer::new).collect::<Result<Vec<_>, _>>()?;
        let places = Places::of(&dialers)?;
        let node = rand::random();
        let overall = Arc::new(Overall::new(dialers.len(), Arc::clone(&metrics)));
        let questions = Arc::new(Questions::default());
        let (backlog, receiver) = Backlog::new();
        let shared = Shared {
            channels: Channels::new(&config.prefix, node),
            sender: Sender { node, epoch },
            linger: config.linger,
            list: places.number(),
            overall: Arc::clone(&overall),
            questions: Arc::clone(&questions),
            backlog: Arc::new(Mutex::new(backlog)),
            metrics,
        };
        let links = dialers.into_iter().map(|dialer| shared.link(dialer, tasks));
        let bus = Self {
            links: links.collect(),
            places,
            overall,
            questions,
        };
        Ok((super::Bus::Redis(bus), receiver))
    }

    /// The link of the user's own Redis.
    fn of(&self, user: &UserId) -> &Link {
        &self.links[self.places.index(user)]
    }

    /// Any on which something can be sent now; else the first, which says that it cannot.
    fn any(&self) -> &Link {
        let up = |link: &&Link| link.health.is_up(Direction::Publishing);
        self.links.iter().find(up).unwrap_or(&self.links[0])
    }

    pub(super) fn send(&self, message: &Message) -> Sent {
        let link = message
            .to
            .as_ref()
            .map_or_else(|| self.any(), |user| self.of(user));
        link.outbox.send(message)
    }

    /// Without waiting if the link is degraded: who receives nothing hears no answer either.
    pub(super) async fn sockets_elsewhere(&self, user: &UserId) -> Elsewhere {
        if !self.reaches(user) {
            return Elsewhere::UNKNOWN;
        }
        let Some(asking) = self.questions.ask() else {
            return Elsewhere::UNKNOWN;
        };
        match self.of(user).outbox.ask(user, &asking) {
            Sent::Live => asking.answers().await,
            Sent::Deferred => Elsewhere::UNKNOWN,
        }
    }

    pub(super) fn answer(&self, question: Question, sockets: u64) {
        // Deferred is counted, and the asker notices.
        let _sent = self.any().outbox.answer(question, sockets);
    }

    pub(super) fn subscribe(&self, user: &UserId) -> Subscription {
        let registry = &self.of(user).registry;
        Subscription {
            signal: registry.subscribe(user),
            registry: Arc::clone(registry),
            user: user.clone(),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.overall.is_healthy()
    }

    pub(super) fn healthy(&self) -> watch::Receiver<bool> {
        self.overall.healthy()
    }

    /// Whether the user's own Redis carries messages now.
    pub(super) fn reaches(&self, user: &UserId) -> bool {
        self.of(user).health.is_healthy()
    }
}

/// What all links of a node have in common.
struct Shared {
    channels: Channels,
    sender: Sender,
    linger: Duration,
    list: u64,
    overall: Arc<Overall>,
    questions: Arc<Questions>,
    backlog: Arc<Mutex<Backlog>>,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Starts the two tasks of one link.
    fn link(&self, dialer: Dialer, tasks: &Tasks) -> Link {
        let metrics = &self.metrics;
        let registry = Arc::new(Registry::new(self.linger, Arc::clone(metrics)));
        let health = Arc::new(Health::new(dialer.place(), Arc::clone(&self.overall)));
        let probe_wanted = Arc::new(Notify::new());
        let (probe_sent, probes) = watch::channel(None);
        let (outbox, queue, untold) = Outbox::new(Arc::clone(&health), Arc::clone(metrics));
        let publisher = Publisher {
            dialer: dialer.clone(),
            channels: self.channels.clone(),
            sender: self.sender.clone(),
            sent: 0,
            joined_before: false,
            list: self.list,
            shown: 0.0,
            queue,
            taken: None,
            untold,
            probe_wanted: Arc::clone(&probe_wanted),
            probe_sent,
            health: Arc::clone(&health),
            metrics: Arc::clone(metrics),
        };
        let subscriber = Subscriber {
            dialer,
            intake: Intake::new(
                self.channels.clone(),
                self.sender.clone(),
                Arc::clone(&registry),
                Arc::clone(&self.questions),
                Arc::clone(&self.backlog),
                self.list,
                Arc::clone(metrics),
            ),
            registry: Arc::clone(&registry),
            joined_before: false,
            probe_wanted,
            probes,
            health: Arc::clone(&health),
            metrics: Arc::clone(metrics),
        };
        tasks.essential("bus publisher", |stop| publisher.run(stop));
        tasks.essential("bus subscriber", |stop| subscriber.run(stop));
        Link {
            outbox,
            registry,
            health,
        }
    }
}

impl Subscription {
    pub(super) async fn confirmed(&self) {
        self.signal.confirmed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.registry.release(&self.user);
    }
}

/// Waits until then, if there is such a time. A time that has come is not waited for at all: a timer would
/// round it up, and let others go first.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) if time <= Instant::now() => {}
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(url: &str) -> Result<(super::super::Bus, Receiver), BusError> {
        let (epoch, metrics) = ("e1".into(), Arc::new(Metrics::new()));
        Bus::connect(&Config::new(url, "test"), epoch, metrics, &Tasks::default())
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_used_is_an_error() {
        for url in [
            "",
            "redis",
            "redis://host:port",
            "redis://host/database",
            "redis://a,",
            "redis://a, b",
        ] {
            assert!(matches!(connect(url), Err(BusError::Url(_))), "{url}");
        }
        assert!(connect("rediss://user:password@127.0.0.1:1/2").is_ok());
        assert!(connect("redis://127.0.0.1:1, redis://127.0.0.1:2").is_ok());
        assert!(matches!(
            connect("redis://a:1,redis://a:1"),
            Err(BusError::Twice)
        ));
        let cluster = connect("redis-cluster://127.0.0.1:1");
        assert!(matches!(cluster, Err(BusError::ClusterUrl)));
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = Config::new("redis://:secret@host", "test");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
