//! `bellhop send`: publishes a notification through a running node.

use clap::Args;
use serde_json::{Map, Value, json};

use super::target::{PublisherKey, Target};
use super::{Failure, say};
use crate::user::UserId;

#[derive(Debug, Args)]
pub(super) struct Send {
    /// Whom it is for; several with commas, or given several times.
    #[arg(long, required = true, value_delimiter = ',', value_name = "ID")]
    user: Vec<UserId>,

    /// 1 to 200 characters.
    #[arg(long, value_name = "TEXT")]
    title: String,

    /// Up to 4096 characters.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// The application's own kind: upper-case letters, digits and underscores.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// LOW, NORMAL, HIGH or URGENT.
    #[arg(long, value_name = "PRIORITY", ignore_case = true)]
    priority: Option<String>,

    /// Where a click leads: an https: URL, or a path.
    #[arg(long, value_name = "URL")]
    action_url: Option<String>,

    /// A JSON object for the application.
    #[arg(long, value_name = "JSON", value_parser = object)]
    data: Option<Value>,

    /// When it loses its meaning, as in 2030-01-31T12:00:00Z: it leaves the inbox then.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,

    /// Repeating a request with the same key within 24 hours sends nothing twice.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    #[command(flatten)]
    key: PublisherKey,

    #[command(flatten)]
    target: Target,
}

impl Send {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let credential = self.target.publisher(&self.key)?;
        let key = self
            .idempotency_key
            .iter()
            .map(|key| ("idempotency-key", key.as_str()))
            .collect::<Vec<_>>();
        let answer = self
            .target
            .post("/api/notifications", &credential, &key, &self.body())
            .await?;
        say(answer)
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        match self.user.as_slice() {
            [user] => body.insert("userId".to_owned(), json!(user)),
            users => body.insert("userIds".to_owned(), json!(users)),
        };
        body.insert("title".to_owned(), json!(self.title));
        let optional = [
            ("message", self.message.as_ref().map(|text| json!(text))),
            ("type", self.kind.as_ref().map(|text| json!(text))),
            (
                "priority",
                self.priority
                    .as_ref()
                    .map(|text| json!(text.to_uppercase())),
            ),
            (
                "actionUrl",
                self.action_url.as_ref().map(|text| json!(text)),
            ),
            ("data", self.data.clone()),
            (
                "expiresAt",
                self.expires_at.as_ref().map(|text| json!(text)),
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        }
        Value::Object(body)
    }
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err("give a JSON object, as in '{\"orderId\": 7}'".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}
