//! The client's side of a connection: takes its packets out of the stream, and sees to the end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::OwnedSemaphorePermit;

use super::frame::{self, Frame, Opcode, Violation};
use super::packet::{self, Heard, Malformed, Packet};
use super::{Connection, Outbox};
use crate::metrics::Closed;

/// What is read at a time, into the stack: an idle connection holds no buffer.
const CHUNK: usize = 4_096;

/// Namespaces that a client may ask for which there are not: more are no mistake any more.
const STRANGERS: u8 = 8;

/// How long something may still come after the end: closing a connection at once on which something is unread would reset
/// it, and the client would lose what it was told last.
const LINGER: Duration = Duration::from_secs(2);

/// Belongs to the connection's one task.
#[derive(Debug)]
pub struct Reader {
    connection: Arc<Connection>,
    stream: OwnedReadHalf,
    /// What has come and is no whole frame yet.
    bytes: Vec<u8>,
    /// What has come of a message in several frames.
    message: Option<(Opcode, Vec<u8>)>,
    /// Bytes of a message.
    limit: usize,
    /// Namespaces that it has asked for, and that there are not.
    strangers: u8,
    /// What the close frame carries that the client is sent as the connection ends; `None`: there is none.
    farewell: Option<Vec<u8>>,
    _place: OwnedSemaphorePermit,
}

/// Why nothing more is read.
enum Ended {
    /// The client has said so.
    Client,
    /// It went away without a word.
    Lost,
    Violation(Violation),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Malformed> for Ended {
    fn from(Malformed: Malformed) -> Self {
        Self::Violation(Violation::Protocol)
    }
}

impl Reader {
    pub(super) fn new(
        connection: Arc<Connection>,
        stream: OwnedReadHalf,
        early: Vec<u8>,
        limit: usize,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            connection,
            stream,
            bytes: early,
            message: None,
            limit,
            strangers: 0,
            farewell: None,
            _place: place,
        }
    }

    /// The client's next packet, or why there is none: its end, or this node's own [`Connection::close`]. Pings and what
    /// concerns only the protocol are answered here. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Result<Packet, Closed> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Packet, Closed>> {
        let connection = Arc::clone(&self.connection);
        connection.task.register(context.waker());
        loop {
            // After it was registered: either this sees the closing, or the closing wakes it.
            if let Some(reason) = connection.closed.get() {
                return Poll::Ready(Err(*reason));
            }
            match self.take() {
                Ok(Some(packet)) => return Poll::Ready(Ok(packet)),
                Ok(None) => {}
                Err(ended) => return Poll::Ready(Err(self.end(&ended))),
            }
            // What others left, and what was answered to all that has come.
            if let Poll::Ready(Err(_broken)) = connection.poll_write(context) {
                return Poll::Ready(Err(Closed::TransportError));
            }
            match ready!(self.poll_read(context)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(self.end(&Ended::Lost))),
                Ok(_) => {}
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        self.bytes.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn end(&mut self, ended: &Ended) -> Closed {
        match ended {
            Ended::Client => {
                self.farewell = Some(Vec::new());
                Closed::Client
            }
            Ended::Lost => Closed::TransportError,
            Ended::Violation(violation) => {
                self.farewell = Some(violation.code().to_be_bytes().into());
                Closed::Protocol
            }
        }
    }

    /// The next packet of what has come.
    fn take(&mut self) -> Result<Option<Packet>, Ended> {
        let begun = |message: &(_, Vec<u8>)| message.1.len();
        while !self.bytes.is_empty() {
            let room = self.limit - self.message.as_ref().map_or(0, begun);
            let Some(frame) = frame::take(&mut self.bytes, room)? else {
                return Ok(None);
            };
            let Some(message) = self.assemble(frame)? else {
                continue;
            };
            let text = String::from_utf8(message).map_err(|_bytes| Violation::NotText)?;
            if let Some(packet) = self.hear(&text)? {
                return Ok(Some(packet));
            }
        }
        // All that came was taken: an idle connection keeps no room for more.
        self.bytes = Vec::new();
        Ok(None)
    }

    /// The whole text message that ends with this frame, if one does (RFC 6455 section 5.4).
    fn assemble(&mut self, frame: Frame) -> Result<Option<Vec<u8>>, Ended> {
        let whole = match (frame.opcode, self.message.take()) {
            (Opcode::Close, _) => return Err(Ended::Client),
            (Opcode::Ping, begun) => {
                self.message = begun;
                self.connection.frame(Opcode::Pong, &frame.payload);
                return Ok(None);
            }
            (Opcode::Pong, begun) => {
                self.message = begun;
                return Ok(None);
            }
            (opcode @ (Opcode::Text | Opcode::Binary), None) => (opcode, frame.payload),
            (Opcode::Continuation, Some((opcode, mut begun))) => {
                begun.extend_from_slice(&frame.payload);
                (opcode, begun)
            }
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol.into());
            }
        };
        match whole {
            (_, _) if !frame.is_last => {
                self.message = Some(whole);
                Ok(None)
            }
            (Opcode::Text, text) => Ok(Some(text)),
            // An attachment, which was not announced.
            _ => Err(Violation::Protocol.into()),
        }
    }

    fn hear(&mut self, message: &str) -> Result<Option<Packet>, Ended> {
        match packet::read(message)? {
            Heard::Packet(packet) => return Ok(Some(packet)),
            Heard::Pong => drop(self.connection.pongs.fetch_add(1, Ordering::Relaxed)),
            Heard::Close => return Err(Ended::Client),
            Heard::Stranger(namespace) => {
                self.strangers += 1;
                if self.strangers > STRANGERS {
                    return Err(Violation::Protocol.into());
                }
                let refused = packet::refused(Some(namespace), "Invalid namespace");
                self.connection.text(&refused);
            }
            Heard::Nothing => {}
        }
        Ok(None)
    }

    /// Ends the connection: what is still to be written leaves, and what still comes is thrown away, for a moment.
    ///
    /// A client that has closed it, or broken the protocol, is sent a close frame (RFC 6455 section 7.1). One whose connection
    /// this node ends is not: the official Java client would wait for more, and not notice the end.
    pub async fn finish(mut self) {
        if let Some(farewell) = self.farewell.take() {
            self.connection.frame(Opcode::Close, &farewell);
        }
        let leaving = async {
            // A client that is gone already does not hear it.
            let _broken = poll_fn(|context| self.connection.poll_write(context)).await;
            self.connection.outbox.lock().end();
            poll_fn(|context| self.poll_silence(context)).await;
        };
        // Late: the client does not read, or does not stop.
        let _late = tokio::time::timeout(LINGER, leaving).await;
        self.connection.outbox.lock().end();
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while ready!(self.poll_read(context)).is_ok_and(|length| length > 0) {
            self.bytes.clear();
        }
        Poll::Ready(())
    }
}

impl Drop for Reader {
    /// However it ends: nobody is to wait for what will not be written.
    fn drop(&mut self) {
        Outbox::end(&mut self.connection.outbox.lock());
        self.connection.account.end();
    }
}
