//! Nodes that are joined by a Redis behind TLS and a password, and what is said when its certificate is not trusted.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Running, SECRET, addresses, bellhop};
use crate::bus::server::Server;
use crate::databases::Database;

/// A node that is not started yet, and its address.
fn node(folder: &Path, database: &Database, redis: &Server) -> (Command, String) {
    let [listen, admin] = addresses();
    let settings = [
        &format!("--listen={listen}"),
        &format!("--admin-listen={admin}"),
        &format!("--database-url={}", database.url),
        &format!("--redis-url={}", redis.url()),
        "--log=bellhop=debug",
        SECRET,
    ];
    (bellhop(folder, &settings), format!("http://{listen}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_joined_by_tls_to_a_redis_whose_authority_they_are_told_to_trust() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let redis = Server::encrypted().await;
    let folder = tempfile::tempdir().unwrap();
    let node = || {
        let (mut command, url) = node(folder.path(), &database, &redis);
        command.env("SSL_CERT_FILE", redis.authority());
        let node = Running::start(command);
        node.line("the bus is joined");
        (node, url)
    };
    let ((_one, here), (_other, there)) = (node(), node());

    let listen = ["listen", "--user=42", "--url", &here, SECRET];
    let listener = Running::start(bellhop(folder.path(), &listen));
    listener.line("notification:synced");
    let publisher = ["--scope", "notifications:publish", SECRET];
    let token = super::token(folder.path(), "shop", &publisher);
    // What is transient comes by the bus or not at all.
    let emit = json!({ "userId": "42", "event": "order:shipped", "payload": { "order": 7 } });
    let answer = reqwest::Client::new()
        .post(format!("{there}/api/emit"))
        .bearer_auth(token)
        .json(&emit)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["delivery"], "live");
    let heard: Value = serde_json::from_str(&listener.line("order:shipped")).unwrap();
    assert_eq!(heard["data"]["order"], 7, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_for_which_nobody_vouches_is_reported_with_what_to_set() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let redis = Server::encrypted().await;
    let folder = tempfile::tempdir().unwrap();
    let check = [
        "check-config",
        "--production",
        &format!("--database-url={}", database.url),
        &format!("--redis-url={}", redis.url()),
    ];
    let told = |trusted: Option<&Path>| {
        let mut command = bellhop(folder.path(), &check);
        command.envs(trusted.map(|file| ("SSL_CERT_FILE", file)));
        let Output { stdout, stderr, .. } = command.output().unwrap();
        let text = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let line = text.lines().find(|line| line.contains(" Redis: "));
        line.unwrap_or_else(|| panic!("no Redis in {text}"))
            .to_owned()
    };
    let untrusted = told(None);
    assert!(untrusted.starts_with('✗'), "{untrusted}");
    assert!(untrusted.contains("set SSL_CERT_FILE"), "{untrusted}");
    assert!(!untrusted.contains("mend REDIS_URL"), "{untrusted}");
    let none = told(Some(&folder.path().join("none.pem")));
    assert!(none.contains("cannot be read"), "{none}");
    let trusted = told(Some(&redis.authority()));
    assert!(trusted.contains("TLS and a password"), "{trusted}");

    // A node says so in its log.
    let node = Running::start(node(folder.path(), &database, &redis).0);
    let line = node.line("degraded: the bus is away");
    assert!(line.contains("set SSL_CERT_FILE"), "{line}");
}
