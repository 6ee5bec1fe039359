//! The connection on which messages come in: `(UN)SUBSCRIBE` goes out, and the `PING` that proves it carried out.

use std::task::{Context, Poll};

use fred::error::Error;

use super::wire::{self, Wire};

/// No message of ours is so long: the API takes 256 KiB at most.
const TOO_LONG: usize = 2 * 1_024 * 1_024;

/// Redis carries commands out in the order in which they came, and answers in it.
pub(super) struct Listener {
    wire: Wire,
    /// So many bytes were heard; of what is not wanted, they may be more than have come.
    taken: usize,
}

/// What Redis says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'l> {
    /// One that is [`TOO_LONG`] comes without its bytes.
    Message { channel: &'l [u8], bytes: &'l [u8] },
    /// The barrier of this number: what was asked for before it is done, or [refused](Heard::Refused).
    Barrier(u64),
    /// What was asked for is not done.
    Refused(Error),
}

impl Listener {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, taken: 0 }
    }

    /// Queues the commands, and a barrier behind them; they leave with the next [`poll_more`](Self::poll_more).
    pub(super) fn change(&mut self, subscribe: &[String], unsubscribe: &[String], barrier: u64) {
        for (command, channels) in [("SUBSCRIBE", subscribe), ("UNSUBSCRIBE", unsubscribe)] {
            if !channels.is_empty() {
                let channels = channels.iter().map(String::as_bytes);
                let command = std::iter::once(command.as_bytes());
                self.wire.command(command.chain(channels));
            }
        }
        self.wire.command([b"PING", barrier.to_string().as_bytes()]);
    }

    /// Writes what is queued, and waits until more has come. Fails when the connection is over.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let here = self.taken.min(self.wire.incoming().len());
        self.wire.take(here);
        self.taken -= here;
        self.wire.poll_more(context)
    }

    /// The next of what has come, if it is whole. Fails when it is not what Redis says.
    pub(super) fn heard(&mut self) -> Result<Option<Heard<'_>>, Error> {
        while let Some(rest) = self.wire.incoming().get(self.taken..) {
            let mut reader = Reader { rest, skipped: 0 };
            match reader.heard() {
                Ok(heard) => {
                    let taken = self.taken + rest.len() - reader.rest.len();
                    self.taken = taken.saturating_add(reader.skipped);
                    if heard.is_some() {
                        return Ok(heard);
                    }
                }
                Err(Stop::Cut) => break,
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Reads one thing that Redis says, from its beginning.
struct Reader<'b> {
    rest: &'b [u8],
    /// So many bytes behind the rest belong to it too.
    skipped: usize,
}

/// Why there is nothing.
enum Stop {
    /// More of it has to come.
    Cut,
    Failed(Error),
}

impl<'b> Reader<'b> {
    /// `None` is a word that needs no ear: that one of the channels is subscribed.
    fn heard(&mut self) -> Result<Option<Heard<'b>>, Stop> {
        let first = self.line()?;
        if first.starts_with(b"-") {
            return Ok(Some(Heard::Refused(wire::refused(first))));
        }
        if !first.starts_with(b"*") {
            return Err(foreign());
        }
        match (first, self.bulk()?) {
            (b"*3", b"message") => {
                let channel = self.bulk()?;
                let bytes = self.bytes()?;
                Ok(Some(Heard::Message { channel, bytes }))
            }
            (b"*3", b"subscribe" | b"unsubscribe") => {
                let _channel = self.bulk()?;
                let _subscribed = self.line()?;
                Ok(None)
            }
            (b"*2", b"pong") => {
                let number = number(self.bulk()?).ok_or_else(foreign)?;
                Ok(Some(Heard::Barrier(number)))
            }
            _ => Err(foreign()),
        }
    }

    fn line(&mut self) -> Result<&'b [u8], Stop> {
        match wire::line(self.rest) {
            Ok(Some((line, length))) => {
                self.rest = &self.rest[length..];
                Ok(line)
            }
            Ok(None) => Err(Stop::Cut),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// The last bulk string of what is read, which may be [`TOO_LONG`].
    fn bytes(&mut self) -> Result<&'b [u8], Stop> {
        let before = self.rest;
        let length = self.length()?;
        if length <= TOO_LONG {
            self.rest = before;
            return self.bulk();
        }
        let whole = length.saturating_add(2);
        let here = whole.min(self.rest.len());
        self.rest = &self.rest[here..];
        self.skipped = whole - here;
        Ok(b"")
    }

    fn bulk(&mut self) -> Result<&'b [u8], Stop> {
        let length = self.length()?;
        if length > TOO_LONG {
            return Err(foreign());
        }
        let (Some(bulk), Some(rest)) = (self.rest.get(..length), self.rest.get(length + 2..))
        else {
            return Err(Stop::Cut);
        };
        self.rest = rest;
        Ok(bulk)
    }

    fn length(&mut self) -> Result<usize, Stop> {
        let length = self.line()?.strip_prefix(b"$").and_then(number);
        let length = length.and_then(|length| usize::try_from(length).ok());
        length.ok_or_else(foreign)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn foreign() -> Stop {
    Stop::Failed(wire::violation("Redis says something else"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use fred::error::ErrorKind;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// All that comes until the connection is over, and why it is.
    async fn all(listener: &mut Listener) -> (Vec<String>, Error) {
        let mut all = Vec::new();
        loop {
            if let Err(error) = poll_fn(|context| listener.poll_more(context)).await {
                return (all, error);
            }
            assert!(listener.wire.incoming().len() < 100_000);
            loop {
                match listener.heard() {
                    Ok(Some(Heard::Message { channel, bytes })) => {
                        let [channel, bytes] = [channel, bytes].map(String::from_utf8_lossy);
                        all.push(format!("{channel}: {bytes}"));
                    }
                    Ok(Some(Heard::Barrier(number))) => all.push(number.to_string()),
                    Ok(Some(Heard::Refused(error))) => all.push(error.details().to_owned()),
                    Ok(None) => break,
                    Err(error) => return (all, error),
                }
            }
        }
    }

    /// Says it all, and closes.
    async fn told(said: &[u8], room: usize) -> (Vec<String>, Error) {
        let (near, mut far) = tokio::io::duplex(room);
        let mut listener = Listener::new(Wire::new(Box::new(near)));
        let telling = async {
            // It may have heard enough before.
            let _told = far.write_all(said).await;
            drop(far);
        };
        tokio::join!(all(&mut listener), telling).0
    }

    #[tokio::test]
    async fn channels_are_asked_for_with_a_barrier_behind_them() {
        let (near, mut far) = tokio::io::duplex(7);
        let mut listener = Listener::new(Wire::new(Box::new(near)));
        listener.change(&["p:a".to_owned(), "p:b".to_owned()], &[], 1);
        listener.change(&[], &["p:a".to_owned()], 2);
        let expected = "*3\r\n$9\r\nSUBSCRIBE\r\n$3\r\np:a\r\n$3\r\np:b\r\n*2\r\n$4\r\nPING\r\n$1\r\n1\r\n\
            *2\r\n$11\r\nUNSUBSCRIBE\r\n$3\r\np:a\r\n*2\r\n$4\r\nPING\r\n$1\r\n2\r\n";
        let redis = async {
            let mut asked = vec![0; expected.len()];
            far.read_exact(&mut asked).await.unwrap();
            drop(far);
            asked
        };
        let (_, asked) = tokio::join!(all(&mut listener), redis);
        assert_eq!(String::from_utf8(asked).unwrap(), expected);
    }

    const SAID: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$3\r\np:a\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$6\r\nhi\r\nho\r\n\
        *2\r\n$4\r\npong\r\n$2\r\n12\r\n-NOPERM no\r\n*3\r\n$11\r\nunsubscribe\r\n$3\r\np:a\r\n:0\r\n\
        *3\r\n$7\r\nmessage\r\n$0\r\n\r\n$0\r\n\r\n";

    proptest! {
        #[test]
        fn what_redis_says_is_heard_however_it_is_cut(room in 1..SAID.len()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (heard, end) = runtime.block_on(told(SAID, room));
            prop_assert_eq!(heard, ["p:a: hi\r\nho", "12", "NOPERM no", ": "]);
            prop_assert_eq!(end.kind(), &ErrorKind::IO);
        }

        #[test]
        fn nothing_that_comes_makes_it_fail_otherwise(said in "([*$:+-][0-9]{0,3}\r\n|message|pong|\r\n|.){0,20}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, end) = runtime.block_on(told(said.as_bytes(), 64));
            prop_assert!(matches!(end.kind(), ErrorKind::IO | ErrorKind::Protocol));
        }
    }

    #[tokio::test]
    async fn what_redis_does_not_say_ends_the_connection() {
        for said in [
            "+PONG\r\n",
            "$1\r\n1\r\n",
            "*3\r\n$8\r\npmessage\r\n",
            "*2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
            "*2\r\n$4\r\npong\r\n$1\r\na\r\n",
            "*3\r\n$7\r\nmessage\r\n$-1\r\n",
            "*3\r\n$7\r\nmessage\r\n$3000000\r\n",
        ] {
            let (heard, end) = told(said.as_bytes(), 64).await;
            assert_eq!(
                (heard.len(), end.kind()),
                (0, &ErrorKind::Protocol),
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_kept_and_what_comes_behind_it_is_heard() {
        let mut said =
            format!("*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n${}\r\n", TOO_LONG + 1).into_bytes();
        said.resize(said.len() + TOO_LONG + 1, b'x');
        said.extend_from_slice(b"\r\n");
        said.extend_from_slice(SAID);
        let (heard, _) = told(&said, 50_000).await;
        assert_eq!(heard, ["p:a: ", "p:a: hi\r\nho", "12", "NOPERM no", ": "]);
    }
}
