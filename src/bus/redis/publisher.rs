//! Sending: one task that pipelines what waits to Redis, and gives a connection up as soon as it does not answer.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::config::Options;
use futures_util::future::poll_immediate;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::Channels;
use super::at;
use super::connection::{Connection, Dialer, Purpose, backoff, timed_out};
use super::health::{Direction, Health};
use super::missed::{self, Untold};
use super::outbox::{Parcel, Waiting};
use crate::bus::envelope::{EnvelopeError, Sender};
use crate::metrics::{self, BusError, Metrics};

/// Unanswered publishes on the connection. One round trip of 1 ms then carries half a million a second.
const IN_FLIGHT: usize = 512;

/// An answer that takes longer counts as a failure. The message may have gone out all the same.
const DEADLINE: Duration = Duration::from_millis(500);

const _: () = assert!(DEADLINE.as_millis() < missed::PAUSE.as_millis());

/// Failures in a row after which the connection is given up, and with it everything that waits. One is
/// enough if it is a probe: at rest there is nothing else to go by.
const FAILURES: u32 = 3;

/// How often a node asks whether it still hears itself, and tells the others that it is there.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(2);

/// The task behind the queue.
pub(super) struct Publisher {
    pub(super) dialer: Dialer,
    pub(super) channels: Channels,
    pub(super) sender: Sender,
    /// The `n` of what was sent last. Given in the order of sending, which is the order of the queue.
    pub(super) sent: u64,
    pub(super) joined_before: bool,
    /// Which list of Redis this node has; said to the others with each probe, so that they know that it is there.
    pub(super) list: u64,
    /// How long the queue is, as the gauge has it.
    pub(super) shown: f64,
    pub(super) queue: mpsc::Receiver<Waiting>,
    /// Out of the queue, and not published yet.
    pub(super) taken: Option<Waiting>,
    /// What was not published, here or before it came here.
    pub(super) untold: Untold,
    /// Rings when a probe is wanted now.
    pub(super) probe_wanted: Arc<Notify>,
    /// The last probe that Redis took, and when.
    pub(super) probe_sent: watch::Sender<Option<(u64, Instant)>>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
}

/// What is not answered yet. Redis answers in the order of the commands, so one deadline is enough for all: that of the
/// first.
#[derive(Default)]
struct InFlight(VecDeque<Command>);

/// One `PUBLISH` under way.
struct Command {
    what: What,
    sent: Instant,
    answer: Answer,
}

type Answer = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// What one `PUBLISH` came to.
struct Answered {
    what: What,
    result: Result<(), Error>,
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A message, a question or an answer.
    Parcel,
    /// The probe of this number.
    Probe(u64),
    /// The word that so many messages have been lost.
    Missed(u64),
    /// Which list of Redis this node has.
    List,
}

impl Publisher {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let joined = tokio::select! {
                joined = self.join() => joined,
                () = stop.cancelled() => return,
            };
            let ended = match joined {
                Ok(connection) => {
                    backoff.reset();
                    self.pump(connection, &stop).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            self.health.down(Direction::Publishing, &error);
            self.discard();
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Opens a connection, and closes the breaker once Redis has answered a `PUBLISH` on it: one that is
    /// paused, or forbids it, greets as usual.
    async fn join(&mut self) -> Result<Connection, Error> {
        let connection = self.dialer.open(Purpose::Publishing).await?;
        let mut in_flight = InFlight::default();
        self.probe(&once(&connection.client), &mut in_flight)
            .await?;
        let mut deadline = in_flight.deadline();
        let answered = in_flight.next(&mut deadline).await;
        self.settle(&answered);
        answered.result?;
        if self.joined_before {
            self.metrics.bus_reconnections.of(()).increment(1);
        }
        self.joined_before = true;
        self.discard();
        self.health.up(Direction::Publishing);
        Ok(connection)
    }

    /// Publishes on this connection until it fails or, `Ok`, the node stops and everything is sent.
    async fn pump(
        &mut self,
        mut connection: Connection,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let client = once(&connection.client);
        let mut in_flight = InFlight::default();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            error = self.work(&mut connection, &client, &mut in_flight) => Err(error),
        };
        if ended.is_ok() {
            self.flush(&client, &mut in_flight).await;
        }
        // What is still unanswered now is never answered.
        let lost = u64::try_from(in_flight.0.len()).unwrap_or(u64::MAX);
        self.metrics
            .bus_errors
            .of(BusError::Publish)
            .increment(lost);
        ended
    }

    /// Answers why the connection must not be used any more.
    async fn work(
        &mut self,
        connection: &mut Connection,
        client: &WithOptions<Client>,
        in_flight: &mut InFlight,
    ) -> Error {
        let (mut failures, mut deadline) = (0, in_flight.deadline());
        let mut probes = tokio::time::interval(PROBE_PERIOD);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.show_queue();
            let missed = self.untold.due();
            tokio::select! {
                biased;
                answered = in_flight.next(&mut deadline) => {
                    if let Err(error) = self.judge(answered, &mut failures) {
                        return error;
                    }
                    // Those that are there already, without a look at anything else.
                    while let Some(answered) = in_flight.ready().await {
                        if let Err(error) = self.judge(answered, &mut failures) {
                            return error;
                        }
                    }
                }
                error = connection.ended() => return error,
                _tick = probes.tick() => {
                    if let Err(error) = self.probe(client, in_flight).await {
                        return error;
                    }
                    if let Err(error) = self.say_list(client, in_flight).await {
                        return error;
                    }
                }
                () = self.probe_wanted.notified() => probes.reset_immediately(),
                // Before the next message: so others hear first that something is missing, unless they heard it a moment ago.
                () = at(missed) => if let Err(error) = self.missed(client, in_flight).await {
                    return error;
                },
                Some(waiting) = self.queue.recv(), if in_flight.has_room() => {
                    // Where the end of the node finds it, which may come while others run.
                    self.taken = Some(waiting);
                    if !in_flight.0.is_empty() {
                        // Under load, whoever is about to publish does so first: then all go in one write.
                        tokio::task::yield_now().await;
                    }
                    while in_flight.has_room()
                        && let Some(waiting) = self.next()
                    {
                        self.publish(client, waiting, in_flight).await;
                        if self.untold.due().is_some_and(|due| due <= Instant::now()) {
                            break;
                        }
                    }
                }
                () = self.untold.some(), if missed.is_none() => {}
            }
        }
    }

    fn next(&mut self) -> Option<Waiting> {
        self.taken.take().or_else(|| self.queue.try_recv().ok())
    }

    /// Fails if it is one failure too many.
    fn judge(&mut self, answered: Answered, failures: &mut u32) -> Result<(), Error> {
        self.settle(&answered);
        let Err(error) = answered.result else {
            *failures = 0;
            return Ok(());
        };
        *failures += 1;
        if *failures >= FAILURES || matches!(answered.what, What::Probe(_)) {
            return Err(error);
        }
        Ok(())
    }

    /// Sends what is still queued, and the word that something is missing, if it is; waits for the answers,
    /// at most [`DEADLINE`] in all.
    async fn flush(&mut self, client: &WithOptions<Client>, in_flight: &mut InFlight) {
        self.queue.close();
        let flushed = tokio::time::timeout(DEADLINE, async {
            let mut deadline = in_flight.deadline();
            if let Some(waiting) = self.taken.take() {
                self.publish(client, waiting, in_flight).await;
            }
            while let Some(waiting) = self.queue.recv().await {
                self.publish(client, waiting, in_flight).await;
                while !in_flight.has_room() {
                    self.settle(&in_flight.next(&mut deadline).await);
                }
            }
            self.drain(in_flight, &mut deadline).await;
            // It is the last occasion.
            if self.untold.are_there() && self.missed(client, in_flight).await.is_ok() {
                self.drain(in_flight, &mut deadline).await;
            }
        });
        if flushed.await.is_err() {
            self.discard();
        }
    }

    /// Waits for all answers.
    async fn drain(&mut self, in_flight: &mut InFlight, deadline: &mut Pin<Box<Sleep>>) {
        while !in_flight.0.is_empty() {
            self.settle(&in_flight.next(deadline).await);
        }
    }

    async fn publish(
        &mut self,
        client: &WithOptions<Client>,
        waiting: Waiting,
        in_flight: &mut InFlight,
    ) {
        let Waiting { parcel, room } = waiting;
        self.sent += 1;
        let (channel, bytes) = self.wrapped(&parcel);
        let Ok(bytes) = bytes else {
            self.metrics.bus_errors.of(BusError::Publish).increment(1);
            return;
        };
        let client = client.clone();
        // The future of a command has 7 KB: it is made where it stays.
        let answer = Box::pin(async move {
            let result = publish(&client, channel, bytes).await;
            result.map(|receivers| room.published(receivers))
        });
        in_flight.push(What::Parcel, answer).await;
    }

    /// Where it goes, and as what; the `n` is that of what was sent last.
    fn wrapped(&self, parcel: &Parcel) -> (String, Result<Vec<u8>, EnvelopeError>) {
        let (n, channels, sender) = (self.sent, &self.channels, &self.sender);
        match parcel {
            Parcel::Message(message) => {
                (channels.of(message.to.as_ref()), sender.message(n, message))
            }
            Parcel::Question(user, number) => {
                (channels.of(Some(user)), sender.question(n, user, *number))
            }
            Parcel::Answer(question, sockets) => (
                channels.of_node(question.asker),
                sender.answer(n, question.number, *sockets),
            ),
        }
    }

    async fn probe(
        &mut self,
        client: &WithOptions<Client>,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.probe(self.sent);
        let channel = self.channels.own.clone();
        control(client, in_flight, What::Probe(self.sent), channel, bytes).await
    }

    /// Tells the other nodes which list of Redis this one has, and that it is there.
    async fn say_list(
        &mut self,
        client: &WithOptions<Client>,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.list(self.sent, self.list);
        let channel = self.channels.everyone.clone();
        control(client, in_flight, What::List, channel, bytes).await
    }

    /// Tells the other nodes that messages to them are missing.
    async fn missed(
        &mut self,
        client: &WithOptions<Client>,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.missed(self.sent);
        let channel = self.channels.everyone.clone();
        let what = What::Missed(self.untold.telling());
        control(client, in_flight, what, channel, bytes).await
    }

    /// Counts it, and notes what follows from it.
    fn settle(&mut self, answered: &Answered) {
        match (&answered.result, answered.what) {
            (Ok(()), What::Probe(number)) => {
                self.probe_sent.send_replace(Some((number, Instant::now())));
            }
            (Ok(()), What::Missed(losses)) => self.untold.told(losses),
            (Ok(()), What::List) => {}
            (Ok(()), What::Parcel) => {
                let published = self.metrics.bus_messages.of(metrics::Direction::Published);
                published.increment(1);
            }
            (Err(error), _) if *error.kind() == ErrorKind::Timeout => {
                self.metrics.bus_errors.of(BusError::Timeout).increment(1);
            }
            (Err(_), _) => self.metrics.bus_errors.of(BusError::Publish).increment(1),
        }
    }

    /// Drops what waits: it is stale when Redis is back, and the store has it.
    fn discard(&mut self) {
        while self.next().is_some() {
            self.metrics.bus_errors.of(BusError::Publish).increment(1);
        }
        self.show_queue();
    }

    /// By what has changed: other links have their own.
    #[expect(clippy::cast_precision_loss, reason = "at most 10 000")]
    fn show_queue(&mut self) {
        let now = self.queue.len() as f64;
        let gauge = self.metrics.bus_queue_length.of(());
        gauge.increment(now - std::mem::replace(&mut self.shown, now));
    }
}

impl InFlight {
    fn has_room(&self) -> bool {
        self.0.len() < IN_FLIGHT
    }

    async fn push(&mut self, what: What, mut answer: Answer) {
        let sent = Instant::now();
        // The first poll hands the command to the connection: from here on its place in the order is fixed.
        if let Some(result) = poll_immediate(&mut answer).await {
            answer = Box::pin(std::future::ready(result));
        }
        self.0.push_back(Command { what, sent, answer });
    }

    /// Waits for the next answer, until its deadline; for ever if there is nothing to wait for. `deadline` is where the
    /// time is kept from one call to the next.
    async fn next(&mut self, deadline: &mut Pin<Box<Sleep>>) -> Answered {
        poll_fn(|context| self.poll_next(deadline, context)).await
    }

    fn poll_next(
        &mut self,
        deadline: &mut Pin<Box<Sleep>>,
        context: &mut Context<'_>,
    ) -> Poll<Answered> {
        let Some(first) = self.0.front_mut() else {
            return Poll::Pending;
        };
        if let Poll::Ready(result) = first.answer.as_mut().poll(context) {
            return Poll::Ready(self.take(result));
        }
        // It is moved only when it fires, and not with each answer.
        while deadline.as_mut().poll(context).is_ready() {
            let due = first.sent + DEADLINE;
            if due <= Instant::now() {
                return Poll::Ready(self.take(Err(timed_out("Redis did not answer in time"))));
            }
            deadline.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// For [`InFlight::next`]: the time of the first, if there is one.
    fn deadline(&self) -> Pin<Box<Sleep>> {
        let sent = self.0.front().map_or_else(Instant::now, |first| first.sent);
        Box::pin(tokio::time::sleep_until(sent + DEADLINE))
    }

    /// The next answer, if it is there.
    async fn ready(&mut self) -> Option<Answered> {
        let first = self.0.front_mut()?;
        let result = poll_immediate(&mut first.answer).await?;
        Some(self.take(result))
    }

    /// The first one has come to this.
    fn take(&mut self, result: Result<(), Error>) -> Answered {
        let first = self.0.pop_front();
        let what = first.map_or(What::Parcel, |first| first.what);
        Answered { what, result }
    }
}

/// Commands are tried once, and their time is kept here.
fn once(client: &Client) -> WithOptions<Client> {
    client.with_options(&Options {
        timeout: Some(Duration::ZERO),
        max_attempts: Some(1),
        ..Options::default()
    })
}

/// Publishes what is no message.
async fn control(
    client: &WithOptions<Client>,
    in_flight: &mut InFlight,
    what: What,
    channel: String,
    bytes: Result<Vec<u8>, EnvelopeError>,
) -> Result<(), Error> {
    let bytes = bytes.map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
    let client = client.clone();
    let answer = Box::pin(async move {
        let result = publish(&client, channel, bytes).await;
        result.map(|_receivers| ())
    });
    in_flight.push(what, answer).await;
    Ok(())
}

/// Answers how many have received it.
fn publish(
    client: &WithOptions<Client>,
    channel: String,
    bytes: Vec<u8>,
) -> impl Future<Output = Result<u64, Error>> + Send {
    client.publish(channel, Bytes::from(bytes))
}
