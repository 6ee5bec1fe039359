//! A TCP proxy in front of a real service: its network can be cut and healed.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards to one service while the network is whole; stops when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    whole: watch::Sender<bool>,
    /// A connection on which this was asked hears no answer any more.
    deafening: watch::Sender<Vec<u8>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target` (`host:port`).
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, state) = watch::channel(true);
        let (deafening, words) = watch::channel(Vec::new());
        let accepting = spawn(accept(listener, target.to_owned(), state, words));
        Self {
            address,
            whole,
            deafening,
            accepting,
        }
    }

    /// Breaks every connection, and each new one at once, as a service does that is away.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn heal(&self) {
        self.whole.send_replace(true);
    }

    /// From now on, on a connection on which these words are sent, they arrive, and no answer comes back.
    pub fn deafen_after(&self, words: &str) {
        self.deafening.send_replace(words.as_bytes().to_vec());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: String,
    state: watch::Receiver<bool>,
    words: watch::Receiver<Vec<u8>>,
) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        spawn(forward(near, target.clone(), state.clone(), words.clone()));
    }
}

async fn forward(
    near: TcpStream,
    target: String,
    mut state: watch::Receiver<bool>,
    words: watch::Receiver<Vec<u8>>,
) {
    if !*state.borrow() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        () = exchange(near, far, words) => {}
        _ = state.wait_for(|whole| !whole) => {}
    }
}

/// Forwards both ways until one side closes.
async fn exchange(mut near: TcpStream, mut far: TcpStream, words: watch::Receiver<Vec<u8>>) {
    let (mut asks, mut hears) = near.split();
    let (mut answers, mut takes) = far.split();
    let (deaf, is_deaf) = watch::channel(false);
    let asking = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = asks.read(&mut buffer).await {
            let words = words.borrow().clone();
            if !words.is_empty()
                && buffer[..length]
                    .windows(words.len())
                    .any(|at| *at == *words)
            {
                deaf.send_replace(true);
            }
            if takes.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = answers.read(&mut buffer).await {
            let is_deaf = *is_deaf.borrow();
            if !is_deaf && hears.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's helper has no node to own its tasks"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
