//! One notification for many users at once, under one key, repeated until the outcome is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::history::{Event, Recorder};
use crate::random::Random;

const PATIENCE: Duration = Duration::from_secs(30);

/// In the history it is one publish for each user: its key ends with a slash, and theirs is that and the user's name.
pub struct Bulk {
    pub cluster: Arc<Cluster>,
    pub recorder: Arc<Recorder>,
    pub key: String,
    pub users: Vec<String>,
    pub node: usize,
    pub random: Random,
}

/// The key of one user's part, if `key` is of many.
#[must_use]
pub(super) fn own_key(key: &str, user: &str) -> String {
    match key.ends_with('/') {
        true => format!("{key}{user}"),
        false => key.to_owned(),
    }
}

impl Bulk {
    pub async fn run(mut self) {
        let until = Instant::now() + PATIENCE;
        let body =
            json!({ "userIds": self.users, "title": "For many", "data": { "key": self.key } });
        loop {
            self.each(|key, user| Event::Invoke { key, user });
            let began = Instant::now();
            let answer = self.cluster.publish(self.node, &self.key, &body).await;
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Ok((201, _, body)) = &answer {
                return self.acknowledged(body, millis);
            }
            let why = answer.map_or("connection lost".to_owned(), |(status, ..)| {
                status.to_string()
            });
            self.each(|key, user| Event::Info {
                key,
                user,
                why: why.clone(),
                millis,
            });
            if Instant::now() > until {
                return;
            }
            let pause = self.random.between(500, 1_500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn each(&self, event: impl Fn(String, String) -> Event) {
        for user in &self.users {
            let key = own_key(&self.key, user);
            self.recorder.add(event(key, user.clone()));
        }
    }

    fn acknowledged(&self, body: &Value, millis: u64) {
        let items = body.get("items").and_then(Value::as_array);
        let deferred = body.get("delivery").and_then(Value::as_str) == Some("deferred");
        for item in items.into_iter().flatten() {
            let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
            let user = text("userId").to_owned();
            self.recorder.add(Event::Ok {
                key: own_key(&self.key, &user),
                user,
                id: text("id").to_owned(),
                seq: item.get("seq").and_then(Value::as_u64).unwrap_or_default(),
                deferred,
                millis,
            });
        }
    }
}
