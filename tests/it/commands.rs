//! The program as a person runs it: the embedded default in an empty folder, and what each command answers.

mod checklist;
mod encrypted;
mod import;
mod inspect;
mod tokens;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bellhop::command::Arguments;
use clap::CommandFactory;
use serde_json::{Value, json};

/// How long the program may take for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// A secret that nodes and commands share, where none is to be made up.
const SECRET: &str = "--jwt-secret=0123456789abcdef0123456789abcdef";

/// The program in `folder`, with nothing in its environment but what it needs to run.
pub fn bellhop(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = bellhop(folder, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A running `bellhop`; it is killed when this goes out of scope.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .all(|line| sender.send(line).is_ok());
            });
        }
        Self { child, lines }
    }

    /// The next line of output with `text` in it.
    pub fn line(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut last = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("waited for a line with {text:?}, after {last:?}"));
            if line.contains(text) {
                return line;
            }
            last = line;
        }
    }

    /// Memory that it holds, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end, and answers the exit code.
    pub fn ends(mut self) -> Option<i32> {
        // Its outputs close when it ends.
        let deadline = Instant::now() + DEADLINE;
        while self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Two free ports, as listen addresses.
pub fn addresses() -> [String; 2] {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

/// A node in `folder` with nothing set but where it listens.
pub fn serve(folder: &Path, [listen, admin]: &[String; 2]) -> Running {
    let mut command = bellhop(
        folder,
        &["serve", "--listen", listen, "--admin-listen", admin],
    );
    command.env("BELLHOP_DRAIN_SECONDS", "0");
    let node = Running::start(command);
    node.line("Stop: Ctrl-C");
    node
}

#[test]
fn the_embedded_default_delivers_and_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let url = format!("http://{}", addresses[0]);
    let node = serve(folder, &addresses);
    let secret = std::fs::metadata(folder.join("bellhop.secret")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777,
        0o600
    );

    let listener = Running::start(bellhop(folder, &["listen", "--user", "42", "--url", &url]));
    listener.line("notification:synced");
    let (code, sent, error) = run(
        folder,
        &["send", "--user", "42", "--title", "Hello", "--url", &url],
    );
    assert_eq!(code, 0, "{error}");
    let sent: Value = serde_json::from_str(&sent).unwrap();
    let heard: Value = serde_json::from_str(&listener.line("notification:new")).unwrap();
    assert_eq!(
        (&heard["event"], &heard["data"]["id"]),
        (&json!("notification:new"), &sent["id"])
    );

    node.signal("-KILL");
    drop(node);
    let node = serve(folder, &addresses);
    listener.line("notification:synced");
    let (code, ..) = run(
        folder,
        &["send", "--user", "42", "--title", "Again", "--url", &url],
    );
    assert_eq!(code, 0);
    let heard: Value = serde_json::from_str(&listener.line("notification:new")).unwrap();
    assert_eq!(
        (&heard["data"]["title"], &heard["data"]["seq"]),
        (&json!("Again"), &json!(2))
    );

    let everything = Running::start(bellhop(
        folder,
        &["listen", "--user", "42", "--since", "0", "--url", &url],
    ));
    for title in ["Hello", "Again"] {
        let heard: Value = serde_json::from_str(&everything.line("notification:new")).unwrap();
        assert_eq!(heard["data"]["title"], title);
    }
    node.signal("-TERM");
    assert_eq!(node.ends(), Some(0));
}

/// What a node prints until it serves, with these settings beside where it listens.
fn banner(folder: &Path, setting: &str) -> (Running, String, String) {
    let [listen, admin] = addresses();
    let arguments = ["--listen", &listen, "--admin-listen", &admin, setting];
    let node = Running::start(bellhop(folder, &arguments));
    let mut printed = String::new();
    while !printed.contains("Stop: Ctrl-C") {
        printed += &node.line("");
        printed.push('\n');
    }
    (node, format!("http://{listen}"), printed)
}

#[tokio::test]
async fn the_banner_offers_what_there_is() {
    let status = async |url: String| reqwest::get(url).await.unwrap().status();

    let folder = tempfile::tempdir().unwrap();
    let (node, url, printed) = banner(folder.path(), "--log=warn");
    assert!(printed.contains("embedded default"), "{printed}");
    assert!(printed.contains(&format!("{url}/api/docs")), "{printed}");
    assert_eq!(status(format!("{url}/api/docs")).await, 200);
    drop(node);

    let key = format!("--api-keys=shop:{}", "0".repeat(64));
    let (_node, url, printed) = banner(folder.path(), &key);
    assert!(!printed.contains("embedded default"), "{printed}");
    let off = printed.lines().find(|line| line.contains("/api/docs"));
    assert!(off.unwrap().contains("Off") && off.unwrap().contains("/api/dev/token"));
    assert_eq!(status(format!("{url}/api/docs")).await, 404);
}

#[test]
fn without_sockets_everything_says_to_poll() {
    let folder = tempfile::tempdir().unwrap();
    let (node, url, printed) = banner(folder.path(), "--enable-websocket=false");
    assert!(!printed.contains("listen --user"), "{printed}");
    assert!(
        printed.contains("No sockets (ENABLE_WEBSOCKET=false)"),
        "{printed}"
    );
    // The log is another stream, so its line may come later.
    if !printed.contains("there are no sockets") {
        node.line("there are no sockets");
    }

    for command in [&["listen", "--user", "42"][..], &["probe"]] {
        let (code, _, error) = run(folder.path(), &[command, &["--url", &url]].concat());
        assert_eq!(code, 1, "{error}");
        assert!(
            error.contains("ENABLE_WEBSOCKET=false") && error.contains("poll"),
            "{error}"
        );
    }
}

#[test]
fn the_banners_curl_works() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let [listen, admin] = &addresses;
    let node = Running::start(bellhop(
        folder.path(),
        &["--listen", listen, "--admin-listen", admin],
    ));
    let mut command = node.line("curl -X POST");
    while command.ends_with('\\') {
        command.pop();
        command += &node.line("");
    }
    let listener = Running::start(bellhop(
        folder.path(),
        &[
            "listen",
            "--user",
            "42",
            "--url",
            &format!("http://{listen}"),
        ],
    ));
    listener.line("notification:synced");

    let output = Command::new("sh")
        .args(["-c", &command])
        .current_dir(folder.path())
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["title"], "Hello", "{command}");
    assert!(
        listener
            .line("notification:new")
            .contains(answer["id"].as_str().unwrap())
    );
}

#[test]
fn a_node_is_probed_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let node = serve(folder.path(), &addresses);
    let url = format!("http://{}", addresses[0]);
    let (code, output, error) = run(folder.path(), &["probe", "--url", &url]);
    assert_eq!(code, 0, "{error}");
    for step in ["✓ handshake", "✓ publish", "✓ receive"] {
        assert!(output.contains(step), "{output}");
    }
    drop(node);
    let (code, _, error) = run(folder.path(), &["probe", "--url", &url]);
    assert_eq!(code, 1);
    assert!(error.contains("✗ handshake"), "{error}");
}

#[test]
fn a_second_process_does_not_get_the_database_file() {
    let folder = tempfile::tempdir().unwrap();
    let _first = serve(folder.path(), &addresses());
    let [listen, admin] = &addresses();
    let (code, _, error) = run(
        folder.path(),
        &["--listen", listen, "--admin-listen", admin],
    );
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("bellhop.db") && error.contains("in use"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (arguments, code, says) in [
        (&["token", "--user", "42"][..], 1, "JWT_SECRET"),
        (
            &[
                "send",
                "--user",
                "42",
                "--title",
                "x",
                "--url",
                "http://127.0.0.1:1",
            ],
            1,
            "JWT_SECRET",
        ),
        (
            &[
                "listen",
                "--user",
                "42",
                "--token",
                "x",
                "--url",
                "http://127.0.0.1:1",
            ],
            1,
            "is a node running there?",
        ),
        (&["listen", "--user", "a b"], 2, "user id"),
        (&["send", "--user", "42"], 2, "--title"),
        (
            &["send", "--user", "42", "--title", "x", "--data", "7"],
            2,
            "JSON object",
        ),
        (&["token", "--user", "42", "--ttl", "soon"], 2, "15m"),
        (&["nonsense"], 2, "unrecognized subcommand"),
        (
            &["--listen", "127.0.0.1:0", "serve"],
            2,
            "bellhop serve --listen",
        ),
        (&["listen"], 2, "--user"),
        (
            &["probe", "--token", "x.e30.x"],
            1,
            "no JWT with a user id in its claim \"sub\"",
        ),
        (
            &[
                "send",
                "--user",
                "42",
                "--title",
                "x",
                "--token",
                "x",
                "--url",
                "http://127.0.0.1:1",
            ],
            1,
            "http://127.0.0.1:1: cannot connect (Connection refused (os error 111)); is a node running there?",
        ),
        (
            &[
                "send",
                "--user",
                "42",
                "--title",
                "x",
                "--token",
                "x",
                "--url",
                "localhost:3000",
            ],
            1,
            "\"localhost:3000\" is not an http:// or https:// address",
        ),
        (&["migrate", "--database-url", "mysql://x"], 1, "postgres"),
        (
            &[
                "check-config",
                "--listen",
                "0.0.0.0:0",
                "--redis-url",
                "http://x",
            ],
            2,
            "settings cannot be used",
        ),
    ] {
        let (exit, output, error) = run(folder, arguments);
        assert_eq!(exit, code, "{arguments:?}: {output}{error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[test]
fn a_node_that_cannot_start_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, says) in [
        (["--listen", "0.0.0.0:0"], "JWT_SECRET"),
        (["--redis-url", "redis://127.0.0.1"], "DATABASE_URL"),
        (["--database-url", "postgres://"], "name a host"),
        (["--jwt-secret", "short"], "openssl rand -hex 32"),
        (["--log", "a=b=c"], "RUST_LOG"),
        (["--socket-io-path", "/api/"], "SOCKET_IO_PATH"),
        (["--bus-prefix", "*"], "BELLHOP_BUS_PREFIX"),
        (["--listen", &taken], "BELLHOP_LISTEN"),
    ] {
        // A port that is taken is no fault of the settings.
        let code = if says == "BELLHOP_LISTEN" { 1 } else { 2 };
        let free = ["--admin-listen", "127.0.0.1:0"];
        let (exit, _, error) = run(folder, &[&arguments[..], &free].concat());
        assert_eq!(exit, code, "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
        // The settings are checked before the ports.
        let taken = ["--admin-listen", &taken];
        let (exit, _, error) = run(folder, &[&arguments[..], &taken].concat());
        assert_eq!(exit, 2, "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
        if says != "BELLHOP_LISTEN" {
            let checked = run(folder, &[&["check-config"], &arguments[..]].concat());
            assert!(checked.1.contains(says), "{arguments:?}: {checked:?}");
            assert_eq!(checked.0, 2, "{arguments:?}");
        }
    }
}

#[test]
fn an_api_key_publishes_where_there_is_no_secret() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let addresses = addresses();
    let [listen, admin] = &addresses;
    let keys = crate::keys::configured(&[("shop", "key-1")]);
    let serve = ["serve", "--listen", listen, "--admin-listen", admin, &keys];
    let node = Running::start(bellhop(home.path(), &serve));
    node.line("Stop: Ctrl-C");
    let url = format!("--url=http://{listen}");
    let token = format!("--token={}", token(home.path(), "42", &[]));

    let elsewhere = elsewhere.path();
    let send = ["send", "--user=42", "--title=x", &url, &token];
    let (code, output, error) = run(elsewhere, &[&send[..], &["--api-key=key-1"]].concat());
    assert_eq!(code, 0, "{output}{error}");
    let (code, _, error) = run(elsewhere, &[&send[..], &["--api-key=key-2"]].concat());
    assert_eq!(code, 1);
    assert!(error.contains("in the node's BELLHOP_API_KEYS?"), "{error}");
    for command in [&["probe"][..], &["inspect", "--user=42"]] {
        let further = [&url, &token, "--api-key=key-1"];
        let (code, output, error) = run(elsewhere, &[command, &further].concat());
        assert_eq!(code, 0, "{command:?}: {output}{error}");
    }
    let (_, help, _) = run(elsewhere, &["send", "--help"]);
    assert!(help.contains("--api-key ") && !help.contains("--api-keys"));
}

#[test]
fn a_key_that_cannot_be_read_is_a_setting_that_makes_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let key = ["--jwt-public-key-file=none.pem", "--listen=127.0.0.1:0"];
    for command in ["serve", "check-config"] {
        let arguments = [&[command, "--admin-listen=127.0.0.1:0"], &key[..]].concat();
        let (exit, output, error) = run(folder.path(), &arguments);
        assert_eq!(exit, 2, "{command}: {output}{error}");
        assert!(format!("{output}{error}").contains("none.pem"), "{command}");
    }
}

/// A token for `user`, signed with the node's secret in `folder`.
fn token(folder: &Path, user: &str, further: &[&str]) -> String {
    let (code, token, error) = run(folder, &[&["token", "--user", user], further].concat());
    assert_eq!(code, 0, "{error}");
    token.trim().to_owned()
}

#[test]
fn a_given_token_says_who_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let _node = serve(folder, &addresses);
    let url = format!("http://{}", addresses[0]);
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path();
    let plain = token(folder, "42", &[]);
    let publisher = token(folder, "42", &["--scope", "notifications:publish"]);

    let given = ["listen", "--url", &url, "--token", &plain];
    let listener = Running::start(bellhop(elsewhere, &given));
    let line = listener.line("notification:synced");
    assert!(
        line.starts_with(r#"{"event":"notification:synced","data":{"#),
        "{line}"
    );
    let (code, _, error) = run(elsewhere, &[&given[..], &["--user", "43"]].concat());
    assert_eq!(code, 1);
    assert!(error.contains("for user 42, not for 43"), "{error}");

    let probe = ["probe", "--url", &url, "--token"];
    let (code, output, error) = run(elsewhere, &[&probe[..], &[&publisher]].concat());
    assert_eq!((code, output.lines().count()), (0, 3), "{error}");
    assert!(listener.line("notification:new").contains("bellhop probe"));
    let (code, _, error) = run(elsewhere, &[&probe[..], &[&plain]].concat());
    assert_eq!(code, 1);
    let says = "✗ publish: 403 forbidden: ";
    let hint = "(the token needs the scope notifications:publish)";
    assert!(error.contains(says) && error.contains(hint), "{error}");
}

#[test]
fn a_refusal_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let _node = serve(folder, &addresses);
    let stranger = "--jwt-secret=0123456789abcdef0123456789abcdef";
    // The commands find the node by its own settings.
    let file = format!("BELLHOP_LISTEN={}\n", addresses[0]);
    std::fs::write(folder.join(".env"), file).unwrap();
    let metrics = format!("http://{}", addresses[1]);
    for (arguments, says) in [
        (&["probe", stranger][..], "(is JWT_SECRET the node's?)"),
        (
            &["listen", "--user", "42", stranger],
            "token_invalid (is JWT_SECRET the node's?)",
        ),
        (
            &["send", "--user", "42", "--title", "x", stranger],
            "bellhop: 401 token_invalid: ",
        ),
        (
            &["send", "--user", "42", "--title", "", "--priority", "soon"],
            "written.\n  /priority: LOW, NORMAL, HIGH or URGENT\n  /title: ",
        ),
        (
            &["send", "--user", "42", "--title", "x", "--url", &metrics],
            "bellhop: 404 Not Found",
        ),
    ] {
        let (code, _, error) = run(folder, arguments);
        assert_eq!(code, 1, "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    let (code, _, error) = run(folder, &["send", "--user", "42", "--title", "x"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn a_node_that_waits_for_its_store_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let [listen, admin] = &addresses();
    let database = "postgres://somebody:hunter2@127.0.0.1:1/shop";
    let mut command = bellhop(
        folder.path(),
        &[
            "--listen",
            listen,
            "--admin-listen",
            admin,
            "--database-url",
            database,
        ],
    );
    command.env("JWT_SECRTE", "a secret that nobody reads, of 40 bytes");
    let node = Running::start(command);
    node.line("JWT_SECRTE is read by nothing; is JWT_SECRET meant?");
    let line = node.line("waiting for the store");
    let told = line.contains("Connection refused (os error 111)\"")
        && line.contains(r#""store":"127.0.0.1:1/shop""#);
    assert!(told && !line.contains("hunter2"), "{line}");
    let curl = Command::new("curl")
        .args(["-s", &format!("http://{admin}/startupz")])
        .output();
    assert_eq!(curl.unwrap().stdout, b"waiting for the store\n");
    node.signal("-TERM");
    assert_eq!(node.ends(), Some(0));
}

#[test]
fn what_can_be_done_without_a_node_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (code, output, _) = run(folder, &["--help"]);
    assert_eq!(code, 0);
    for word in [
        "serve",
        "listen",
        "send",
        "token",
        "migrate",
        "check-config",
        "probe",
        "DATABASE_URL",
        "REDIS_URL",
        "CORS_ORIGINS",
    ] {
        assert!(output.contains(word), "{word}");
    }
    let (code, token, _) = run(
        folder,
        &[
            "token",
            "--user",
            "42",
            "--scope",
            "notifications:publish",
            "--ttl",
            "15m",
            SECRET,
        ],
    );
    assert_eq!((code, token.trim().split('.').count()), (0, 3));
    let (code, output, _) = run(folder, &["check-config"]);
    assert_eq!(code, 0);
    assert!(output.contains("✓ listens on 127.0.0.1:3000"), "{output}");
    assert!(!output.contains('!'), "{output}");
    let public = ["check-config", "--admin-listen", "0.0.0.0:9090"];
    let (code, output, _) = run(folder, &public);
    assert_eq!(code, 0);
    assert!(output.contains("\n! BELLHOP_ADMIN_LISTEN"), "{output}");
    for lonely in ["--nodes=3", "--proxy-timeout=30"] {
        let (code, _, error) = run(folder, &["check-config", lonely]);
        assert_eq!(code, 2, "{lonely}");
        assert!(error.contains("--production"), "{error}");
    }
    assert!(
        !folder.join("bellhop.secret").exists(),
        "checking makes nothing"
    );
    let (code, output, _) = run(folder, &["migrate", "--database-url", "sqlite:here.db"]);
    assert_eq!((code, output.as_str()), (0, "2 migrations applied\n"));
    let (code, output, _) = run(folder, &["migrate", "--database-url", "sqlite:here.db"]);
    assert_eq!((code, output.as_str()), (0, "the schema is up to date\n"));
    std::fs::write(folder.join(".env"), "BELLHOP_LISTEN=127.0.0.1:4321\n").unwrap();
    let (_, output, _) = run(folder, &["check-config"]);
    assert!(output.contains("✓ listens on 127.0.0.1:4321"), "{output}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = Arguments::command();
    let subcommands = arguments.get_subcommands();
    let variables: Vec<&str> = std::iter::once(&arguments)
        .chain(subcommands)
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    assert!(variables.contains(&"JWT_ISSUER") && variables.contains(&"BELLHOP_URL"));
    let answers = |command: &mut Command| {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    };
    for arguments in [
        &["check-config"][..],
        &["send", "--user", "42", "--title", "x"],
    ] {
        let unset = answers(&mut bellhop(folder, arguments));
        let empty = variables.iter().map(|name| (name, ""));
        assert_eq!(answers(bellhop(folder, arguments).envs(empty)), unset);
        let lines: String = variables.iter().map(|name| format!("{name}=\n")).collect();
        std::fs::write(folder.join(".env"), lines).unwrap();
        assert_eq!(answers(&mut bellhop(folder, arguments)), unset);
        std::fs::remove_file(folder.join(".env")).unwrap();
    }

    let mut command = bellhop(folder, &["token", "--user", "42", SECRET]);
    let claims = ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_USER_CLAIM"];
    let (_, token, _) = answers(command.envs(claims.map(|name| (name, ""))));
    let payload = token.split('.').nth(1).unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let names: Vec<_> = payload.as_object().unwrap().keys().collect();
    assert_eq!(names, ["exp", "iat", "sub"]);
}

/// The library under the sockets writes packets to the log, and the first of them has the token.
#[test]
fn no_filter_makes_the_log_tell_what_clients_send() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [listen, admin] = &addresses();
    let mut command = bellhop(
        folder,
        &["serve", "--listen", listen, "--admin-listen", admin],
    );
    command.env(
        "RUST_LOG",
        "trace,tungstenite=trace,tungstenite::protocol=trace,sqlx::query=trace",
    );
    let node = Running::start(command);
    node.line("Stop: Ctrl-C");
    let url = format!("http://{listen}");
    let (code, _, error) = run(folder, &["probe", "--url", &url]);
    assert_eq!(code, 0, "{error}");

    node.signal("-TERM");
    let mut own = 0;
    while let Ok(line) = node.lines.recv_timeout(DEADLINE) {
        assert!(
            !line.contains("eyJ") && !line.contains("tungstenite") && !line.contains("sqlx"),
            "{line}"
        );
        own += usize::from(line.contains(r#""level":"DEBUG""#));
    }
    assert!(own > 0, "Bellhop's own messages are there");
}

#[test]
fn the_development_sign_in_is_only_for_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let _node = serve(folder.path(), &addresses);
    let url = format!("http://{}/api/dev/token", addresses[0]);
    let curl = |further: &[&str]| {
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-H",
            "content-type: application/json",
            "-d",
            r#"{"userId":"42"}"#,
        ]);
        String::from_utf8(command.args(further).arg(&url).output().unwrap().stdout).unwrap()
    };
    assert_eq!(curl(&[]), "200");
    for header in [
        "Host: bellhop.example",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "Origin: http://localhost:4200",
    ] {
        assert_eq!(curl(&["-H", header]), "404", "{header}");
    }
}
