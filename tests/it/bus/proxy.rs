//! A long wire to Redis, on which what a subscriber should hear can be lost without a sign, and publishing cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::server::Server;

/// How long a command is under way: long enough to overtake it on another connection.
const WIRE: Duration = Duration::from_millis(10);

pub struct Proxy {
    port: u16,
    swallow: Arc<Notify>,
    /// Whether connections that are not subscribed are cut, and new ones refused.
    cut: watch::Sender<bool>,
}

impl Proxy {
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    pub async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(Notify::new());
        let (target, swallowing) = (server.address(), Arc::clone(&swallow));
        let (cut, cutting) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *cutting.borrow() {
                    continue;
                }
                let far = TcpStream::connect(target).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                let (subscribing, subscribes) = watch::channel(false);
                let (swallowing, mut cutting) = (Arc::clone(&swallowing), cutting.clone());
                let is_subscribed = subscribes.clone();
                let there = tokio::spawn(forward(near_in, far_out, subscribing));
                let back = tokio::spawn(answer(far_in, near_out, subscribes, swallowing));
                tokio::spawn(async move {
                    if cutting.wait_for(|cut| *cut).await.is_ok() && !*is_subscribed.borrow() {
                        there.abort();
                        back.abort();
                    }
                });
            }
        });
        Self { port, swallow, cut }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on nothing comes back on the connections that are subscribed now; they stay open.
    pub fn swallow_subscriptions(&self) {
        self.swallow.notify_waiters();
    }

    /// Breaks the connections that have subscribed to nothing, and refuses new ones, until [`Proxy::mend`].
    pub fn cut_publishing(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    subscribing: watch::Sender<bool>,
) {
    let mut bytes = [0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if bytes[..length].windows(9).any(|word| word == b"SUBSCRIBE") {
            subscribing.send_replace(true);
        }
        tokio::time::sleep(WIRE).await; // bounded: the delay that this proxy is there for
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut subscribes: watch::Receiver<bool>,
    swallow: Arc<Notify>,
) {
    let swallowed = async {
        if subscribes.wait_for(|subscribes| *subscribes).await.is_err() {
            return std::future::pending().await;
        }
        swallow.notified().await;
    };
    let carried = async {
        let mut bytes = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if to.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    let is_swallowed = tokio::select! {
        () = carried => false,
        () = swallowed => true,
    };
    if is_swallowed {
        while let Ok(1..) = from.read(&mut [0; 65_536]).await {}
    }
}
