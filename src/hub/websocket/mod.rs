//! A client's connection that was a WebSocket from the start: Socket.IO in Engine.IO in RFC 6455, holding nothing while idle
//! that it does not need.
//!
//! It has one task, which reads it with a [`Reader`]. Whoever has something for the client writes it, without that task: what
//! the kernel does not take at once waits in the outbox, and the task sees to it. Pings go out by the [`Heart`], one task for
//! all connections.

mod frame;
mod heart;
mod outbox;
mod packet;
mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::account::Account;
use crate::event::Event;
use crate::metrics::Closed;
use frame::Opcode;
use outbox::{Outbox, Written};

pub use heart::Heart;
pub use outbox::Pushed;
pub use packet::Packet;
pub use reader::Reader;

/// What clients are told of a session, and held to.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Between two pings.
    pub ping_interval: Duration,
    /// How long an answer to a ping may take.
    pub ping_timeout: Duration,
    /// Bytes of a message.
    pub limit: usize,
}

/// The way to the client, for everybody but its [`Reader`].
#[derive(Debug)]
pub struct Connection {
    id: Id,
    account: Account,
    outbox: Mutex<Outbox>,
    /// The reader's, which also writes what others left.
    task: AtomicWaker,
    /// Why this node ends it.
    closed: OnceLock<Closed>,
    heart: Arc<Heart>,
    /// Pings, so far.
    pings: AtomicU32,
    /// Answers to them.
    pongs: AtomicU32,
}

/// What the client knows its session by: 96 random bits. Nothing is granted by it.
#[derive(Clone, Copy, Debug)]
pub struct Id([u8; 12]);

impl std::fmt::Display for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Connection {
    /// A session on `stream`, of which `early` was read already. `answer` to its handshake leaves together with what the
    /// client has to know first. `heart` pings it. `place` is held as long as the stream.
    pub fn open(
        stream: TcpStream,
        early: Vec<u8>,
        answer: Vec<u8>,
        heart: &Arc<Heart>,
        place: OwnedSemaphorePermit,
    ) -> (Arc<Self>, Reader) {
        let (incoming, outgoing) = stream.into_split();
        let connection = Arc::new(Self {
            id: Id(rand::random()),
            account: Account::default(),
            outbox: Mutex::new(Outbox::new(outgoing, answer)),
            task: AtomicWaker::new(),
            closed: OnceLock::new(),
            heart: Arc::clone(heart),
            pings: AtomicU32::new(0),
            pongs: AtomicU32::new(0),
        });
        let terms = heart.terms();
        let open = packet::open(
            &connection.id.to_string(),
            terms.ping_interval.as_millis(),
            terms.ping_timeout.as_millis(),
            terms.limit,
        );
        connection.text(&open);
        connection.flush();
        heart.next(&connection, 0);
        let reader = Reader::new(Arc::clone(&connection), incoming, early, terms.limit, place);
        (connection, reader)
    }

    /// What the client knows the session by.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// Of its events.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Hands an event over; it leaves with the next [`flush`](Self::flush).
    pub fn event(&self, event: &Event) -> Pushed {
        // Before it can be written.
        self.account.handed(event.packet_length() as u64);
        let pushed = self.outbox.lock().event(event);
        if pushed != Pushed::Taken {
            self.account.written(1, event.packet_length() as u64);
        }
        pushed
    }

    /// The client's CONNECT is granted.
    pub fn welcome(&self) {
        self.text(&packet::connected(&self.id.to_string()));
        self.flush();
    }

    /// The client's CONNECT is refused, and why.
    pub fn refuse(&self, message: &str) {
        self.text(&packet::refused(None, message));
        self.flush();
    }

    /// Answers the event whose ack has this number.
    pub fn ack(&self, number: u64, answer: &Value) {
        self.text(&packet::ack(number, answer));
        self.flush();
    }

    /// Writes what was handed over: as much as the kernel takes here and now, the rest by the connection's own task.
    pub fn flush(&self) {
        if !self.write().unwrap_or(false) {
            self.task.wake();
        }
    }

    /// Has the connection's own task write it: for whoever has something for very many.
    pub fn flush_soon(&self) {
        self.task.wake();
    }

    /// Ends the connection: what was handed over still leaves, if the client reads it soon.
    pub fn close(&self, reason: Closed) {
        self.closed.get_or_init(|| reason);
        self.task.wake();
    }

    /// Nobody hears any more what is sent here.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.closed.get().is_some() || self.outbox.lock().has_ended()
    }

    /// Has a ping leave with the next [`flush`](Self::flush); an interval later, the next one follows.
    ///
    /// Earlier than it is due when something else is written anyway: one write and one waking of the client for both.
    pub fn ping(self: &Arc<Self>) {
        let answers = self.pongs.load(Ordering::Relaxed);
        self.text(packet::PING);
        let pings = self.pings.fetch_add(1, Ordering::Relaxed) + 1;
        self.heart.check(self, answers);
        self.heart.next(self, pings);
    }

    fn text(&self, packet: &str) {
        self.frame(Opcode::Text, packet.as_bytes());
    }

    fn frame(&self, opcode: Opcode, payload: &[u8]) {
        if self.outbox.lock().frame(opcode, payload) == Pushed::Full {
            self.close(Closed::SlowConsumer);
        }
    }

    fn write(&self) -> io::Result<bool> {
        let mut written = Written::default();
        let all = self.outbox.lock().write(&mut written);
        self.credit(written);
        if all.is_err() {
            self.close(Closed::TransportError);
        }
        all
    }

    fn poll_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = Written::default();
        let all = self.outbox.lock().poll_write(context, &mut written);
        self.credit(written);
        all
    }

    fn credit(&self, written: Written) {
        if written.packets > 0 {
            self.account.written(written.packets, written.bytes);
        }
    }
}
