//! One direction of a connection: reads, holds as long as the mode says, writes.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Class, Direction, Mode, Modes};
use crate::random::Random;

const CHUNK: usize = 16 * 1024;
/// Chunks under way while they are delayed.
const UNDER_WAY: usize = 16;
/// A throttled connection gets its share so often.
const SHARE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The reader's side has said all, and the writer's side was told.
    Finished,
    /// It broke, or was made to.
    Reset,
}

impl End {
    /// How a connection ends of which one direction ended so: with the other, unless it broke.
    pub(super) async fn and(self, other: impl Future<Output = Self>) -> Self {
        match self {
            Self::Finished => other.await,
            Self::Reset => Self::Reset,
        }
    }
}

#[derive(Clone)]
pub(super) struct Flow {
    pub(super) direction: Direction,
    pub(super) modes: watch::Receiver<Modes>,
    pub(super) class: watch::Receiver<Class>,
    pub(super) random: Random,
}

impl Flow {
    pub(super) async fn run(
        self,
        from: &OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        classify: Option<&watch::Sender<Class>>,
    ) -> End {
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        let reading = self.clone().read(from, sender, classify);
        let writing = self.write(to, receiver);
        match tokio::try_join!(reading, writing) {
            Ok(_) => End::Finished,
            Err(_broken) => End::Reset,
        }
    }

    fn mode(&self) -> Mode {
        self.modes.borrow().of(*self.class.borrow())
    }

    async fn read(
        mut self,
        from: &OwnedReadHalf,
        to: mpsc::Sender<(Instant, Vec<u8>)>,
        classify: Option<&watch::Sender<Class>>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; CHUNK];
        loop {
            from.readable().await?;
            let read = match from.try_read(&mut bytes) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let chunk = bytes.get(..read).unwrap_or_default();
            if let (Some(class), Some(found)) = (classify, class_of(chunk)) {
                class.send_if_modified(|class| {
                    let changes = *class == Class::Any;
                    if changes {
                        *class = found;
                    }
                    changes
                });
            }
            let due = Instant::now() + self.delay();
            // Its end, too, takes its time.
            if to.send((due, chunk.to_vec())).await.is_err() || read == 0 {
                return Ok(());
            }
        }
    }

    fn delay(&mut self) -> Duration {
        let Mode::Delay { delay, jitter } = self.mode() else {
            return Duration::ZERO;
        };
        let micros = u64::try_from(jitter.as_micros()).unwrap_or_default();
        delay + Duration::from_micros(self.random.between(0, micros + 1))
    }

    async fn write(
        mut self,
        to: &mut OwnedWriteHalf,
        mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) -> io::Result<()> {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            self.passes().await?;
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            match self.mode() {
                Mode::Throttle { bytes_per_second } => {
                    trickle(to, &chunk, bytes_per_second).await?;
                }
                Mode::Cut(direction) if direction == self.direction => {
                    let part = chunk.get(..chunk.len().div_ceil(2)).unwrap_or_default();
                    write_all(to, part).await?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Mode::Pass
                | Mode::Blackhole
                | Mode::HalfOpen(_)
                | Mode::Delay { .. }
                | Mode::Reset
                | Mode::Cut(_) => write_all(to, &chunk).await?,
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Waits while nothing gets through in this direction.
    async fn passes(&mut self) -> io::Result<()> {
        let (direction, class) = (self.direction, *self.class.borrow());
        let is_open = |modes: &Modes| match modes.of(class) {
            Mode::Blackhole => false,
            Mode::HalfOpen(closed) => closed != direction,
            Mode::Pass
            | Mode::Delay { .. }
            | Mode::Throttle { .. }
            | Mode::Reset
            | Mode::Cut(_) => true,
        };
        let open = self.modes.wait_for(is_open).await;
        open.map(drop).map_err(io::Error::other)
    }
}

fn class_of(chunk: &[u8]) -> Option<Class> {
    let says = |word: &[u8]| {
        chunk
            .windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    };
    match (says(b"SUBSCRIBE"), says(b"PUBLISH")) {
        (true, _) => Some(Class::Subscriber),
        (false, true) => Some(Class::Publisher),
        (false, false) => None,
    }
}

async fn trickle(to: &mut OwnedWriteHalf, chunk: &[u8], bytes_per_second: u32) -> io::Result<()> {
    let share = usize::try_from(bytes_per_second / 20).unwrap_or(1).max(1);
    for part in chunk.chunks(share) {
        write_all(to, part).await?;
        tokio::time::sleep(SHARE).await;
    }
    Ok(())
}

async fn write_all(to: &mut OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
