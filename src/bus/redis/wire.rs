//! What both of our connections to Redis stand on: commands go out pipelined, bytes come in as they arrive. RESP 2.
//!
//! Our own, for every message passes here and nothing is to be decided: fred makes a future of 7 KB, a channel and a task's
//! turn of a command, and a tree of values, a broadcast and another task's turn of a message. Whom it leads to, and that
//! Redis lets us in there, fred finds out before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use fred::error::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::poll_read_buf;

/// What is read at a time, at least: some hundred messages or answers.
const CHUNK: usize = 16_384;

/// A line of the protocol is never so long.
const LINE: usize = 4_096;

/// Any stream: with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection; dropping it closes it, and forgets whatever was still to be sent on it.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    outgoing: BytesMut,
    incoming: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            outgoing: BytesMut::new(),
            incoming: BytesMut::new(),
        }
    }

    /// Says who we are. Bounded by the caller.
    pub(super) async fn greet(&mut self, credentials: &[&str]) -> Result<(), Error> {
        self.command(
            ["AUTH"]
                .iter()
                .chain(credentials)
                .map(|part| part.as_bytes()),
        );
        self.stream.write_all_buf(&mut self.outgoing).await?;
        loop {
            if let Some((answer, length)) = line(&self.incoming)? {
                let greeted = match answer {
                    b"+OK" => Ok(()),
                    refusal => Err(refused(refusal)),
                };
                self.take(length);
                return greeted;
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(closed());
            }
        }
    }

    /// Queues a command, an array of bulk strings; it leaves with the next [`poll_write`](Self::poll_write).
    pub(super) fn command<'p>(
        &mut self,
        parts: impl IntoIterator<Item = &'p [u8], IntoIter: Clone>,
    ) {
        let parts = parts.into_iter();
        self.count(b'*', parts.clone().count());
        for part in parts {
            self.count(b'$', part.len());
            self.outgoing.extend_from_slice(part);
            self.outgoing.extend_from_slice(b"\r\n");
        }
    }

    fn count(&mut self, of: u8, number: usize) {
        self.outgoing.put_u8(of);
        self.outgoing
            .extend_from_slice(number.to_string().as_bytes());
        self.outgoing.extend_from_slice(b"\r\n");
    }

    /// Writes what is queued, as much of it as Redis takes now; that it takes more wakes too.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.has_remaining() {
            let stream = Pin::new(&mut self.stream);
            let length = ready!(stream.poll_write(context, &self.outgoing))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // What has left makes room for what is queued next, also while something always waits.
            self.outgoing.advance(length);
        }
        // Of TLS; nothing of TCP waits.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Waits for more than there is; writes, too. Fails when the connection is over.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Poll::Ready(Err(error)) = self.poll_write(context) {
            return Poll::Ready(Err(error.into()));
        }
        self.incoming.reserve(CHUNK);
        let stream = Pin::new(&mut self.stream);
        match ready!(poll_read_buf(stream, context, &mut self.incoming))? {
            0 => Poll::Ready(Err(closed())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// What has come and was not taken.
    pub(super) fn incoming(&self) -> &[u8] {
        &self.incoming
    }

    /// Takes so many bytes, of those that have come.
    pub(super) fn take(&mut self, length: usize) {
        self.incoming.advance(length);
    }
}

/// The first line, without its end, and its length with it; nothing before it is whole.
pub(super) fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Error> {
    match bytes.iter().take(LINE).position(|byte| *byte == b'\n') {
        Some(length) => Ok(Some((bytes[..length].trim_ascii_end(), length + 1))),
        None if bytes.len() < LINE => Ok(None),
        None => Err(violation("Redis does not end its line")),
    }
}

/// What Redis says instead of an answer.
pub(super) fn refused(line: &[u8]) -> Error {
    match line.split_first() {
        Some((b'-', error)) => Error::new(
            ErrorKind::Unknown,
            String::from_utf8_lossy(error).into_owned(),
        ),
        _ => violation("Redis answers something else"),
    }
}

/// Whoever speaks there does not keep to the protocol.
pub(super) fn violation(what: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

fn closed() -> Error {
    Error::new(ErrorKind::IO, "the connection was closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_is_granted_or_refused() {
        for (answer, granted) in [("+OK\r\n", true), ("-WRONGPASS no\r\n", false), ("", false)] {
            let (near, mut far) = tokio::io::duplex(1_024);
            let mut wire = Wire::new(Box::new(near));
            let answering = async {
                let mut heard = [0; 29];
                far.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$2\r\npw\r\n");
                far.write_all(answer.as_bytes()).await.unwrap();
                drop(far);
            };
            let (greeted, ()) = tokio::join!(wire.greet(&["u", "pw"]), answering);
            assert_eq!(greeted.is_ok(), granted, "{answer:?}");
        }
    }

    #[test]
    fn a_line_ends_or_is_waited_for_but_not_for_ever() {
        assert_eq!(line(b":12\r\n+").unwrap(), Some((&b":12"[..], 5)));
        assert_eq!(line(b":12\r").unwrap(), None);
        assert!(line(&[b':'; LINE]).is_err());
    }
}
