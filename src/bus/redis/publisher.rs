//! Sending: one task that pipelines what waits to Redis, and gives a connection up as soon as it does not answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Interval, Sleep};
use tokio_util::sync::CancellationToken;

use super::Channels;
use super::at;
use super::connection::{Dialer, backoff, timed_out};
use super::health::{Direction, Health};
use super::line::Line;
use super::missed::{self, Untold};
use super::outbox::{Parcel, Room, Waiting};
use crate::bus::envelope::{EnvelopeError, Sender};
use crate::metrics::{self, BusError, Metrics};
use crate::tick;

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

/// A connection, and what is not answered on it yet. Redis answers in the order of the commands, so one deadline is enough
/// for all: that of the first.
struct InFlight {
    line: Line,
    commands: VecDeque<Command>,
    /// Before those, so many that nobody waits for any more; their answers may still come, and come first.
    late: usize,
    deadline: Pin<Box<Sleep>>,
}

/// One `PUBLISH` under way.
struct Command {
    what: What,
    sent: Instant,
    room: Option<Room>,
}

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
                Ok(in_flight) => {
                    backoff.reset();
                    self.pump(in_flight, &stop).await
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
    async fn join(&mut self) -> Result<InFlight, Error> {
        let mut in_flight = InFlight::on(Line::new(self.dialer.wire().await?));
        self.probe(&mut in_flight)?;
        let answered = in_flight.next().await?;
        self.settle(&answered);
        answered.result?;
        if self.joined_before {
            self.metrics.bus_reconnections.of(()).increment(1);
        }
        self.joined_before = true;
        self.discard();
        self.health.up(Direction::Publishing);
        Ok(in_flight)
    }

    /// Publishes on this connection until it fails or, `Ok`, the node stops and everything is sent.
    async fn pump(
        &mut self,
        mut in_flight: InFlight,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            error = self.work(&mut in_flight) => Err(error),
        };
        if ended.is_ok() {
            self.flush(&mut in_flight).await;
        }
        // What is still unanswered now is never answered.
        let lost = u64::try_from(in_flight.commands.len()).unwrap_or(u64::MAX);
        self.metrics
            .bus_errors
            .of(BusError::Publish)
            .increment(lost);
        ended
    }

    /// Answers why the connection must not be used any more.
    async fn work(&mut self, in_flight: &mut InFlight) -> Error {
        let mut failures = 0;
        let mut probes = tick::every(PROBE_PERIOD);
        loop {
            self.show_queue();
            let missed = self.untold.due();
            tokio::select! {
                biased;
                answered = in_flight.next() => {
                    // And those that are there already, without a look at anything else.
                    let mut answered = Some(answered);
                    while let Some(next) = answered {
                        if let Err(error) = next.and_then(|next| self.judge(next, &mut failures)) {
                            return error;
                        }
                        answered = in_flight.ready();
                    }
                }
                () = time_to_probe(&mut probes, &self.probe_wanted) => {
                    let said = self.probe(in_flight).and_then(|()| self.say_list(in_flight));
                    if let Err(error) = said {
                        return error;
                    }
                }
                // Before the next message: so others hear first that something is missing, unless they heard it a moment ago.
                () = at(missed) => if let Err(error) = self.missed(in_flight) {
                    return error;
                },
                Some(waiting) = self.queue.recv(), if in_flight.has_room() => {
                    // Where the end of the node finds it, which may come while others run.
                    self.taken = Some(waiting);
                    if !in_flight.commands.is_empty() {
                        // Under load, whoever is about to publish does so first: then all go in one write.
                        tokio::task::yield_now().await;
                    }
                    while in_flight.has_room()
                        && let Some(waiting) = self.next()
                    {
                        self.publish(waiting, in_flight);
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
    async fn flush(&mut self, in_flight: &mut InFlight) {
        self.queue.close();
        let flushed = tokio::time::timeout(DEADLINE, async {
            while let Some(waiting) = self.next() {
                self.publish(waiting, in_flight);
                while !in_flight.has_room() {
                    self.settle(&in_flight.next().await?);
                }
            }
            self.drain(in_flight).await?;
            // It is the last occasion.
            if self.untold.are_there() {
                self.missed(in_flight)?;
                self.drain(in_flight).await?;
            }
            Ok::<_, Error>(())
        });
        if !flushed.await.is_ok_and(|flushed| flushed.is_ok()) {
            self.discard();
        }
    }

    /// Waits for all answers.
    async fn drain(&mut self, in_flight: &mut InFlight) -> Result<(), Error> {
        while !in_flight.commands.is_empty() {
            self.settle(&in_flight.next().await?);
        }
        Ok(())
    }

    fn publish(&mut self, waiting: Waiting, in_flight: &mut InFlight) {
        let Waiting { parcel, room } = waiting;
        self.sent += 1;
        let (channel, bytes) = self.wrapped(&parcel);
        let Ok(bytes) = bytes else {
            self.metrics.bus_errors.of(BusError::Publish).increment(1);
            return;
        };
        in_flight.push(What::Parcel, Some(room), &channel, &bytes);
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

    fn probe(&mut self, in_flight: &mut InFlight) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.probe(self.sent);
        let what = What::Probe(self.sent);
        control(in_flight, what, &self.channels.own, bytes)
    }

    /// Tells the other nodes which list of Redis this one has, and that it is there.
    fn say_list(&mut self, in_flight: &mut InFlight) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.list(self.sent, self.list);
        control(in_flight, What::List, &self.channels.everyone, bytes)
    }

    /// Tells the other nodes that messages to them are missing.
    fn missed(&mut self, in_flight: &mut InFlight) -> Result<(), Error> {
        self.sent += 1;
        let bytes = self.sender.missed(self.sent);
        let what = What::Missed(self.untold.telling());
        control(in_flight, what, &self.channels.everyone, bytes)
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
    fn on(line: Line) -> Self {
        Self {
            line,
            commands: VecDeque::new(),
            late: 0,
            deadline: Box::pin(tokio::time::sleep(DEADLINE)),
        }
    }

    fn has_room(&self) -> bool {
        self.commands.len() + self.late < IN_FLIGHT
    }

    /// From here on its place in the order is fixed; it leaves with the next wait for an answer.
    fn push(&mut self, what: What, room: Option<Room>, channel: &str, bytes: &[u8]) {
        let sent = Instant::now();
        self.line.publish(channel, bytes);
        self.commands.push_back(Command { what, sent, room });
    }

    /// Waits for the next answer, until its deadline. Fails when the connection is over; does so too while there is nothing to
    /// wait for.
    async fn next(&mut self) -> Result<Answered, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Answered, Error>> {
        while let Poll::Ready(answer) = self.line.poll_answer(context)? {
            if !self.is_late() {
                return Poll::Ready(self.take(answer));
            }
        }
        let Some(first) = self.commands.front() else {
            return Poll::Pending;
        };
        // It is moved only when it fires, and not with each answer.
        let due = first.sent + DEADLINE;
        while self.deadline.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                self.late += 1;
                return Poll::Ready(self.take(Err(timed_out("Redis did not answer in time"))));
            }
            self.deadline.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// The next answer, if it is there.
    fn ready(&mut self) -> Option<Result<Answered, Error>> {
        loop {
            let answer = self.line.answer().transpose()?;
            if answer.is_err() || !self.is_late() {
                return Some(answer.and_then(|answer| self.take(answer)));
            }
        }
    }

    /// Whether nobody waits any more for the answer that has come.
    fn is_late(&mut self) -> bool {
        let is_late = self.late > 0;
        self.late -= usize::from(is_late);
        is_late
    }

    /// What the first one has come to.
    fn take(&mut self, answer: Result<u64, Error>) -> Result<Answered, Error> {
        let Command { what, room, .. } = self.commands.pop_front().ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "Redis answers what it was not asked")
        })?;
        let result = answer.map(|receivers| {
            if let Some(room) = room {
                room.published(receivers);
            }
        });
        Ok(Answered { what, result })
    }
}

/// The time to probe: the next one, or because somebody wants to know.
async fn time_to_probe(probes: &mut Interval, wanted: &Notify) {
    tokio::select! {
        _ = probes.tick() => {}
        () = wanted.notified() => {}
    }
}

/// Publishes what is no message.
fn control(
    in_flight: &mut InFlight,
    what: What,
    channel: &str,
    bytes: Result<Vec<u8>, EnvelopeError>,
) -> Result<(), Error> {
    let bytes = bytes.map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
    in_flight.push(what, None, channel, &bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::super::wire::Wire;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_not_taken_for_that_to_another_message() {
        let (near, mut redis) = tokio::io::duplex(1_024);
        let line = Line::new(Wire::new(Box::new(near)));
        let mut in_flight = InFlight::on(line);
        in_flight.push(What::Probe(1), None, "c", b"");
        let late = in_flight.next().await.unwrap();
        assert!(
            late.result
                .is_err_and(|error| *error.kind() == ErrorKind::Timeout)
        );

        in_flight.push(What::Probe(2), None, "c", b"");
        in_flight.push(What::Probe(3), None, "c", b"");
        redis.write_all(b"-late\r\n:0\r\n:0\r\n").await.unwrap();
        for answered in [in_flight.next().await, in_flight.ready().unwrap()] {
            assert!(answered.unwrap().result.is_ok());
        }
        assert!(in_flight.ready().is_none() && in_flight.commands.is_empty());

        redis.write_all(b":0\r\n").await.unwrap();
        assert!(in_flight.next().await.is_err(), "nothing was asked");
    }
}
