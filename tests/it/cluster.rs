//! Nodes of one cluster, in this process: `let [a, b, c] = cluster().await`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bellhop::bus::Exchange;
use bellhop::config::{Auth, Config, Secret};
use bellhop::node::{Listeners, Node, Shared};
use bellhop::store::Store;
use bellhop::user::UserId;
use clap::Parser;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::client::TestClient;
use crate::databases;

pub const SECRET: &str = "a-secret-of-these-tests-0123456789abcdef";

/// What the nodes of one cluster share: a fresh database, and a bus of their own.
pub struct Backing {
    pub arguments: Vec<String>,
    shared: Shared,
    database: Arc<databases::Database>,
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

impl Backing {
    /// SQLite and a local bus, or PostgreSQL and Redis, as `TEST_STORE` says.
    pub async fn fresh() -> Self {
        match databases::setting("TEST_STORE").as_deref() {
            Some("postgres") => Self::postgres().await,
            Some("sqlite") | None => Self::sqlite().await,
            Some(other) => panic!("TEST_STORE={other}: sqlite or postgres"),
        }
    }

    async fn sqlite() -> Self {
        let database = databases::Database::sqlite();
        let store = Store::open(&database.url, 1).await.unwrap();
        let shared = Shared {
            store: Some(store),
            exchange: Some(Exchange::default()),
        };
        Self {
            arguments: Vec::new(),
            shared,
            database: Arc::new(database),
        }
    }

    /// PostgreSQL and Redis, whatever `TEST_STORE` says.
    pub async fn postgres() -> Self {
        let database = databases::Database::postgres()
            .await
            .expect("TEST_STORE=postgres needs TEST_POSTGRES_URL");
        let redis =
            databases::setting("TEST_REDIS_URL").expect("TEST_STORE=postgres needs TEST_REDIS_URL");
        let arguments = vec![
            format!("--database-url={}", database.url),
            format!("--redis-url={redis}"),
            format!("--bus-prefix=test-{}", uuid::Uuid::now_v7().simple()),
            "--database-pool=5".to_owned(),
        ];
        Self {
            arguments,
            shared: Shared::default(),
            database: Arc::new(database),
        }
    }

    /// Starts one more node on this backing.
    pub async fn node(&self, further: &[&str]) -> TestNode {
        let config = self.config(further);
        let listeners = Listeners::bind(&config).await.unwrap();
        let node = Node::start(
            &config,
            listeners,
            self.shared.clone(),
            &CancellationToken::new(),
        )
        .await
        .unwrap();
        TestNode::new(node, config.auth)
    }

    /// The store that the nodes share, to work on it beside them.
    pub async fn store(&self) -> Store {
        match &self.shared.store {
            Some(store) => store.clone(),
            None => self.database.open().await,
        }
    }

    /// A connection to the nodes' database, to hold something in it; `None` where only they can have one.
    pub async fn beside(&self) -> Option<sqlx::PgConnection> {
        match self.database.url.starts_with("postgres") {
            true => Some(self.database.connection().await),
            false => None,
        }
    }

    /// Their bus, where that is a local one.
    pub fn exchange(&self) -> Option<&Exchange> {
        self.shared.exchange.as_ref()
    }

    pub fn database(&self) -> &databases::Database {
        &self.database
    }

    pub fn config(&self, further: &[&str]) -> Config {
        let own = [
            "bellhop",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--drain-seconds=0",
        ];
        let given = self.arguments.iter().map(String::as_str);
        let all = own.into_iter().chain(given).chain(further.iter().copied());
        let mut config = Arguments::parse_from(all).config;
        if config.auth.jwt_public_key_file.is_none() {
            config.auth.jwt_secret = Some(Secret::new(SECRET.to_owned()));
        }
        config
    }
}

/// A cluster of `N` nodes on a fresh database.
pub async fn cluster<const N: usize>() -> [TestNode; N] {
    cluster_with(&[]).await
}

/// The same, with further settings.
pub async fn cluster_with<const N: usize>(settings: &[&str]) -> [TestNode; N] {
    let backing = Arc::new(Backing::fresh().await);
    let mut nodes = Vec::with_capacity(N);
    for _ in 0..N {
        let mut node = backing.node(settings).await;
        node._backing = Some(Arc::clone(&backing));
        nodes.push(node);
    }
    nodes.try_into().ok().unwrap()
}

/// A running node, and what its callers hold: its address, its secret, an HTTP client.
pub struct TestNode {
    node: Option<Node>,
    pub url: String,
    pub admin: String,
    http: reqwest::Client,
    auth: Auth,
    /// Kept for as long as the node runs.
    _backing: Option<Arc<Backing>>,
}

impl TestNode {
    fn new(node: Node, auth: Auth) -> Self {
        let (address, admin) = (node.address(), node.admin_address());
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        Self {
            url: format!("http://{address}"),
            admin: format!("http://{admin}"),
            node: Some(node),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(15))
                .build()
                .unwrap(),
            auth,
            _backing: None,
        }
    }

    /// The node itself, to look inside.
    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Stops the node as SIGTERM does. Answers whether it came to a clean end.
    pub async fn stop(mut self) -> bool {
        self.leave().await
    }

    /// The same, and what it answers meanwhile can be asked.
    pub fn leave(&mut self) -> impl Future<Output = bool> + use<> {
        let node = self.node.take().unwrap();
        async move { node.stop().await }
    }

    pub fn token(&self, user: &str) -> String {
        self.sign(user, None)
    }

    pub fn publisher_token(&self) -> String {
        self.sign("shop", Some("notifications:publish"))
    }

    fn sign(&self, user: &str, scope: Option<&str>) -> String {
        let (secret, user) = (
            Secret::new(SECRET.to_owned()),
            UserId::try_from(user).unwrap(),
        );
        bellhop::auth::sign_hs256(
            &self.auth,
            &secret,
            &user,
            scope,
            Duration::from_secs(3_600),
        )
        .unwrap()
    }

    /// Connects a device of `user` as a client without `lastSeq` does, and waits until it is live.
    pub async fn connect(&self, user: &str) -> TestClient {
        let mut client = self
            .connect_with(json!({ "token": self.token(user) }))
            .await;
        client.until("notification:synced").await;
        client
    }

    /// Connects with this auth payload; what the server sends first is still to be heard.
    pub async fn connect_with(&self, auth: Value) -> TestClient {
        TestClient::connect(&self.url, &auth).await.unwrap()
    }

    /// Publishes a notification, and answers it.
    pub async fn publish(&self, user: &str, title: &str) -> Value {
        let (status, body) = self
            .publish_body(json!({ "userId": user, "title": title }))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }

    pub async fn publish_body(&self, body: Value) -> (StatusCode, Value) {
        self.call(
            Method::POST,
            "/api/notifications",
            &self.publisher_token(),
            Some(body),
        )
        .await
    }

    /// A transient emit with the publisher's token.
    pub async fn emit(&self, body: Value) -> (StatusCode, Value) {
        self.call(
            Method::POST,
            "/api/emit",
            &self.publisher_token(),
            Some(body),
        )
        .await
    }

    /// What `user` does over REST: the status, and the body, or null.
    pub async fn as_user(&self, user: &str, method: Method, path: &str) -> (StatusCode, Value) {
        self.call(method, path, &self.token(user), None).await
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// The value of one series as `/metrics` shows it, as in `bellhop_connections{transport="polling"}`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self
            .http
            .get(format!("{}/metrics", self.admin))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until a series has this value: for counts that follow an event that nobody is told of.
    pub async fn metric_becomes(&self, series: &str, expected: f64) {
        self.metric_meets(series, |value| value == expected).await;
    }

    /// Waits until a series has a value above this one.
    pub async fn metric_becomes_more(&self, series: &str, than: f64) {
        self.metric_meets(series, |value| value > than).await;
    }

    async fn metric_meets(&self, series: &str, expected: impl Fn(f64) -> bool) {
        let reached = async {
            let mut pause = tokio::time::interval(Duration::from_millis(10));
            while !expected(self.metric(series).await) {
                pause.tick().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), reached)
            .await
            .is_err()
        {
            panic!("{series} is still {}", self.metric(series).await);
        }
    }
}
