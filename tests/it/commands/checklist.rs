//! `check-config --production`: each point is met or open for a reason that can be acted on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::{SECRET, addresses, bellhop, run, serve};
use crate::databases::{Database, setting};

/// The line of one point.
fn point<'output>(output: &'output str, name: &str) -> &'output str {
    let found = output.lines().find(|line| {
        let rest = line.trim_start_matches(['✓', '✗', ' ']);
        rest.starts_with(|digit: char| digit.is_ascii_digit())
            && rest.contains(&format!(" {name}: "))
    });
    found.unwrap_or_else(|| panic!("no point {name} in {output}"))
}

const POINTS: [&str; 8] = [
    "WSS",
    "origins",
    "sticky sessions",
    "Redis",
    "metrics",
    "connection pool",
    "heartbeat",
    "logs",
];

#[test]
fn the_embedded_default_is_not_for_production() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, error) = run(folder.path(), &["check-config", "--production"]);
    assert_eq!(code, 1);
    for name in POINTS {
        let is_met = matches!(name, "heartbeat" | "logs");
        let line = point(&output, name);
        assert_eq!(line.starts_with('✓'), is_met, "{line}");
    }
    assert!(error.contains("6 of the 8 points"), "{error}");
    let (code, output, _) = run(folder.path(), &["check-config"]);
    assert_eq!(code, 0, "only when it is asked for");
    assert!(output.contains("Nothing was connected to"), "{output}");
}

#[test]
fn one_node_needs_no_redis_and_metrics_are_remarked_on_once() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "check-config",
        "--production",
        "--admin-listen=0.0.0.0:9090",
    ];
    let (_, output, _) = run(folder.path(), &arguments);
    assert!(point(&output, "Redis").starts_with('✗'), "{output}");
    let metrics = point(&output, "metrics");
    assert!(
        metrics.starts_with('✓') && metrics.contains("never expose it"),
        "{metrics}"
    );
    assert_eq!(output.matches("never expose it").count(), 1, "{output}");

    let (_, output, _) = run(folder.path(), &[&arguments[..], &["--nodes=1"]].concat());
    let redis = point(&output, "Redis");
    assert!(
        redis.starts_with('✓') && redis.contains("one node needs none"),
        "{redis}"
    );
}

/// Answers every handshake with a session and every later request with 400, as a node does that does not know it.
fn forgetful() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).unwrap_or(0);
            let is_handshake = request[..length].starts_with(b"GET");
            let (status, body) = if is_handshake {
                ("200 OK", r#"0{"sid":"abc"}"#)
            } else {
                ("400 Bad Request", "")
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _gone = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    format!("ws://{address}")
}

#[test]
fn sticky_sessions_are_tried() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let node = serve(folder, &addresses);
    let tried = |url: &str| {
        let url = format!("--websocket-url={url}");
        let (_, output, _) = run(folder, &["check-config", "--production", &url]);
        point(&output, "sticky sessions").to_owned()
    };
    let held = tried(&format!("ws://{}", addresses[0]));
    assert!(
        held.starts_with('✓') && held.contains("16 requests"),
        "{held}"
    );
    let lost = tried(&forgetful());
    assert!(lost.starts_with('✗') && lost.contains("(400)"), "{lost}");
    drop(node);
    let away = tried(&format!("ws://{}", addresses[0]));
    assert!(
        away.starts_with('✗') && away.contains("cannot be tried from here"),
        "{away}"
    );

    let only = "--socket-io-transports=websocket";
    let (_, output, _) = run(folder, &["check-config", "--production", only]);
    assert!(
        point(&output, "sticky sessions").starts_with('✓'),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_ready_has_no_open_point() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let redis = setting("TEST_REDIS_URL").expect("beside PostgreSQL there is Redis");
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        SECRET,
        "--listen=0.0.0.0:3000",
        "--admin-listen=0.0.0.0:9090",
        "--websocket-url=wss://push.example.com",
        "--cors-origins=https://app.example.com",
        "--socket-io-transports=websocket",
        &format!("--database-url={}", database.url),
        &format!("--redis-url={redis}"),
    ];
    let check = |further: &[&str]| {
        let arguments = [&["check-config", "--production"], &settings[..], further].concat();
        run(folder.path(), &arguments)
    };
    let (code, output, error) = check(&["--nodes=3"]);
    assert_eq!(code, 0, "{output}{error}");
    let pool = point(&output, "connection pool");
    assert!(pool.starts_with("✓ 6 connection pool: 3 × 10"), "{pool}");

    let (code, output, _) = check(&["--nodes=100"]);
    assert_eq!(code, 1);
    let pool = point(&output, "connection pool");
    assert!(
        pool.starts_with('✗') && pool.contains("BELLHOP_DATABASE_POOL=2"),
        "{pool}"
    );
    let (_, output, _) = check(&["--proxy-timeout=30"]);
    assert!(point(&output, "heartbeat").starts_with('✗'), "{output}");
}

#[test]
fn services_that_are_away_are_open_points() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "check-config",
        "--production",
        "--database-url=postgres://u:hunter2@127.0.0.1:1/x",
        "--redis-url=redis://:hunter2@127.0.0.1:1",
    ];
    let (code, output, _) = run(folder.path(), &arguments);
    assert_eq!(code, 1);
    for (name, says) in [
        ("Redis", "Redis does not answer"),
        ("connection pool", "cannot be asked"),
    ] {
        let line = point(&output, name);
        assert!(line.starts_with('✗') && line.contains(says), "{line}");
    }
    assert!(!output.contains("hunter2"), "{output}");
}

#[test]
fn a_variable_that_nothing_reads_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bellhop(folder.path(), &["check-config"]);
    command.envs([
        ("BELLHOP_LISTN", "127.0.0.1:3001"),
        ("BELLHOP_URL", "http://127.0.0.1:3001"),
        ("BELLHOP_SERVICE_PORT", "3000"),
        ("JWT_SECRTE", "a secret that nobody reads, of 40 bytes"),
    ]);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let warnings: Vec<_> = output
        .lines()
        .filter(|line| line.starts_with('!'))
        .collect();
    assert_eq!(
        warnings,
        [
            "! BELLHOP_LISTN is read by nothing; is BELLHOP_LISTEN meant?",
            "! JWT_SECRTE is read by nothing; is JWT_SECRET meant?"
        ]
    );
}
