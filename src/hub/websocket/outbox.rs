//! What is to be written to one client: whole frames, in the order in which they were handed over.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::frame::{Opcode, write_header};
use crate::event::Event;

/// Frames that wait at most. Changes are held back long before, by the account: beyond it only answers can fill it up, of
/// a client that asks for more of them than it reads.
const FRAMES: usize = 1_024;

/// Bytes that have left are kept until there are so many of them.
const COMPACT: usize = 64 * 1_024;

/// Places for frames that are kept when none waits.
const IDLE_FRAMES: usize = 8;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// There is no room, nor will there be: the client does not read.
    Full,
    /// The connection is over.
    Ended,
}

/// Events that have left, and the bytes of their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Empty most of the time, and small then.
#[derive(Debug)]
pub(super) struct Outbox {
    /// `None`: the connection is over, at least in this direction.
    stream: Option<OwnedWriteHalf>,
    bytes: Vec<u8>,
    /// So many of them have left.
    written: usize,
    frames: VecDeque<Waiting>,
    /// Since when the client has left no room for a single byte.
    blocked: Option<Instant>,
    /// A close frame is the last that is sent (RFC 6455 section 5.5.1).
    closing: bool,
}

/// A frame that has not wholly left.
#[derive(Debug)]
struct Waiting {
    /// Where it ends in the bytes.
    end: usize,
    /// Of an event, the length of its packet.
    event: Option<usize>,
}

impl Outbox {
    /// `bytes` go out first.
    pub(super) fn new(stream: OwnedWriteHalf, bytes: Vec<u8>) -> Self {
        Self {
            stream: Some(stream),
            bytes,
            written: 0,
            frames: VecDeque::new(),
            blocked: None,
            closing: false,
        }
    }

    pub(super) fn event(&mut self, event: &Event) -> Pushed {
        let length = event.packet_length();
        self.push(Opcode::Text, length, Some(length), |bytes| {
            event.write_packet(bytes);
        })
    }

    pub(super) fn frame(&mut self, opcode: Opcode, payload: &[u8]) -> Pushed {
        self.push(opcode, payload.len(), None, |bytes| {
            bytes.extend_from_slice(payload);
        })
    }

    fn push(
        &mut self,
        opcode: Opcode,
        length: usize,
        event: Option<usize>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        if self.stream.is_none() || self.closing {
            return Pushed::Ended;
        }
        self.closing = opcode == Opcode::Close;
        if self.frames.len() >= FRAMES {
            return Pushed::Full;
        }
        self.bytes.reserve(length + 10);
        write_header(&mut self.bytes, opcode, length);
        write(&mut self.bytes);
        let end = self.bytes.len();
        self.frames.push_back(Waiting { end, event });
        Pushed::Taken
    }

    /// Writes as much as the kernel takes. Answers whether that is all; an error ends the connection.
    pub(super) fn write(&mut self, written: &mut Written) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            let stream = self.stream.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
            match stream.try_write(&self.bytes[self.written..]) {
                Ok(length) if length > 0 => self.took(length, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Ok(_) => return self.fail(io::ErrorKind::WriteZero.into()),
                Err(error) => return self.fail(error),
            }
        }
        Ok(true)
    }

    /// The same until all has left.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        written: &mut Written,
    ) -> Poll<io::Result<()>> {
        while !self.write(written)? {
            let stream = self.stream.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
            ready!(stream.as_ref().poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, length: usize, written: &mut Written) {
        self.blocked = None;
        self.written += length;
        while let Some(frame) = self.frames.front()
            && frame.end <= self.written
        {
            if let Some(bytes) = frame.event {
                written.packets += 1;
                written.bytes += bytes as u64;
            }
            self.frames.pop_front();
        }
        if self.written == self.bytes.len() {
            self.bytes = Vec::new();
            self.written = 0;
            self.frames.shrink_to(IDLE_FRAMES);
        } else if self.written >= COMPACT {
            self.bytes.drain(..self.written);
            self.frames
                .iter_mut()
                .for_each(|frame| frame.end -= self.written);
            self.written = 0;
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Result<bool> {
        self.end();
        Err(error)
    }

    /// Whether the client has left no room for so long.
    pub(super) fn is_blocked_for(&self, time: Duration) -> bool {
        self.blocked.is_some_and(|since| since.elapsed() >= time)
    }

    /// Whether it takes nothing any more.
    pub(super) fn has_ended(&self) -> bool {
        self.stream.is_none() || self.closing
    }

    /// Takes nothing any more, forgets what has not left, and tells the client's side that nothing follows.
    pub(super) fn end(&mut self) {
        self.stream = None;
        self.bytes = Vec::new();
        self.written = 0;
        self.frames = VecDeque::new();
    }
}
