//! Receiving: keeps the wanted channels subscribed on one connection after another, and says when something may be missing.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use fred::error::Error;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::at;
use super::connection::{Dialer, backoff, timed_out};
use super::health::{Direction, Health};
use super::intake::{Intake, Word};
use super::listener::{Heard, Listener};
use super::missed::Pace;
use super::registry::{Batch, Registry};
use crate::backoff::Backoff;
use crate::metrics::{BusError, Metrics};
use crate::user::UserId;

/// By when a probe that Redis took must have come back. A subscription that is silently gone is noticed so.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);

/// From the first command of a batch to the answer of the barrier behind it.
const BATCH_DEADLINE: Duration = Duration::from_secs(2);

/// For so long after a deadline what has come by then is still read: the answer may be in it. No longer, however much there is.
const GRACE: Duration = Duration::from_secs(1);

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
    /// A batch was refused, or not answered in time.
    Subscribing(Error),
    Silence,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(formatter, "{error}"),
            Self::Subscribing(error) => write!(formatter, "subscribing failed: {error}"),
            Self::Silence => formatter.write_str("a probe did not come back"),
        }
    }
}

impl Lost {
    fn kind(&self) -> Option<BusError> {
        match self {
            Self::Connection(_) => None,
            Self::Subscribing(_) => Some(BusError::Subscribe),
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
        let listener = match self.dialer.wire().await {
            Ok(wire) => Listener::new(wire),
            Err(error) => return Lost::Connection(error),
        };
        self.intake.forget_all();
        self.on(listener, backoff).run().await
    }

    fn on<'a>(&'a mut self, listener: Listener, backoff: &'a mut Backoff) -> Serving<'a> {
        Serving {
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
            listener,
        }
    }
}

/// One connection in use.
struct Serving<'a> {
    subscriber: &'a mut Subscriber,
    backoff: &'a mut Backoff,
    listener: Listener,
    stage: Stage,
    /// Barriers sent; the next bears the next number.
    barriers: u64,
    /// The one batch that is out, and by when its barrier must be answered.
    batch: Option<(Batch, Instant)>,
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
        let overdue = self.overdue();
        let missing = self.is_missing.then(|| self.missing_told.next());
        let silent = self.subscriber.intake.silent_at();
        tokio::select! {
            biased;
            () = at(overdue.map(|deadline| deadline + GRACE)) => Err(self.unheard()),
            () = at(due) => {
                self.start_batch();
                Ok(())
            }
            Ok(()) = self.subscriber.probes.changed(), if self.hears_itself => {
                self.await_probe();
                Ok(())
            }
            () = at(missing) => {
                self.tell_missing();
                Ok(())
            }
            () = at(silent) => {
                self.mind_silent();
                Ok(())
            }
            more = poll_fn(|context| self.listener.poll_more(context)) => {
                more.map_err(Lost::Connection)?;
                self.hear()
            }
            () = at(overdue) => Err(self.unheard()),
            () = self.subscriber.registry.work() => Ok(()),
        }
    }

    /// By when something has to be heard, if anything has.
    fn overdue(&self) -> Option<Instant> {
        let barrier = self.batch.iter().map(|(_, deadline)| *deadline);
        let probe = self.probe_awaited.iter().map(|(_, deadline)| *deadline);
        barrier.chain(probe).min()
    }

    /// What it is that was not heard in time.
    fn unheard(&self) -> Lost {
        match &self.batch {
            Some((_, deadline)) if Some(*deadline) == self.overdue() => {
                Lost::Subscribing(timed_out("the barrier was not answered"))
            }
            Some(_) | None => Lost::Silence,
        }
    }

    fn start_batch(&mut self) {
        let batch = self.subscriber.registry.take(Instant::now());
        let channels = self.subscriber.intake.channels();
        let named = |users: &[UserId]| -> Vec<_> {
            users.iter().map(|user| channels.of(Some(user))).collect()
        };
        let (mut subscribe, unsubscribe) = (named(&batch.subscribe), named(&batch.unsubscribe));
        if self.barriers == 0 {
            subscribe.extend([channels.everyone.clone(), channels.own.clone()]);
        }
        self.barriers += 1;
        self.listener
            .change(&subscribe, &unsubscribe, self.barriers);
        self.batch = Some((batch, Instant::now() + BATCH_DEADLINE));
    }

    fn finish_batch(&mut self, barrier: u64) {
        // Any other is answered already.
        let answered = self.batch.take_if(|_| barrier == self.barriers);
        let Some((batch, _)) = answered else { return };
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
    }

    /// Takes what has come.
    fn hear(&mut self) -> Result<(), Lost> {
        while let Some(heard) = self.listener.heard().map_err(Lost::Connection)? {
            match heard {
                Heard::Message { channel, bytes } => {
                    // What is no text is no channel of ours.
                    let channel = str::from_utf8(channel).unwrap_or_default();
                    let word = self.subscriber.intake.take(channel, bytes);
                    self.mind(word);
                }
                Heard::Barrier(barrier) => self.finish_batch(barrier),
                Heard::Refused(error) => return Err(Lost::Subscribing(error)),
            }
        }
        Ok(())
    }

    fn mind(&mut self, word: Option<Word>) {
        match word {
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll};

    use parking_lot::Mutex;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

    use super::super::wire::{Stream, Wire};
    use super::super::{Channels, Overall};
    use super::*;
    use crate::bus::backlog::Backlog;
    use crate::bus::envelope::Sender;

    /// Serves a connection, while `redis` does what it does; answers why it was given up, and when.
    async fn lost(
        stream: impl Stream + 'static,
        redis: impl Future<Output = ()>,
    ) -> (Lost, Duration) {
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::new(Duration::ZERO, Arc::clone(&metrics)));
        let overall = Arc::new(Overall::new(1, Arc::clone(&metrics)));
        let (backlog, _receiver) = Backlog::new();
        let sender = Sender {
            node: 1,
            epoch: "e1".into(),
        };
        let (_probes, probes) = watch::channel(None);
        let mut subscriber = Subscriber {
            dialer: Dialer::new("redis://127.0.0.1:1").unwrap(),
            intake: Intake::new(
                Channels::new("p", 1),
                sender,
                Arc::clone(&registry),
                Arc::default(),
                Arc::new(Mutex::new(backlog)),
                0,
                Arc::clone(&metrics),
            ),
            registry,
            joined_before: false,
            probe_wanted: Arc::default(),
            probes,
            health: Arc::new(Health::new("a test".to_owned(), overall)),
            metrics,
        };
        let listener = Listener::new(Wire::new(Box::new(stream)));
        let mut backoff = backoff();
        let serving = subscriber.on(listener, &mut backoff);
        let began = Instant::now();
        tokio::select! {
            lost = serving.run() => (lost, began.elapsed()),
            () = redis => panic!("the connection was not given up"),
        }
    }

    /// So often has something more to say, a millisecond later, that is no answer; then it ends.
    struct Flood(u32);

    impl AsyncRead for Flood {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Some(left) = self.0.checked_sub(1) else {
                return Poll::Ready(Ok(()));
            };
            self.0 = left;
            let later = pin!(tokio::time::advance(Duration::from_millis(1)));
            let _yields = later.poll(context);
            buffer.put_slice(b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nx\r\n");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_barrier_without_an_answer_ends_the_connection() {
        let (near, _far) = tokio::io::duplex(1_024);
        let (lost, after) = lost(near, std::future::pending()).await;
        assert!(matches!(lost, Lost::Subscribing(_)), "{lost}");
        assert_eq!(after.as_secs(), BATCH_DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_one_whose_answer_never_comes_out_of_a_flood() {
        let (lost, after) = lost(Flood(10_000), std::future::pending()).await;
        assert!(matches!(lost, Lost::Subscribing(_)), "{lost}");
        assert_eq!(after.as_secs(), (BATCH_DEADLINE + GRACE).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_is_heard_by_who_comes_late() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let redis = async {
            let mut asked = [0; 64];
            assert!(far.read(&mut asked).await.unwrap() > 0);
            let answer = b"*2\r\n$4\r\npong\r\n$1\r\n1\r\n";
            far.write_all(answer).await.unwrap();
            // The node does not run meanwhile.
            tokio::time::advance(BATCH_DEADLINE + GRACE / 2).await;
            far.write_all(b"-enough\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        let (lost, after) = lost(near, redis).await;
        assert!(
            matches!(&lost, Lost::Subscribing(error) if error.details() == "enough"),
            "{lost}"
        );
        assert_eq!(after, BATCH_DEADLINE + GRACE / 2);
    }
}
