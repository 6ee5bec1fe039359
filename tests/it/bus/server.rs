//! A Redis of the test's own, which may be killed, paused and started anew; and the one that is shared.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use fred::prelude::*;
use fred::types::CustomCommand;

/// The shared Redis. Unset outside CI: the test says that it is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
#[expect(clippy::disallowed_methods, reason = "the tests' own settings")]
pub fn shared(test: &str) -> Option<String> {
    let url = std::env::var("TEST_REDIS_URL").ok();
    let in_ci = std::env::var_os("CI").is_some();
    assert!(
        url.is_some() || !in_ci,
        "{test}: CI must set TEST_REDIS_URL"
    );
    if url.is_none() {
        eprintln!("{test}: skipped, because TEST_REDIS_URL is not set");
    }
    url
}

/// A redis-server process; it ends with the value.
pub struct Server {
    port: u16,
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// A server that is not started yet, on a port that is free now.
    pub fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self {
            port,
            directory: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    pub async fn started() -> Self {
        let mut server = Self::new();
        server.start().await;
        server
    }

    pub fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns when it answers.
    pub async fn start(&mut self) {
        let process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        super::eventually("the server answers", async || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// `STOP`: it holds its connections and answers nothing; `CONT`: it goes on.
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap().id();
        let sent = Command::new("kill")
            .args(["-s", signal, &process.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Somebody with a Redis client: an operator, or an attacker.
pub struct Outsider(pub Client);

impl Outsider {
    pub async fn at(url: &str) -> Self {
        let client = Builder::from_config(Config::from_url(url).unwrap())
            .build()
            .unwrap();
        client.init().await.unwrap();
        Self(client)
    }

    pub async fn ask(&self, command: &'static str, arguments: &[&str]) -> Value {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let command = CustomCommand::new_static(command, None, false);
        self.0.custom(command, arguments).await.unwrap()
    }

    pub async fn publish(&self, channel: &str, bytes: &[u8]) {
        self.0.publish::<i64, _, _>(channel, bytes).await.unwrap();
    }

    /// Subscriptions to `channel`, as the server counts them.
    pub async fn subscribers(&self, channel: &str) -> i64 {
        let counts = self.ask("PUBSUB", &["NUMSUB", channel]).await;
        counts.into_array().pop().unwrap().as_i64().unwrap()
    }

    /// How often the server has carried out `command` (in lower case).
    pub async fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO", &["commandstats"]).await;
        let stats = stats.as_string().unwrap();
        let line = format!("cmdstat_{command}:calls=");
        let calls = stats
            .lines()
            .find_map(|shown| shown.strip_prefix(&line)?.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    }
}
