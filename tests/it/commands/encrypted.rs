//! Nodes that are joined by a Redis behind TLS and a password, and what is said when its certificate is not trusted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Running, addresses, bellhop, run};
use crate::bus::eventually;
use crate::databases::Database;

const SECRET: &str = "--jwt-secret=0123456789abcdef0123456789abcdef";

/// What [`certificate`] asks for: an authority that signed itself, and a server at an address.
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

/// A redis-server that speaks nothing but TLS, to whoever has its password; it ends with the value.
struct Encrypted {
    port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Encrypted {
    /// Returns when it answers.
    async fn started() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let [address, _] = addresses();
        let (_, port) = address.rsplit_once(':').unwrap();
        let process = Command::new("redis-server")
            .current_dir(folder.path())
            .args(["--port", "0", "--tls-port", port, "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", "server.pem"])
            .args(["--tls-key-file", "key.pem"])
            .args(["--tls-ca-cert-file", "authority.pem"])
            .args(["--tls-auth-clients", "no", "--requirepass", "hunter2"])
            .args(["--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let port = port.parse().unwrap();
        eventually("redis-server answers", async || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Self {
            port,
            folder,
            process,
        }
    }

    fn url(&self) -> String {
        format!("--redis-url=rediss://:hunter2@127.0.0.1:{}", self.port)
    }

    /// What those have to trust who connect to it.
    fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Makes an authority and a server's certificate of it, and their key, in `folder`.
fn certificate(folder: &Path) {
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

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_joined_by_tls_to_a_redis_whose_authority_they_are_told_to_trust() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let redis = Encrypted::started().await;
    let folder = tempfile::tempdir().unwrap();
    let database = format!("--database-url={}", database.url);
    let node = || {
        let [listen, admin] = addresses();
        let settings = ["--listen", &listen, "--admin-listen", &admin, SECRET];
        let services = [database.as_str(), &redis.url()];
        let mut command = bellhop(folder.path(), &[&settings[..], &services].concat());
        command.env("SSL_CERT_FILE", redis.authority());
        let node = Running::start(command);
        node.line("\"serving\"");
        (node, format!("http://{listen}"))
    };
    let ((_one, here), (_other, there)) = (node(), node());

    let listen = ["listen", "--user=42", "--url", &here, SECRET];
    let listener = Running::start(bellhop(folder.path(), &listen));
    listener.line("notification:synced");
    // What is transient comes by the bus or not at all.
    let scope = ["--scope", "notifications:publish", SECRET];
    let (_, token, _) = run(
        folder.path(),
        &[&["token", "--user=shop"][..], &scope].concat(),
    );
    let sent = reqwest::Client::new()
        .post(format!("{there}/api/emit"))
        .bearer_auth(token.trim())
        .json(&json!({ "userId": "42", "event": "order:shipped", "payload": { "order": 7 } }))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 202, "{:?}", sent.text().await);
    let heard: Value = serde_json::from_str(&listener.line("order:shipped")).unwrap();
    assert_eq!(heard["data"]["order"], 7, "{heard}");
}

#[tokio::test]
async fn a_redis_whose_certificate_nobody_vouches_for_is_not_spoken_to() {
    let redis = Encrypted::started().await;
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "--database-url=postgres://u@127.0.0.1:1/x";
    let check = ["check-config", "--production", nowhere, &redis.url()];
    let (_, output, _) = run(folder.path(), &check);
    let said = output.lines().find(|line| line.contains(" Redis: "));
    let said = said.unwrap();
    assert!(said.starts_with('✗'), "{said}");
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    assert!(!output.contains("hunter2"), "{output}");

    let mut trusting = bellhop(folder.path(), &check);
    trusting.env("SSL_CERT_FILE", redis.authority());
    let output = trusting.output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("TLS and a password"), "{output}");
}
