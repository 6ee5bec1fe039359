//! The connection on which `PUBLISH` goes out and its answers come back, and nothing else.

use std::task::{Context, Poll, ready};

use fred::error::Error;

use super::wire::{self, Wire};

/// Answers come in the order of the commands; whoever sends them counts.
pub(super) struct Line(Wire);

impl Line {
    pub(super) fn new(wire: Wire) -> Self {
        Self(wire)
    }

    /// Queues a message; it leaves with the next [`poll_answer`](Self::poll_answer).
    pub(super) fn publish(&mut self, channel: &str, message: &[u8]) {
        self.0.command([b"PUBLISH", channel.as_bytes(), message]);
    }

    /// Writes what is queued, and waits for the next answer: how many have received the message, or why Redis refuses the
    /// command. Fails when the connection is over.
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Result<u64, Error>, Error>> {
        // Also when an answer is there already: what was queued leaves in any case.
        if let Poll::Ready(Err(error)) = self.0.poll_write(context) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some(answer) = self.answer()? {
                return Poll::Ready(Ok(answer));
            }
            ready!(self.0.poll_more(context))?;
        }
    }

    /// The next answer, if it has come.
    pub(super) fn answer(&mut self) -> Result<Option<Result<u64, Error>>, Error> {
        let Some((line, length)) = wire::line(self.0.incoming())? else {
            return Ok(None);
        };
        let answer = read(line)?;
        self.0.take(length);
        Ok(Some(answer))
    }
}

/// An integer, or an error.
fn read(line: &[u8]) -> Result<Result<u64, Error>, Error> {
    match line.split_first() {
        Some((b':', number)) => {
            let number = std::str::from_utf8(number).ok();
            let number = number.and_then(|number| number.parse().ok());
            number
                .map(Ok)
                .ok_or_else(|| wire::violation("Redis answers no number"))
        }
        Some((b'-', _)) => Ok(Err(wire::refused(line))),
        _ => Err(wire::refused(line)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Longer than any answer.
    const LONG: usize = 5_000;

    async fn next(line: &mut Line) -> Result<Result<u64, String>, String> {
        let answer = poll_fn(|context| line.poll_answer(context)).await;
        let text = |error: Error| error.details().to_owned();
        answer.map(|answer| answer.map_err(text)).map_err(text)
    }

    #[tokio::test]
    async fn messages_leave_as_they_were_queued_and_answers_are_read_however_they_are_cut() {
        // So small that nothing passes in one piece.
        let (near, mut far) = tokio::io::duplex(5);
        let mut line = Line::new(Wire::new(Box::new(near)));
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
        for bytes in [&b"$3\r\n"[..], b"\r\n", b":x\r\n", &[b':'; LONG]] {
            let (near, mut far) = tokio::io::duplex(2 * LONG);
            far.write_all(bytes).await.unwrap();
            let mut line = Line::new(Wire::new(Box::new(near)));
            assert!(next(&mut line).await.is_err(), "{bytes:?}");
        }
    }
}
