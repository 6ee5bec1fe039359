//! A connection on which `PUBLISH` goes out and its answers come back, and nothing else: RESP 2, pipelined.
//!
//! Our own, for a publish passes here and nothing is to be decided: fred makes a future of 7 KB, a channel and a task's turn of
//! it. Whom it leads to, and that Redis lets us in there, fred finds out before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fred::error::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// What is read at a time: some hundred answers.
const CHUNK: usize = 2_048;

/// An answer to `PUBLISH`, or an error, is never so long.
const ANSWER: usize = 4_096;

/// Any stream: with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Answers come in the order of the commands; whoever sends them counts.
pub(super) struct Line {
    stream: Box<dyn Stream>,
    outgoing: Vec<u8>,
    /// So many of them have left.
    written: usize,
    incoming: Vec<u8>,
    /// So many of them were taken.
    taken: usize,
}

impl Line {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            outgoing: Vec::new(),
            written: 0,
            incoming: Vec::new(),
            taken: 0,
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
        self.stream
            .write_all(&std::mem::take(&mut self.outgoing))
            .await?;
        while !self.incoming.ends_with(b"\n") {
            if self.incoming.len() > ANSWER || self.stream.read_buf(&mut self.incoming).await? == 0
            {
                return Err(Error::new(ErrorKind::Auth, "Redis does not greet"));
            }
        }
        self.answer()?.transpose()?;
        Ok(())
    }

    /// Queues a message; it leaves with the next [`poll_answer`](Self::poll_answer).
    pub(super) fn publish(&mut self, channel: &str, message: &[u8]) {
        self.command([b"PUBLISH", channel.as_bytes(), message].into_iter());
    }

    /// RESP: an array of bulk strings.
    fn command<'p>(&mut self, parts: impl Iterator<Item = &'p [u8]> + Clone) {
        self.count(b'*', parts.clone().count());
        for part in parts {
            self.count(b'$', part.len());
            self.outgoing.extend_from_slice(part);
            self.outgoing.extend_from_slice(b"\r\n");
        }
    }

    fn count(&mut self, of: u8, number: usize) {
        self.outgoing.push(of);
        self.outgoing
            .extend_from_slice(number.to_string().as_bytes());
        self.outgoing.extend_from_slice(b"\r\n");
    }

    /// Writes what is queued, and waits for the next answer: how many have received the message, or why Redis refuses the
    /// command. Fails when the connection is over.
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Result<u64, Error>, Error>> {
        // What Redis does not take now is written when it does: that wakes us too.
        if let Poll::Ready(Err(error)) = self.poll_write(context) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some(answer) = self.answer()? {
                return Poll::Ready(Ok(answer));
            }
            let mut chunk = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                let closed = Error::new(ErrorKind::IO, "the connection was closed");
                return Poll::Ready(Err(closed));
            }
            self.incoming.extend_from_slice(buffer.filled());
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outgoing.len() {
            let rest = &self.outgoing[self.written..];
            let length = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += length;
        }
        self.outgoing.clear();
        self.written = 0;
        // Of TLS; nothing of TCP waits.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// The next answer, if it has come.
    pub(super) fn answer(&mut self) -> Result<Option<Result<u64, Error>>, Error> {
        let rest = &self.incoming[self.taken..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > ANSWER {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    "Redis does not end its answer",
                ));
            }
            self.incoming.drain(..self.taken);
            self.taken = 0;
            return Ok(None);
        };
        let answer = read(rest[..length].trim_ascii_end());
        self.taken += length + 1;
        answer.map(Some)
    }
}

/// An integer, an error, or `OK`.
fn read(line: &[u8]) -> Result<Result<u64, Error>, Error> {
    let text = String::from_utf8_lossy(line);
    match text.split_at_checked(1) {
        Some((":", number)) if let Ok(number) = number.parse() => Ok(Ok(number)),
        Some(("+", _)) => Ok(Ok(0)),
        Some(("-", error)) => Ok(Err(Error::new(ErrorKind::Unknown, error.to_owned()))),
        _ => Err(Error::new(
            ErrorKind::Protocol,
            "Redis answers something else",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(line: &mut Line) -> Result<Result<u64, String>, String> {
        let answer = poll_fn(|context| line.poll_answer(context)).await;
        let text = |error: Error| error.details().to_owned();
        answer.map(|answer| answer.map_err(text)).map_err(text)
    }

    #[tokio::test]
    async fn messages_leave_as_they_were_queued_and_answers_are_read_however_they_are_cut() {
        // So small that nothing passes in one piece.
        let (near, mut far) = tokio::io::duplex(5);
        let mut line = Line::new(Box::new(near));
        line.publish("c:1", b"a\r\nb");
        line.publish("c:2", b"");
        let answering = async {
            let mut heard = vec![0; 68];
            far.read_exact(&mut heard).await.unwrap();
            far.write_all(b":1\r\n-NOPERM no such channel\r\n:12\r\n")
                .await
                .unwrap();
            heard
        };
        let asking = async {
            let mut answers = Vec::new();
            for _ in 0..3 {
                answers.push(next(&mut line).await.unwrap());
            }
            answers
        };
        let (heard, answers) = tokio::join!(answering, asking);
        assert_eq!(
            String::from_utf8(heard).unwrap(),
            "*3\r\n$7\r\nPUBLISH\r\n$3\r\nc:1\r\n$4\r\na\r\nb\r\n*3\r\n$7\r\nPUBLISH\r\n$3\r\nc:2\r\n$0\r\n\r\n"
        );
        assert_eq!(
            answers,
            [Ok(1), Err("NOPERM no such channel".to_owned()), Ok(12)]
        );
        drop(far);
        assert_eq!(
            next(&mut line).await,
            Err("the connection was closed".to_owned())
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_ends_the_connection() {
        for bytes in [&b"$3\r\n"[..], b"\r\n", b":x\r\n", &[b':'; ANSWER + 1]] {
            let (near, mut far) = tokio::io::duplex(2 * ANSWER);
            far.write_all(bytes).await.unwrap();
            let mut line = Line::new(Box::new(near));
            assert!(next(&mut line).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_greeting_is_granted_or_refused() {
        for (answer, granted) in [("+OK\r\n", true), ("-WRONGPASS no\r\n", false), ("", false)] {
            let (near, mut far) = tokio::io::duplex(1_024);
            let mut line = Line::new(Box::new(near));
            let answering = async {
                let mut heard = [0; 29];
                far.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$2\r\npw\r\n");
                far.write_all(answer.as_bytes()).await.unwrap();
                drop(far);
            };
            let (greeted, ()) = tokio::join!(line.greet(&["u", "pw"]), answering);
            assert_eq!(greeted.is_ok(), granted, "{answer:?}");
        }
    }
}
