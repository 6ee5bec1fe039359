//! A Redis of the test's own, which may be killed, paused and started anew; and the one that is shared.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
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
    /// It speaks nothing but TLS, to whoever has its password.
    encrypted: bool,
}

/// What [`certify`] asks for: an authority that signed itself, and a server at an address.
const REQUEST: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = Bellhop's tests
[authority]
basicConstraints = critical, CA:TRUE
[server]
subjectAltName = IP:127.0.0.1
";

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
            encrypted: false,
        }
    }

    pub async fn started() -> Self {
        let mut server = Self::new();
        server.start().await;
        server
    }

    /// One that speaks TLS, with a certificate that [`Server::authority`] vouches for.
    pub async fn encrypted() -> Self {
        let mut server = Self::new();
        certify(server.directory.path());
        server.encrypted = true;
        server.start().await;
        server
    }

    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    pub fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    pub fn url(&self) -> String {
        let (scheme, password) = match self.encrypted {
            true => ("rediss", ":hunter2@"),
            false => ("redis", ""),
        };
        format!("{scheme}://{password}127.0.0.1:{}", self.port)
    }

    /// Returns when it answers.
    pub async fn start(&mut self) {
        let port = self.port.to_string();
        let listen = match self.encrypted {
            true => &[
                "--port",
                "0",
                "--tls-port",
                &port,
                "--tls-cert-file",
                "server.pem",
                "--tls-key-file",
                "key.pem",
                "--tls-ca-cert-file",
                "authority.pem",
                "--tls-auth-clients",
                "no",
                "--requirepass",
                "hunter2",
            ][..],
            false => &["--port", &port],
        };
        let process = Command::new("redis-server")
            .args(listen)
            .args(["--bind", "127.0.0.1", "--save", ""])
            .current_dir(self.directory.path())
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

/// Makes an authority, a server's certificate of it, and their key, in `folder`.
fn certify(folder: &Path) {
    std::fs::write(folder.join("request.cnf"), REQUEST).unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    openssl("ecparam -name prime256v1 -genkey -noout -out key.pem");
    openssl(
        "req -config request.cnf -new -x509 -days 1 -key key.pem -extensions authority -out authority.pem",
    );
    openssl("req -config request.cnf -new -key key.pem -out server.csr");
    openssl(
        "x509 -req -in server.csr -days 1 -CA authority.pem -CAkey key.pem -set_serial 1 -extfile request.cnf -extensions server -out server.pem",
    );
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
