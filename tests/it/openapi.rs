//! The description of the API is exact: whatever it lists happens, and nothing happens that it does not list.
//!
//! It is read from a node, and all that is asked here follows from it: for each operation every answer that it
//! lists is provoked, by its status and its code, and held against the schema that it names.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::auth::{now, sign};
use crate::cluster::{Backing, SECRET, TestNode};
use crate::commands::{addresses, serve};

const README: &str = include_str!("../../README.md");

/// What no request can bring about: a defect, and the last resort behind deadlines that are all shorter.
const NOT_PROVOKED: [&str; 2] = ["internal_error", "timed_out"];

const API_KEY: &str = "key-1";

/// As many requests as a node takes at a time, and some.
const TOO_MANY_REQUESTS: usize = 1_100;

/// An operation, a status, and for problems the code.
type Ending = (String, u16, String);

struct Operation {
    id: String,
    method: String,
    path: String,
    described: Value,
}

impl Operation {
    fn needs(&self, scheme: &str) -> bool {
        let schemes = self.described["security"].as_array().into_iter().flatten();
        schemes.into_iter().any(|one| one.get(scheme).is_some())
    }

    fn takes(&self, name: &str) -> bool {
        let parameters = self.described["parameters"]
            .as_array()
            .into_iter()
            .flatten();
        parameters.into_iter().any(|one| one["name"] == name)
    }

    fn has_body(&self) -> bool {
        self.described["requestBody"].is_object()
    }

    fn may_end_with(&self, status: u16) -> bool {
        self.described["responses"]
            .get(status.to_string())
            .is_some()
    }

    /// A request that succeeds for each example of a body, or the one that there is. Each operation has a user of
    /// its own, whose notification `id` is.
    fn good(&self, id: &str) -> Vec<Ask> {
        let path = self.path.replace("{id}", id).replace("{userId}", &self.id);
        let ask = Ask {
            operation: self.id.clone(),
            method: self.method.to_uppercase(),
            path,
            headers: Vec::new(),
            body: Vec::new(),
        };
        let ask = match (self.needs("apiKey"), self.needs("bearer")) {
            (true, _) => ask.with("authorization", &bearer(&publisher("shop"))),
            (false, true) => ask.with("authorization", &bearer(&user(&self.id))),
            (false, false) => ask,
        };
        if !self.has_body() {
            return vec![ask];
        }
        let ask = ask.with("content-type", "application/json");
        let examples = &self.described["requestBody"]["content"]["application/json"]["examples"];
        let examples = examples.as_object().unwrap().values();
        let of = |example: &Value| ask.clone().body(example["value"].to_string().as_bytes());
        examples.map(of).collect()
    }

    /// What the operation refuses from anybody, whatever the node's settings and state, and how.
    fn refused(&self, good: &Ask) -> Vec<(Ask, u16, &'static str)> {
        let mut all = vec![(good.clone().query("unknown=1"), 400, "query_invalid")];
        if self.needs("bearer") {
            all.extend(self.refused_callers(good));
        }
        if self.has_body() {
            all.extend(refused_bodies(good));
        }
        if self.takes("cursor") {
            all.push((good.clone().query("cursor=x"), 400, "cursor_invalid"));
        }
        if self.takes("userId") {
            let mut ask = good.clone();
            ask.path = ask.path.replace(&self.id, "a%20b");
            all.push((ask, 400, "user_id_invalid"));
        }
        if self.takes("id") {
            let unknown = self.good("0198f1c2-0000-7000-8000-000000000001");
            all.push((unknown[0].clone(), 404, "not_found"));
        }
        if self.takes("Idempotency-Key") {
            let blank = good.clone().with("idempotency-key", "a b");
            all.push((blank, 400, "idempotency_key_invalid"));
            let again = good.clone().with("idempotency-key", "again");
            all.push((again.clone(), 201, ""));
            let mut body = again.body.clone();
            body.push(b'\n');
            all.push((again.body(&body), 422, "idempotency_key_reused"));
        }
        all
    }

    fn refused_callers(&self, good: &Ask) -> Vec<(Ask, u16, &'static str)> {
        let nobody = good.clone().without("authorization");
        let with = |token: &str| nobody.clone().with("authorization", &bearer(token));
        let scope = if self.needs("apiKey") {
            "notifications:publish"
        } else {
            ""
        };
        let expired = json!({ "sub": self.id, "scope": scope, "exp": now() - 60 });
        let key = nobody.clone().with("x-api-key", API_KEY);
        let other = if self.needs("apiKey") {
            with(&user(&self.id))
        } else {
            key.clone()
        };
        vec![
            (
                good.clone().with("authorization", "Bearer x"),
                400,
                "authorization_repeated",
            ),
            (
                key.clone().with("x-api-key", API_KEY),
                400,
                "api_key_repeated",
            ),
            (
                good.clone().with("x-api-key", API_KEY),
                400,
                "credentials_ambiguous",
            ),
            (nobody.clone(), 401, "token_missing"),
            (with("x"), 401, "token_invalid"),
            (
                nobody.clone().with("x-api-key", "no key"),
                401,
                "token_invalid",
            ),
            (with(&sign(&expired, SECRET)), 401, "token_expired"),
            (other, 403, "forbidden"),
        ]
    }
}

fn refused_bodies(good: &Ask) -> Vec<(Ask, u16, &'static str)> {
    let body = |bytes: &[u8]| good.clone().body(bytes);
    let text = good
        .clone()
        .without("content-type")
        .with("content-type", "text/plain");
    let broken = body(b"no chunk\r\n").with("transfer-encoding", "chunked");
    vec![
        (body(b" "), 400, "body_empty"),
        (broken, 400, "body_incomplete"),
        (body(b"{\"title\": \"\xff\"}"), 400, "utf8_invalid"),
        (body(b"{"), 400, "json_invalid"),
        (body("[".repeat(200).as_bytes()), 400, "json_too_deep"),
        (body(br#"{"a": 1, "a": 1}"#), 400, "json_duplicate_key"),
        (
            body(b"").with("content-length", "99999999"),
            413,
            "body_too_large",
        ),
        (text, 415, "media_type_unsupported"),
        (body(b"[]"), 422, "body_invalid"),
    ]
}

/// A request, to be written as it is: also one that no good client sends.
#[derive(Clone)]
struct Ask {
    operation: String,
    method: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

struct Answer {
    operation: String,
    status: u16,
    headers: header::HeaderMap,
    body: Vec<u8>,
}

impl Ask {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| *found != name);
        self
    }

    fn query(mut self, text: &str) -> Self {
        self.path = format!("{}?{text}", self.path);
        self
    }

    fn body(mut self, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self
    }

    fn bytes(&self, address: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {address}\r\n",
            self.method, self.path
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let framed =
            |(name, _): &(&str, String)| matches!(*name, "content-length" | "transfer-encoding");
        if !self.headers.iter().any(framed) {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), b"connection: close\r\n\r\n", &self.body].concat()
    }

    async fn send(self, address: &str) -> Answer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&self.bytes(address)).await.unwrap();
        let mut bytes = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(25), stream.read_to_end(&mut bytes));
        let _closed = reading.await.expect("an answer").unwrap();
        Answer::read(self.operation, &bytes)
    }
}

impl Answer {
    fn read(operation: String, bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{operation}: {}", bytes.escape_ascii()));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let name: header::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        Self {
            operation,
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The description, and what has happened of it.
struct Description {
    document: Value,
    operations: Vec<Operation>,
    seen: BTreeSet<Ending>,
}

impl Description {
    async fn of(url: &str) -> Self {
        let response = reqwest::get(format!("{url}/api/openapi.json"))
            .await
            .unwrap();
        let document: Value = response.json().await.unwrap();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, described) in item.as_object().unwrap() {
                operations.push(Operation {
                    id: described["operationId"].as_str().unwrap().to_owned(),
                    method: method.clone(),
                    path: path.clone(),
                    described: described.clone(),
                });
            }
        }
        Self {
            document,
            operations,
            seen: BTreeSet::new(),
        }
    }

    fn followed<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => value,
        }
    }

    fn responses(&self, operation: &str) -> Vec<(u16, &Value)> {
        let mut operations = self.operations.iter();
        let found = operations.find(|found| found.id == operation).unwrap();
        let responses = found.described["responses"].as_object().unwrap();
        let each = responses.iter();
        each.map(|(status, response)| (status.parse().unwrap(), self.followed(response)))
            .collect()
    }

    fn listed(&self) -> BTreeSet<Ending> {
        let mut listed = BTreeSet::new();
        for operation in &self.operations {
            for (status, response) in self.responses(&operation.id) {
                let problem = &response["content"]["application/problem+json"]["schema"];
                let codes = problem["properties"]["code"]["enum"].as_array();
                let codes = codes.map_or(vec![""], |codes| {
                    codes.iter().filter_map(Value::as_str).collect()
                });
                let endings = codes.into_iter();
                listed.extend(endings.map(|code| (operation.id.clone(), status, code.to_owned())));
            }
        }
        listed
    }

    /// Holds an answer against what is said of it.
    fn note(&mut self, answer: &Answer) -> (u16, String) {
        let Answer {
            operation, status, ..
        } = answer;
        let mut responses = self.responses(operation).into_iter();
        let response = responses.find(|(listed, _)| listed == status);
        let body = String::from_utf8_lossy(&answer.body);
        let (_, response) =
            response.unwrap_or_else(|| panic!("{operation} {status} is not listed: {body}"));
        for (name, _) in response["headers"].as_object().into_iter().flatten() {
            let sometimes = name == "Idempotent-Replayed";
            assert!(
                sometimes || answer.headers.contains_key(name),
                "{operation} {status}: no {name}"
            );
        }
        match response["content"].as_object() {
            None => assert!(answer.body.is_empty(), "{operation} {status}: {body}"),
            Some(content) => self.hold(answer, content),
        }
        let is_problem = *status >= 400;
        let code = answer.json()["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let code = if is_problem { code } else { String::new() };
        self.seen.insert((operation.clone(), *status, code.clone()));
        (*status, code)
    }

    fn hold(&self, answer: &Answer, content: &serde_json::Map<String, Value>) {
        let (kind, media) = content.iter().next().unwrap();
        let Answer {
            operation, status, ..
        } = answer;
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            kind,
            "{operation} {status}"
        );
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [media["schema"]], "components": self.document["components"],
        });
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let body = answer.json();
        let errors: Vec<_> = validator
            .iter_errors(&body)
            .map(|error| error.to_string())
            .collect();
        assert!(
            errors.is_empty(),
            "{operation} {status}: {body}: {errors:?}"
        );
    }

    async fn expect(&mut self, address: &str, ask: Ask, status: u16, code: &str) {
        let asked = String::from_utf8_lossy(&ask.bytes(address)).into_owned();
        let found = self.note(&ask.send(address).await);
        assert_eq!(found, (status, code.to_owned()), "{asked}");
    }

    fn which(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<Vec<Ask>> {
        let operations = self.operations.iter().filter(|operation| wanted(operation));
        operations
            .map(|operation| operation.good("0198f1c2-0000-7000-8000-000000000001"))
            .collect()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn user(id: &str) -> String {
    sign(
        &json!({ "sub": id, "iat": now(), "exp": now() + 600 }),
        SECRET,
    )
}

fn publisher(id: &str) -> String {
    sign(
        &json!({ "sub": id, "scope": "notifications:publish", "iat": now(), "exp": now() + 600 }),
        SECRET,
    )
}

fn address(node: &TestNode) -> String {
    node.url.trim_start_matches("http://").to_owned()
}

async fn node(backing: &Backing, further: &[&str]) -> TestNode {
    let digest: String = Sha256::digest(API_KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let keys = format!("--api-keys=shop:{digest}");
    let all: Vec<&str> = further.iter().copied().chain([keys.as_str()]).collect();
    backing.node(&all).await
}

/// Every answer of a node that is well and has no limits.
async fn on_a_node(description: &mut Description) {
    let backing = Backing::fresh().await;
    let node = node(&backing, &[]).await;
    let address = address(&node);
    let operations = std::mem::take(&mut description.operations);
    let (mut cases, mut slow) = (Vec::new(), Vec::new());
    for operation in operations
        .iter()
        .filter(|operation| operation.id != "createDevToken")
    {
        let notification = node.publish(&operation.id, "Hello").await;
        let good = operation.good(notification["id"].as_str().unwrap());
        cases.extend(operation.refused(&good[0]));
        let status = (200..300)
            .find(|status| operation.may_end_with(*status))
            .unwrap();
        if operation.may_end_with(304) {
            let known = good[0].clone().with("if-none-match", "*");
            cases.push((known, 304, ""));
        }
        if operation.has_body() {
            slow.push(good[0].clone().body(b"").with("content-length", "9"));
        }
        cases.extend(good.into_iter().map(|good| (good, status, "")));
    }
    description.operations = operations;
    for (ask, status, code) in cases {
        description.expect(&address, ask, status, code).await;
    }
    for answer in join_all(slow.into_iter().map(|ask| ask.send(&address))).await {
        assert_eq!(description.note(&answer), (408, "body_timeout".to_owned()));
    }
}

async fn on_a_node_with_limits(description: &mut Description) {
    let backing = Backing::fresh().await;
    let limits = [
        "--limit-publishes-per-key=1/1",
        "--limit-publishes-per-user=1/1",
    ];
    let node = node(&backing, &limits).await;
    let address = address(&node);
    for (operation, body) in [
        (
            "createNotification",
            json!({ "userIds": ["1", "2"], "title": "t" }),
        ),
        (
            "createBatch",
            json!({ "notifications": [{ "userId": "1", "title": "t" }, { "userId": "2", "title": "t" }] }),
        ),
        ("emit", json!({ "userIds": ["1", "2"], "event": "typing" })),
    ] {
        let ask = description.which(|found| found.id == operation)[0][0].clone();
        let ask = ask.body(body.to_string().as_bytes());
        description
            .expect(&address, ask, 422, "too_many_for_limit")
            .await;
    }
    for good in description.which(|operation| operation.may_end_with(429)) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while description.note(&good[0].clone().send(&address).await).0 != 429 {
            assert!(
                Instant::now() < deadline,
                "{} has no limit",
                good[0].operation
            );
        }
    }
}

/// The network of its database is cut; a file has none, so its store is closed.
async fn on_a_node_without_a_store(description: &mut Description) {
    let behind_proxies = Backing::behind_proxies().await;
    let (backing, proxies) = match behind_proxies {
        Some((backing, database, redis)) => (backing, Some((database, redis))),
        None => (Backing::fresh().await, None),
    };
    let node = node(&backing, &[]).await;
    match &proxies {
        Some((database, _)) => database.cut(),
        None => backing.store().await.close().await,
    }
    for good in description.which(|operation| operation.needs("bearer")) {
        description
            .expect(&address(&node), good[0].clone(), 503, "storage_unavailable")
            .await;
    }
}

/// The one operation that only the embedded default has, and the answer of a node that has too much to do.
async fn on_the_embedded_default(description: &mut Description, address: &str) {
    let operations = std::mem::take(&mut description.operations);
    let operation = operations
        .iter()
        .find(|operation| operation.id == "createDevToken")
        .unwrap();
    let good = operation.good("");
    let mut cases = operation.refused(&good[0]);
    cases.push((
        good[0].clone().with("x-forwarded-for", "10.0.0.1"),
        404,
        "not_found",
    ));
    cases.push((good[0].clone(), 200, ""));
    description.operations = operations;
    for (ask, status, code) in cases {
        description.expect(address, ask, status, code).await;
    }
    let endless = good[0].clone().body(b"").with("content-length", "9");
    let answer = endless.clone().send(address).await;
    assert_eq!(description.note(&answer), (408, "body_timeout".to_owned()));

    let mut waiting = Vec::new();
    for _ in 0..TOO_MANY_REQUESTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&endless.bytes(address)).await.unwrap();
        waiting.push(stream);
    }
    let config = description.which(|operation| operation.id == "getClientConfig");
    let deadline = Instant::now() + Duration::from_secs(8);
    while description
        .note(&config[0][0].clone().send(address).await)
        .0
        != 503
    {
        assert!(
            Instant::now() < deadline,
            "the node takes more than it should"
        );
    }
    for good in description.which(|_| true) {
        description
            .expect(address, good[0].clone(), 503, "overloaded")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_description_lists_happens_and_nothing_else() {
    // Both ends of many connections may be in one process.
    rlimit::increase_nofile_limit(8_192).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let _embedded = serve(folder.path(), &addresses);
    let mut description = Description::of(&format!("http://{}", addresses[0])).await;

    on_a_node(&mut description).await;
    on_a_node_with_limits(&mut description).await;
    on_a_node_without_a_store(&mut description).await;
    on_the_embedded_default(&mut description, &addresses[0]).await;

    let mut listed = description.listed();
    listed.retain(|(_, _, code)| !NOT_PROVOKED.contains(&code.as_str()));
    let seen = &description.seen;
    let left_out: Vec<_> = listed.difference(seen).collect();
    assert!(left_out.is_empty(), "listed, but not seen: {left_out:?}");
    let beyond: Vec<_> = seen.difference(&listed).collect();
    assert!(beyond.is_empty(), "seen, but not listed: {beyond:?}");
    assert!(seen.len() > 300, "{}", seen.len());
}

/// Method and path of each row of the README's table; `…/unread` is the path before it with another end.
fn operations_of_the_readme() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for row in README
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains(" /api/"))
    {
        let names = row
            .split(" | ")
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2);
        let mut last = String::new();
        for name in names {
            let name = name.split('?').next().unwrap();
            last = match name.strip_prefix('…') {
                Some(end) => format!("{}{end}", &last[..last.rfind('/').unwrap()]),
                None => name.to_owned(),
            };
            found.insert(last.clone());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_lists_every_operation_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let _embedded = serve(folder.path(), &addresses);
    let embedded = Description::of(&format!("http://{}", addresses[0])).await;
    let operations = embedded.operations.iter();
    let operations = operations.map(|one| format!("{} {}", one.method.to_uppercase(), one.path));
    assert_eq!(
        operations.collect::<BTreeSet<_>>(),
        operations_of_the_readme()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_keys_are_configured_there_is_the_same_but_no_development_sign_in_and_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let _embedded = serve(folder.path(), &addresses);
    let mut embedded = Description::of(&format!("http://{}", addresses[0]))
        .await
        .document;
    let backing = Backing::fresh().await;
    let node = node(&backing, &[]).await;
    let elsewhere = Description::of(&node.url).await.document;

    assert!(
        embedded["paths"]
            .as_object_mut()
            .unwrap()
            .remove("/api/dev/token")
            .is_some()
    );
    assert_eq!(embedded, elsewhere);

    let page = reqwest::get(format!("http://{}/api/docs", addresses[0]))
        .await
        .unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = node.request(Method::GET, "/api/docs").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
}
