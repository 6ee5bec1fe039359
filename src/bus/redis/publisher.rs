//! Sending: one task that pipelines what waits to Redis, and gives a connection up as soon as it does not answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::config::Options;
use futures_util::future::poll_immediate;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Channels;
use super::at;
use super::connection::{Connection, Dialer, Purpose, backoff};
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
    /// What was not published, here or before it came here.
    pub(super) untold: Untold,
    /// Rings when a probe is wanted now.
    pub(super) probe_wanted: Arc<Notify>,
    /// The last probe that Redis took, and when.
    pub(super) probe_sent: watch::Sender<Option<(u64, Instant)>>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
}

type InFlight = FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>;

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
        let answered = self.probe(&with_deadline(&connection.client))?.await;
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
        let client = with_deadline(&connection.client);
        let mut in_flight = InFlight::new();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            error = self.work(&mut connection, &client, &mut in_flight) => Err(error),
        };
        if ended.is_ok() {
            self.flush(&client, &mut in_flight).await;
        }
        // What is still unanswered now is never answered.
        let lost = u64::try_from(in_flight.len()).unwrap_or(u64::MAX);
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
        let mut failures = 0;
        let mut probes = tokio::time::interval(PROBE_PERIOD);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.show_queue();
            let missed = self.untold.due();
            tokio::select! {
                biased;
                Some(answered) = in_flight.next() => {
                    self.settle(&answered);
                    failures = if answered.result.is_ok() { 0 } else { failures + 1 };
                    let is_enough = failures >= FAILURES || matches!(answered.what, What::Probe(_));
                    if let Err(error) = answered.result && is_enough {
                        return error;
                    }
                }
                error = connection.ended() => return error,
                _tick = probes.tick() => match (self.probe(client), self.say_list(client)) {
                    (Ok(probe), Ok(list)) => {
                        in_flight.push(Box::pin(probe));
                        in_flight.push(Box::pin(list));
                    }
                    (Err(error), _) | (_, Err(error)) => return error,
                },
                () = self.probe_wanted.notified() => probes.reset_immediately(),
                // Before the next message: so others hear first that something is missing, unless they heard it a moment ago.
                () = at(missed) => match self.missed(client) {
                    Ok(missed) => in_flight.push(Box::pin(missed)),
                    Err(error) => return error,
                },
                Some(waiting) = self.queue.recv(), if in_flight.len() < IN_FLIGHT => {
                    self.publish(client, waiting, in_flight).await;
                }
                () = self.untold.some(), if missed.is_none() => {}
            }
        }
    }

    /// Sends what is still queued, and the word that something is missing, if it is; waits for the answers,
    /// at most [`DEADLINE`] in all.
    async fn flush(&mut self, client: &WithOptions<Client>, in_flight: &mut InFlight) {
        self.queue.close();
        let flushed = tokio::time::timeout(DEADLINE, async {
            while let Some(waiting) = self.queue.recv().await {
                self.publish(client, waiting, in_flight).await;
                while in_flight.len() >= IN_FLIGHT
                    && let Some(answered) = in_flight.next().await
                {
                    self.settle(&answered);
                }
            }
            self.drain(in_flight).await;
            // It is the last occasion.
            if self.untold.are_there()
                && let Ok(missed) = self.missed(client)
            {
                in_flight.push(Box::pin(missed));
                self.drain(in_flight).await;
            }
        });
        if flushed.await.is_err() {
            self.discard();
        }
    }

    /// Waits for all answers.
    async fn drain(&mut self, in_flight: &mut InFlight) {
        while let Some(answered) = in_flight.next().await {
            self.settle(&answered);
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
        let mut answered = Box::pin(async move {
            let result = publish(&client, channel, bytes).await;
            Answered {
                what: What::Parcel,
                result: result.map(|receivers| room.published(receivers)),
            }
        });
        // The first poll hands the command to the connection: from here on its place in the order is fixed.
        match poll_immediate(&mut answered).await {
            Some(answered) => in_flight.push(Box::pin(std::future::ready(answered))),
            None => in_flight.push(answered),
        }
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

    fn probe(
        &mut self,
        client: &WithOptions<Client>,
    ) -> Result<impl Future<Output = Answered> + Send + 'static, Error> {
        self.sent += 1;
        let bytes = self.sender.probe(self.sent);
        let channel = self.channels.own.clone();
        control(client, channel, bytes, What::Probe(self.sent))
    }

    /// Tells the other nodes which list of Redis this one has, and that it is there.
    fn say_list(
        &mut self,
        client: &WithOptions<Client>,
    ) -> Result<impl Future<Output = Answered> + Send + 'static, Error> {
        self.sent += 1;
        let bytes = self.sender.list(self.sent, self.list);
        control(client, self.channels.everyone.clone(), bytes, What::List)
    }

    /// Tells the other nodes that messages to them are missing.
    fn missed(
        &mut self,
        client: &WithOptions<Client>,
    ) -> Result<impl Future<Output = Answered> + Send + 'static, Error> {
        self.sent += 1;
        let bytes = self.sender.missed(self.sent);
        let channel = self.channels.everyone.clone();
        control(client, channel, bytes, What::Missed(self.untold.telling()))
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
        while self.queue.try_recv().is_ok() {
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

fn with_deadline(client: &Client) -> WithOptions<Client> {
    client.with_options(&Options {
        timeout: Some(DEADLINE),
        max_attempts: Some(1),
        ..Options::default()
    })
}

/// Publishes what is no message.
fn control(
    client: &WithOptions<Client>,
    channel: String,
    bytes: Result<Vec<u8>, EnvelopeError>,
    what: What,
) -> Result<impl Future<Output = Answered> + Send + 'static, Error> {
    let bytes = bytes.map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
    let client = client.clone();
    Ok(async move {
        let result = publish(&client, channel, bytes).await;
        let result = result.map(|_receivers| ());
        Answered { what, result }
    })
}

/// Answers how many have received it.
fn publish(
    client: &WithOptions<Client>,
    channel: String,
    bytes: Vec<u8>,
) -> impl Future<Output = Result<u64, Error>> + Send {
    client.publish(channel, Bytes::from(bytes))
}
