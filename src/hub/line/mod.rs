//! One TCP connection of a client: counts what the server has written to it, and can end it.
//!
//! For those that the Socket.IO library speaks for, and plain HTTP. It offers neither the length of a socket's queue nor a way to close its transport,
//! so the stream beneath it does. A WebSocket's events are counted where they leave: in the frames
//! (RFC 6455 section 5.2) that pass here on their way out, after the `101` response.

mod frames;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::account::Account;
use frames::{Frames, Written};

/// What the rest of the node knows of one connection.
#[derive(Debug, Default)]
pub struct Line {
    closed: AtomicBool,
    /// Who waits for bytes, and who for room. They are woken apart: the library reads and writes in two tasks.
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// The connection is, or is about to become, a WebSocket.
    upgraded: AtomicBool,
    /// Whose events it carries, once that is known.
    account: Mutex<Option<Arc<Account>>>,
}

impl Line {
    /// Ends the connection: its reader sees the end of the stream, so that the layers above close as
    /// if the client had gone, a WebSocket with a close frame. A write that the client leaves no room
    /// for fails, or a client that does not read would keep the connection for ever.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether it is closed; if it is not yet, the closing wakes `task`.
    fn poll_closed(&self, task: &AtomicWaker, context: &Context<'_>) -> bool {
        task.register(context.waker());
        // After that: either this sees the closing, or the closing sees who waits.
        self.is_closed()
    }

    /// A WebSocket handshake is being answered: frames follow its response.
    pub fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// From now on events written here are written for `account`.
    pub fn attach(&self, account: Arc<Account>) {
        *self.account.lock() = Some(account);
    }

    fn written(&self, written: Written) {
        if written.packets > 0
            && let Some(account) = &*self.account.lock()
        {
            account.written(written.packets, written.bytes);
        }
    }
}

/// A stream that its [`Line`] watches. `P` is what is to be held for as long as the stream lives.
pub struct Watched<S, P> {
    stream: S,
    /// What was read before, and is to be read first.
    early: Bytes,
    _place: P,
    line: Arc<Line>,
    /// The writer's, while the client leaves no room.
    deadline: Option<Pin<Box<Sleep>>>,
    frames: Frames,
    lingering: Option<Lingering>,
}

/// The end of a connection that this side closes while the client may still be sending: what comes is
/// thrown away for a while. Closing at once would reset the connection, and the client would lose the
/// answer that is on its way, such as the `413` to the body that it is still sending.
struct Lingering {
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

/// How much, and for how long.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// How long a client may leave no room for a single byte.
const WRITE: Duration = Duration::from_secs(30);

impl<S, P> Watched<S, P> {
    /// `early` is what was read from the stream before.
    pub fn new(stream: S, early: impl Into<Bytes>, line: Arc<Line>, place: P) -> Self {
        Self {
            stream,
            early: early.into(),
            _place: place,
            line,
            deadline: None,
            frames: Frames::default(),
            lingering: None,
        }
    }

    /// What the writer gets that has to wait: nothing, until the line is closed or its time is over.
    fn refuse_writer<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let line = &self.line;
        if line.poll_closed(&line.writer, context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE)));
        ready!(deadline.as_mut().poll(context));
        // The library would go on after a failed write, and never send what it held.
        line.close();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn count(&mut self, bytes: &[u8]) {
        if self.line.upgraded.load(Ordering::Acquire) {
            let written = self.frames.pass(bytes);
            self.line.written(written);
        }
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Watched<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.line.is_closed() {
            return Poll::Ready(Ok(()));
        }
        if !self.early.is_empty() {
            let now = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(now));
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() && self.line.poll_closed(&self.line.reader, context) {
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Unpin> AsyncWrite for Watched<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                self.deadline = None;
                self.count(&bytes[..written]);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.refuse_writer(context),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => self.refuse_writer(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        self.poll_linger(context).map(Ok)
    }
}

impl<S: AsyncRead + Unpin, P> Watched<S, P> {
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            left: LINGER_BYTES,
            deadline: Box::pin(tokio::time::sleep(LINGER)),
        });
        while lingering.left > 0 && !self.line.is_closed() {
            let mut bytes = [0; 4_096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.left = lingering.left.saturating_sub(buffer.filled().len());
                }
                // The client has closed too, or is gone.
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return lingering.deadline.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::frames::tests::{RESPONSE, frame};
    use super::*;

    #[tokio::test]
    async fn a_closed_line_reads_as_the_end_and_still_writes() {
        let (near, mut far) = tokio::io::duplex(64);
        let line = Arc::new(Line::default());
        let mut watched = Watched::new(near, Bytes::new(), Arc::clone(&line), ());

        far.write_all(b"unread").await.unwrap();
        line.close();

        assert_eq!(watched.read(&mut [0; 8]).await.unwrap(), 0);
        watched.write_all(b"bye").await.unwrap();
        drop(watched);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }

    #[tokio::test]
    async fn a_writer_that_waits_for_the_client_is_freed_by_the_close() {
        let (near, _far) = tokio::io::duplex(4);
        let line = Arc::new(Line::default());
        let mut watched = Watched::new(near, Bytes::new(), Arc::clone(&line), ());

        let writing = watched.write_all(b"more than fits");
        let closing = async { line.close() };
        let (written, ()) = tokio::join!(writing, closing);
        assert_eq!(
            written.unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_does_not_wait_for_ever() {
        let (near, _far) = tokio::io::duplex(4);
        let mut watched = Watched::new(near, Bytes::new(), Arc::default(), ());
        let written = watched.write_all(b"more than fits").await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_still_sends_gets_the_answer_before_the_end() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut watched = Watched::new(near, Bytes::new(), Arc::default(), ());

        let serving = async {
            watched.write_all(b"no").await.unwrap();
            watched.shutdown().await.unwrap();
            drop(watched);
        };
        let sending = async {
            // More than the pipe holds: it gets through only because it is read.
            far.write_all(&[0; 10_000]).await.unwrap();
            far.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            heard
        };
        assert_eq!(tokio::join!(serving, sending).1, b"no");
    }

    #[tokio::test]
    async fn what_is_written_is_credited_to_the_account() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let line = Arc::new(Line::default());
        let account = Arc::new(Account::default());
        let mut watched = Watched::new(near, Bytes::new(), Arc::clone(&line), ());
        line.attach(Arc::clone(&account));
        account.handed(9);

        watched
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n42")
            .await
            .unwrap();
        assert_eq!(
            account.outstanding().packets,
            1,
            "a plain response has no frames"
        );
        line.upgrade();
        watched.write_all(RESPONSE).await.unwrap();
        watched.write_all(&frame(1, b"42[\"e\",1]")).await.unwrap();

        assert_eq!(account.outstanding().packets, 0);
        drop(watched);
        far.read_to_end(&mut Vec::new()).await.unwrap();
    }
}
