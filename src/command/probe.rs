//! `bellhop probe`: a running node, tried from outside the way its users meet it.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::target::{PublisherKey, Target};
use super::{Failure, say};
use crate::client::Client;
use crate::event;
use crate::user::UserId;

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// Receive on this node what is published through --url: two nodes of one cluster.
    #[arg(long, value_name = "URL")]
    receive_at: Option<String>,

    /// Seconds until a step counts as failed.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    #[command(flatten)]
    key: PublisherKey,

    #[command(flatten)]
    target: Target,
}

impl Probe {
    pub(super) async fn run(self) -> Result<(), Failure> {
        // The notification is deleted in the end.
        let user = match self.target.token_user()? {
            Some(user) => user,
            // Of its own, so that nobody sees the notification.
            None => {
                UserId::try_from(format!("bellhop-probe-{}", Uuid::now_v7().simple()).as_str())?
            }
        };
        let started = Instant::now();
        let mut client = self.step("handshake", started, self.connect(&user)).await?;

        let started = Instant::now();
        let id = self.step("publish", started, self.publish(&user)).await?;
        let received = async {
            loop {
                let heard = client.next().await?;
                if heard.event == event::NEW && heard.data.get("id") == Some(&id) {
                    return Ok(());
                }
            }
        };
        self.step("receive", started, received).await?;
        client
            .call("notification:delete", &json!({ "id": id }))
            .await?;
        Ok(())
    }

    /// Connects a socket, and waits until it is live: until then it would not hear what is published.
    async fn connect(&self, user: &UserId) -> Result<Client, Failure> {
        let url = self.receive_at.clone().unwrap_or_else(|| self.target.url());
        let auth = json!({ "token": self.target.token(user, None)? });
        let connected = self.target.connect(&url, &auth).await;
        let mut client = connected.map_err(|error| self.target.explain(&url, error))?;
        while client.next().await?.event != event::SYNCED {}
        Ok(client)
    }

    /// Publishes to the probe's user, and answers the notification's id.
    async fn publish(&self, user: &UserId) -> Result<Value, Failure> {
        let credential = self.target.publisher(&self.key)?;
        let body = json!({ "userId": user, "title": "bellhop probe" });
        let answer = self
            .target
            .post("/api/notifications", &credential, &[], &body)
            .await?;
        let answer: Value = serde_json::from_str(&answer)?;
        answer
            .get("id")
            .cloned()
            .ok_or_else(|| Failure::new("the answer to the publish has no id"))
    }

    async fn step<T>(
        &self,
        name: &str,
        started: Instant,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = tokio::time::timeout(Duration::from_secs(self.timeout), work).await;
        let milliseconds = started.elapsed().as_secs_f64() * 1_000.0;
        match outcome {
            Ok(Ok(value)) => {
                say(format_args!("✓ {name} {milliseconds:.1} ms"))?;
                Ok(value)
            }
            Ok(Err(Failure(reason))) => Err(Failure(format!("✗ {name}: {reason}"))),
            Err(_late) => Err(Failure(format!(
                "✗ {name}: nothing within {} s",
                self.timeout
            ))),
        }
    }
}
