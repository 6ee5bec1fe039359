//! One connection through the proxy, from accept to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::flow::{End, Flow};
use super::{Class, Direction, Mode, Modes};
use crate::random::Random;

/// Small, so that a peer that does not read is felt soon.
pub(super) const BUFFER: u32 = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    pub(super) near: TcpStream,
    pub(super) target: SocketAddr,
    pub(super) modes: watch::Receiver<Modes>,
    pub(super) seed: u64,
    pub(super) open: Arc<AtomicUsize>,
}

/// Counts a connection while it is there.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connection {
    pub(super) async fn run(mut self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let _open = Open(Arc::clone(&self.open));
        // A client of a vanished host waits; one of a resetting host is told.
        let passes = |modes: &Modes| modes.any != Mode::Blackhole;
        if self.modes.wait_for(passes).await.is_err() {
            return;
        }
        if self.modes.borrow().any == Mode::Reset {
            return reset(&self.near);
        }
        match self.far().await {
            Ok(far) => self.pump(far).await,
            Err(_refused) => reset(&self.near),
        }
    }

    async fn far(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER)?;
        let far = tokio::time::timeout(CONNECT, socket.connect(self.target)).await??;
        far.set_nodelay(true)?;
        self.near.set_nodelay(true)?;
        Ok(far)
    }

    async fn pump(self, far: TcpStream) {
        let Self {
            near, modes, seed, ..
        } = self;
        let (class, classes) = watch::channel(Class::Any);
        let random = Random::new(seed);
        let flow = |direction, part| Flow {
            direction,
            modes: modes.clone(),
            class: classes.clone(),
            random: random.fork(part),
        };
        let (there, back) = (flow(Direction::ToServer, 1), flow(Direction::ToClient, 2));
        let (near_in, mut near_out) = near.into_split();
        let (far_in, mut far_out) = far.into_split();

        let both = async {
            let there = there.run(&near_in, &mut far_out, Some(&class));
            let back = back.run(&far_in, &mut near_out, None);
            tokio::pin!(there, back);
            // One side may have finished while the other still has something to say.
            tokio::select! {
                end = &mut there => end.and(back).await,
                end = &mut back => end.and(there).await,
            }
        };
        let mut resetting = modes.clone();
        let told = async {
            let is_reset = |modes: &Modes| modes.of(*classes.borrow()) == Mode::Reset;
            // An error: the proxy is gone, and so is the connection.
            let _gone = resetting.wait_for(is_reset).await.map(drop);
        };
        let end = tokio::select! {
            end = both => end,
            () = told => End::Reset,
        };
        if let (Ok(near), Ok(far)) = (near_in.reunite(near_out), far_in.reunite(far_out))
            && end == End::Reset
        {
            reset(&near);
            reset(&far);
        }
    }
}

/// The connection ends with an RST when it is dropped.
fn reset(stream: &TcpStream) {
    // A connection that has ended already cannot be told.
    let _ended = stream.set_zero_linger();
}
