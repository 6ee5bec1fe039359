//! A TCP proxy that can be as bad as a network: silent, one-way, slow, thin, or cut; switched while connections run.

mod flow;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::tasks::Task;

/// What the proxy does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Accepts, and forwards nothing in either direction; what came meanwhile, ends too, comes through afterwards.
    Blackhole,
    /// Forwards nothing in this direction.
    HalfOpen(Direction),
    /// Everything takes this long, and up to `jitter` more; the order stays.
    Delay {
        delay: Duration,
        jitter: Duration,
    },
    /// At most so many bytes a second in each direction.
    Throttle {
        bytes_per_second: u32,
    },
    /// Connections are reset (RST), new ones too.
    Reset,
    /// The next bytes in this direction come through in part, then the connection is reset.
    Cut(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Which connections: those to Redis are told apart by what they say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Any,
    /// Has sent SUBSCRIBE.
    Subscriber,
    /// Has sent PUBLISH.
    Publisher,
}

/// The modes at a time, by class; a connection that is of no class yet has the first.
#[derive(Clone, Copy, Debug)]
struct Modes {
    any: Mode,
    subscriber: Mode,
    publisher: Mode,
}

impl Modes {
    fn of(&self, class: Class) -> Mode {
        match class {
            Class::Any => self.any,
            Class::Subscriber => self.subscriber,
            Class::Publisher => self.publisher,
        }
    }
}

pub struct Proxy {
    address: SocketAddr,
    modes: watch::Sender<Modes>,
    connections: Arc<AtomicUsize>,
    _accepting: Task,
}

impl Proxy {
    /// Stands before `target`, which need not be there yet, as long as the runtime that this is called in lasts. Chance comes from `seed`.
    pub fn before(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        // What it accepts inherits it.
        socket.set_send_buffer_size(wire::BUFFER)?;
        let listener = socket.listen(1_024)?;
        let address = listener.local_addr()?;
        let pass = Modes {
            any: Mode::Pass,
            subscriber: Mode::Pass,
            publisher: Mode::Pass,
        };
        let (modes, watching) = watch::channel(pass);
        let connections = Arc::new(AtomicUsize::new(0));
        let accepting = Task::start(accept(
            listener,
            target,
            watching,
            seed,
            Arc::clone(&connections),
        ));
        Ok(Self {
            address,
            modes,
            connections,
            _accepting: accepting,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Switches existing and new connections of this class; `Any` is all of them.
    pub fn set(&self, class: Class, mode: Mode) {
        self.modes.send_modify(|modes| match class {
            Class::Any => {
                *modes = Modes {
                    any: mode,
                    subscriber: mode,
                    publisher: mode,
                };
            }
            Class::Subscriber => modes.subscriber = mode,
            Class::Publisher => modes.publisher = mode,
        });
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks see that nobody sets modes any more, and end.
        self.set(Class::Any, Mode::Reset);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    modes: watch::Receiver<Modes>,
    seed: u64,
    open: Arc<AtomicUsize>,
) {
    let tasks = Mutex::new(Vec::<Task>::new());
    for number in 0_u64.. {
        let Ok((near, _)) = listener.accept().await else {
            return;
        };
        let connection = wire::Connection {
            near,
            target,
            modes: modes.clone(),
            seed: seed.wrapping_add(number),
            open: Arc::clone(&open),
        };
        let mut tasks = tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(Task::start(connection.run()));
    }
}
