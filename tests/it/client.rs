//! A device of a user, for tests: events with deadlines, and what was not heard.

use std::time::Duration;

use bellhop::client::{Client, ClientError, Heard};
use serde_json::{Value, json};

use crate::cluster::TestNode;

/// How long an event may take; far more than it does, since a loaded machine is no failure.
const DEADLINE: Duration = Duration::from_secs(10);

pub struct TestClient(Client);

impl TestClient {
    pub async fn connect(url: &str, auth: &Value) -> Result<Self, ClientError> {
        Client::connect(url, "/socket.io/", auth).await.map(Self)
    }

    /// The next event.
    pub async fn next(&mut self) -> Heard {
        match tokio::time::timeout(DEADLINE, self.0.next()).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(error)) => panic!("waited for an event: {error:?}"),
            Err(_late) => panic!("waited for an event: none came in {DEADLINE:?}"),
        }
    }

    /// The payload of the next event, which must be this one.
    pub async fn expect(&mut self, event: &str) -> Value {
        let heard = self.next().await;
        assert_eq!(heard.event, event, "{}", heard.data);
        heard.data
    }

    /// The payload of the next event of this name; others before it are passed over.
    pub async fn until(&mut self, event: &str) -> Value {
        loop {
            let heard = self.next().await;
            if heard.event == event {
                return heard.data;
            }
        }
    }

    /// Everything up to the next event of this name, without it.
    pub async fn before(&mut self, event: &str) -> Vec<Heard> {
        let mut before = Vec::new();
        loop {
            let heard = self.next().await;
            if heard.event == event {
                return before;
            }
            before.push(heard);
        }
    }

    /// Proves that nothing else was sent to this device of `user`: the next that it hears is a marker
    /// that `node` sends it now.
    pub async fn hears_nothing(&mut self, node: &TestNode, user: &str) {
        let (status, _) = node
            .emit(json!({ "userId": user, "event": "test:marker", "payload": {} }))
            .await;
        assert!(status.is_success());
        let heard = self.next().await;
        assert_eq!(heard.event, "test:marker", "heard {heard:?}");
    }

    /// Emits an event and answers its ack.
    pub async fn call(&mut self, event: &str, data: Value) -> Value {
        self.0.call(event, &data).await.unwrap()
    }

    pub async fn send(&mut self, packet: &str) -> Result<(), ClientError> {
        self.0.send(packet.to_owned()).await
    }

    /// Waits until the server has ended the connection; events before that are passed over.
    pub async fn ends(&mut self) {
        let ended = async { while self.0.next().await.is_ok() {} };
        assert!(
            tokio::time::timeout(DEADLINE, ended).await.is_ok(),
            "the connection is still there"
        );
    }
}
