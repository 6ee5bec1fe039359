//! What the load knows of the cluster: where its nodes are, and how to speak to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::inbox::{List, item_of};
use crate::random::Random;

/// A page of the list that is not there in this time is asked for again.
const LIST_DEADLINE: Duration = Duration::from_secs(3);
const PAGE: usize = 200;

pub struct Cluster {
    /// The nodes as clients reach them.
    pub nodes: Vec<SocketAddr>,
    /// And as those reach them who have a thin line.
    pub thin: Vec<SocketAddr>,
    pub secret: String,
    pub api_key: String,
    http: reqwest::Client,
    /// Which nodes a balancer would send new requests and connections to.
    ready: Vec<AtomicBool>,
    /// Makes each token another one.
    issued: AtomicU64,
}

/// Why there is no answer to a request.
pub enum NoAnswer {
    /// It was never sent.
    Refused,
    /// It may have been sent.
    Lost(String),
}

impl Cluster {
    pub fn new(
        [nodes, thin]: [Vec<SocketAddr>; 2],
        secret: String,
        api_key: String,
    ) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(10))
            .build()?;
        let ready = nodes.iter().map(|_| AtomicBool::new(true)).collect();
        Ok(Self {
            nodes,
            thin,
            ready,
            secret,
            api_key,
            http,
            issued: AtomicU64::new(0),
        })
    }

    /// What the balancer has found out about a node.
    pub fn set_ready(&self, node: usize, ready: bool) {
        if let Some(is_ready) = self.ready.get(node) {
            is_ready.store(ready, Ordering::SeqCst);
        }
    }

    /// A node as a balancer picks it: one that is ready, not `but` where there is another; any if none is ready.
    pub(super) fn pick(&self, random: &mut Random, but: Option<usize>) -> usize {
        let is_ready = |node: &usize| {
            let ready = self.ready.get(*node);
            ready.is_some_and(|ready| ready.load(Ordering::SeqCst))
        };
        let ready: Vec<_> = (0..self.nodes.len()).filter(is_ready).collect();
        let others: Vec<_> = ready
            .iter()
            .copied()
            .filter(|node| Some(*node) != but)
            .collect();
        let nodes = if others.is_empty() { ready } else { others };
        let count = if nodes.is_empty() {
            self.nodes.len()
        } else {
            nodes.len()
        };
        let number = random.below(count);
        nodes.get(number).copied().unwrap_or(number)
    }

    /// The key's setting, as `name:sha256`.
    #[must_use]
    pub fn api_key_setting(api_key: &str) -> String {
        let digest = Sha256::digest(api_key.as_bytes());
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("rig:{digits}")
    }

    /// A token for this user, of an hour.
    #[must_use]
    pub fn token(&self, user: &str) -> String {
        self.token_of(user, Duration::from_secs(3_600))
    }

    /// A token for this user that ends so much later.
    #[must_use]
    pub fn token_of(&self, user: &str, age: Duration) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let claims = json!({ "sub": user, "iat": now, "exp": now + age.as_secs(), "jti": number.to_string() });
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        // HMAC does not fail; a token that is none would be refused by the first node.
        jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap_or_default()
    }

    fn address(&self, node: usize) -> String {
        let address = self.nodes.get(node % self.nodes.len().max(1));
        address.map_or_else(String::new, |address| format!("http://{address}"))
    }

    /// Publishes once, and answers status, whether it says when to come again, and body.
    pub async fn publish(
        &self,
        node: usize,
        key: &str,
        body: &Value,
    ) -> Result<(u16, bool, Value), NoAnswer> {
        let url = format!("{}/api/notifications", self.address(node));
        let request = self
            .http
            .post(url)
            .header("x-api-key", &self.api_key)
            .header("idempotency-key", key)
            .json(body);
        let lost = |error: reqwest::Error| match error.is_connect() {
            true => NoAnswer::Refused,
            false => NoAnswer::Lost(kind(&error)),
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status().as_u16();
        let lost = |error: reqwest::Error| NoAnswer::Lost(kind(&error));
        let says_when = answer.headers().contains_key("retry-after");
        Ok((status, says_when, answer.json().await.map_err(lost)?))
    }

    /// Asks a node for a user's count with this token; answers the status.
    pub async fn is_believed(&self, node: usize, token: &str) -> Option<u16> {
        let url = format!("{}/api/notifications/unread-count", self.address(node));
        let request = self.http.get(url).bearer_auth(token).timeout(LIST_DEADLINE);
        let answer = request.send().await.ok()?;
        Some(answer.status().as_u16())
    }

    /// Another request with a user's token; answers the status.
    pub async fn act(&self, node: usize, user: &str, method: &str, path: &str) -> Option<u16> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).ok()?;
        let url = format!("{}{path}", self.address(node));
        let request = self.http.request(method, url);
        let request = request.bearer_auth(self.token(user)).timeout(LIST_DEADLINE);
        let answer = request.send().await.ok()?;
        Some(answer.status().as_u16())
    }

    /// The user's whole list, page by page; `None` if any page did not come.
    pub(crate) async fn list(&self, node: usize, user: &str) -> Option<List> {
        let url = format!("{}/api/notifications?limit={PAGE}", self.address(node));
        let token = self.token(user);
        let first = self.page(&url, &token).await?;
        let mut list = List {
            items: items(&first)?,
            seq: first.get("seq")?.as_u64()?,
            unread: first.get("unreadCount")?.as_u64()?,
            epoch: first.get("epoch")?.as_str()?.to_owned(),
        };
        let mut page = first;
        while let Some(cursor) = page.get("nextCursor").and_then(Value::as_str) {
            page = self.page(&format!("{url}&cursor={cursor}"), &token).await?;
            // What is newer than the first page comes as an event.
            let older = items(&page)?.into_iter();
            list.items.extend(older.filter(|item| item.seq <= list.seq));
        }
        Some(list)
    }

    async fn page(&self, url: &str, token: &str) -> Option<Value> {
        let request = self.http.get(url).bearer_auth(token).timeout(LIST_DEADLINE);
        let answer = request.send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }
}

fn items(page: &Value) -> Option<Vec<crate::history::Item>> {
    page.get("items")?.as_array()?.iter().map(item_of).collect()
}

/// What went wrong, without the address.
fn kind(error: &reqwest::Error) -> String {
    let kind = match (error.is_timeout(), error.is_body() || error.is_decode()) {
        (true, _) => "timeout",
        (_, true) => "answer broken",
        (false, false) => "connection lost",
    };
    kind.to_owned()
}
