//! Receiving: keeps the wanted channels subscribed on one connection after another, and says when something may be missing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::EventInterface;
use fred::types::Message;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::at;
use super::barrier;
use super::connection::{Dialer, Purpose, backoff, timed_out};
use super::health::{Direction, Health};
use super::intake::{Intake, Word};
use super::missed::Pace;
use super::registry::{Batch, Registry};
use crate::backoff::Backoff;
use crate::metrics::{BusError, Metrics};

/// By when a probe that Redis took must have come back. A subscription that is silently gone is noticed so.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);

/// Messages taken in a row before the task looks after anything else.
const STRETCH: usize = 256;

/// The task that owns the subscriptions.
pub(super) struct Subscriber {
    pub(super) dialer: Dialer,
    pub(super) intake: Intake,
    pub(super) registry: Arc<Registry>,
    pub(super) joined_before: bool,
    pub(super) probe_wanted: Arc<Notify>,
    pub(super) probes: watch::Receiver<Option<(u64, Instant)>>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a connection was given up.
enum Lost {
    Connection(Error),
    /// A batch was refused, unanswered, or answered with something else than its barrier.
    Subscribing(Error),
    /// More came than was taken.
    Lagged(u64),
    Silence,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(formatter, "{error}"),
            Self::Subscribing(error) => write!(formatter, "subscribing failed: {error}"),
            Self::Lagged(missed) => write!(formatter, "{missed} messages were not taken in time"),
            Self::Silence => formatter.write_str("a probe did not come back"),
        }
    }
}

impl Lost {
    fn kind(&self) -> Option<BusError> {
        match self {
            Self::Connection(_) => None,
            Self::Subscribing(_) => Some(BusError::Subscribe),
            Self::Lagged(_) => Some(BusError::Lagged),
            Self::Silence => Some(BusError::Probe),
        }
    }
}

/// How far the present connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What was wanted before is being subscribed.
    Subscribing,
    /// All of it is confirmed; a probe has to come through.
    Probing,
    Joined,
}

impl Subscriber {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let lost = tokio::select! {
                lost = self.serve(&mut backoff) => lost,
                () = stop.cancelled() => return,
            };
            self.health.down(Direction::Receiving, &lost);
            self.registry.reset();
            if let Some(kind) = lost.kind() {
                self.metrics.bus_errors.of(kind).increment(1);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Serves one connection, until it is lost.
    async fn serve(&mut self, backoff: &mut Backoff) -> Lost {
        let mut connection = match self.dialer.open(Purpose::Receiving).await {
            Ok(connection) => connection,
            Err(error) => return Lost::Connection(error),
        };
        self.intake.forget_all();
        let messages = connection.client.message_rx();
        let client = connection.client.clone();
        let serving = Serving {
            stage: Stage::Subscribing,
            barriers: 0,
            batch: None,
            hears_itself: false,
            probe_seen: 0,
            probe_awaited: None,
            is_missing: false,
            missing_told: Pace::default(),
            subscriber: self,
            backoff,
            client,
            messages,
        };
        tokio::select! {
            lost = serving.run() => lost,
            error = connection.ended() => Lost::Connection(error),
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = (Batch, Result<(), Error>)> + Send>>;

/// One connection in use.
struct Serving<'a> {
    subscriber: &'a mut Subscriber,
    backoff: &'a mut Backoff,
    client: Client,
    messages: broadcast::Receiver<Message>,
    stage: Stage,
    /// Barriers sent; the next bears the next number.
    barriers: u64,
    /// The one batch that is out.
    batch: Option<Answer>,
    /// Whether the node's own channel is confirmed, on which its probes come.
    hears_itself: bool,
    /// The highest probe that came through.
    probe_seen: u64,
    /// The oldest probe that Redis took and that has not come through, and its deadline.
    probe_awaited: Option<(u64, Instant)>,
    /// Another node could not send something, and this one has not been told.
    is_missing: bool,
    /// When it was told so last.
    missing_told: Pace,
}

impl Serving<'_> {
    async fn run(mut self) -> Lost {
        self.start_batch();
        loop {
            if let Err(lost) = self.step().await {
                return lost;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Lost> {
        let due = match self.batch {
            Some(_) => None,
            None => self.subscriber.registry.due(),
        };
        let silence = self.probe_awaited.map(|(_, deadline)| deadline);
        let missing = self.is_missing.then(|| self.missing_told.next());
        let silent = self.subscriber.intake.silent_at();
        tokio::select! {
            biased;
            (batch, result) = answered(&mut self.batch) => self.finish_batch(&batch, result),
            () = at(due) => {
                self.start_batch();
                Ok(())
            }
            Ok(()) = self.subscriber.probes.changed(), if self.hears_itself => {
                self.await_probe();
                Ok(())
            }
            () = at(silence) => Err(Lost::Silence),
            () = at(missing) => {
                self.tell_missing();
                Ok(())
            }
            () = at(silent) => {
                self.mind_silent();
                Ok(())
            }
            first = self.messages.recv() => self.receive(first),
            () = self.subscriber.registry.work() => Ok(()),
        }
    }

    fn start_batch(&mut self) {
        let batch = self.subscriber.registry.take(Instant::now());
        let channels = self.subscriber.intake.channels();
        let mut subscribe: Vec<_> = batch
            .subscribe
            .iter()
            .map(|user| channels.of(Some(user)))
            .collect();
        if self.barriers == 0 {
            subscribe.extend([channels.everyone.clone(), channels.own.clone()]);
        }
        let unsubscribe = batch
            .unsubscribe
            .iter()
            .map(|user| channels.of(Some(user)))
            .collect();
        self.barriers += 1;
        let client = self.client.clone();
        let confirmed = barrier::confirmed(client, subscribe, unsubscribe, self.barriers);
        self.batch = Some(Box::pin(async move { (batch, confirmed.await) }));
    }

    fn finish_batch(&mut self, batch: &Batch, result: Result<(), Error>) -> Result<(), Lost> {
        self.batch = None;
        result.map_err(Lost::Subscribing)?;
        if !self.hears_itself {
            // Earlier probes were sent when this connection could not hear them.
            self.hears_itself = true;
            self.subscriber.probes.mark_unchanged();
        }
        self.subscriber.registry.confirm(&batch.subscribe);
        if self.stage == Stage::Subscribing && self.subscriber.registry.is_resynced() {
            self.stage = Stage::Probing;
            self.subscriber.probe_wanted.notify_one();
        }
        Ok(())
    }

    /// Takes what has come, up to [`STRETCH`] messages.
    fn receive(&mut self, first: Result<Message, RecvError>) -> Result<(), Lost> {
        match first {
            Ok(message) => self.take(&message),
            Err(RecvError::Lagged(missed)) => return Err(Lost::Lagged(missed)),
            Err(RecvError::Closed) => {
                return Err(Lost::Connection(timed_out("the connection is closed")));
            }
        }
        for _ in 1..STRETCH {
            match self.messages.try_recv() {
                Ok(message) => self.take(&message),
                Err(TryRecvError::Lagged(missed)) => return Err(Lost::Lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Message) {
        // A message is always a string of bytes; what is not is nothing of ours.
        let bytes = message.value.as_bytes().unwrap_or_default();
        match self.subscriber.intake.take(&message.channel, bytes) {
            Some(Word::Probe(probe)) => self.hear_probe(probe),
            Some(Word::Missed) => {
                // Before it has joined, the word that comes with joining says the same.
                self.is_missing = self.stage == Stage::Joined;
                self.tell_missing();
            }
            None => {}
        }
    }

    fn hear_probe(&mut self, probe: u64) {
        self.probe_seen = self.probe_seen.max(probe);
        self.probe_awaited = self
            .probe_awaited
            .filter(|(awaited, _)| *awaited > self.probe_seen);
        let was_interrupted =
            self.stage != Stage::Subscribing && self.subscriber.health.take_interruption();
        if was_interrupted || self.stage == Stage::Probing {
            self.join();
        }
    }

    /// A node that has ended may have committed what it told nobody: everybody is compared now, whatever the feed's
    /// period has come to.
    fn mind_silent(&mut self) {
        if self.subscriber.intake.forget_silent(Instant::now()) {
            tracing::debug!("another node has fallen silent");
            self.is_missing = self.stage == Stage::Joined;
            self.tell_missing();
        }
    }

    /// Tells the node what it has not been told of, unless it was told a moment ago: however many nodes say
    /// at once that they could not send, it compares with the store once in a while.
    fn tell_missing(&mut self) {
        if self.is_missing && self.missing_told.next() <= Instant::now() {
            self.is_missing = false;
            self.missing_told.done();
            self.subscriber.intake.restored();
        }
    }

    /// Messages go out and come in: from here on nothing is missed.
    fn join(&mut self) {
        let subscriber = &mut self.subscriber;
        if self.stage == Stage::Probing && subscriber.joined_before {
            subscriber.metrics.bus_reconnections.of(()).increment(1);
        }
        self.stage = Stage::Joined;
        self.backoff.reset();
        subscriber.joined_before = true;
        // First the word, then the flag: whoever sees the bus healthy may rely on the word being on its way.
        subscriber.intake.restored();
        self.is_missing = false;
        subscriber.health.up(Direction::Receiving);
    }

    fn await_probe(&mut self) {
        if let Some((number, sent)) = *self.subscriber.probes.borrow_and_update()
            && number > self.probe_seen
            && self.probe_awaited.is_none()
        {
            self.probe_awaited = Some((number, sent + PROBE_DEADLINE));
        }
    }
}

/// Waits for the batch that is out, if one is.
async fn answered(batch: &mut Option<Answer>) -> (Batch, Result<(), Error>) {
    match batch {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}
