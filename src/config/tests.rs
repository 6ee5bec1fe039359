//! Settings as an operator gives them.

use clap::Parser;

use super::contradictions::{is_bus_prefix, is_socket_path};
use super::*;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

fn parse(arguments: &[&str]) -> Config {
    Arguments::parse_from(std::iter::once(&"bellhop").chain(arguments)).config
}

#[test]
fn the_defaults_contradict_nothing() {
    assert_eq!(parse(&[]).contradictions(), Vec::<String>::new());
}

#[test]
fn every_contradiction_is_reported() {
    let found = parse(&[
        "--listen=0.0.0.0:3000",
        "--redis-url=http://localhost",
        "--cors-origins=https://a.example/,localhost:3000,https://b.example/path,https://c.example:443",
        "--socket-io-path=socket.io",
        "--bus-prefix=*",
    ])
    .contradictions();
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_server_of_postgres_has_a_host() {
    for (url, usable) in [
        ("postgres://", false),
        ("postgres:///bellhop", false),
        ("postgres:bellhop", false),
        ("postgres://u:p@/bellhop", false),
        ("postgres://db", true),
        ("postgresql://u:p@[::1]:5432/bellhop", true),
        ("postgres:///bellhop?host=/run/postgresql", true),
    ] {
        let found = parse(&["--database-url", url]).contradictions();
        assert_eq!(found.is_empty(), usable, "{url}: {found:?}");
    }
}

#[test]
fn two_listeners_have_two_addresses() {
    let found = |listen: &str, admin: &str| {
        parse(&["--listen", listen, "--admin-listen", admin])
            .contradictions()
            .len()
    };
    assert_eq!(found("127.0.0.1:9090", "127.0.0.1:9090"), 1);
    assert_eq!(found("127.0.0.1:9090", "127.0.0.2:9090"), 0);
    assert_eq!(found("127.0.0.1:0", "127.0.0.1:0"), 0);
}

#[test]
fn a_place_has_no_secret() {
    for (url, place) in [
        (
            "postgres://u:hunter2@db:5432/x?sslmode=require",
            "db:5432/x",
        ),
        ("postgres:///x?host=/run&password=hunter2", "/run/x"),
        ("rediss://:hunter2@redis", "redis"),
        ("sqlite:bellhop.db?mode=rwc", "sqlite:bellhop.db"),
        ("postgres://u:hunter2", "?"),
    ] {
        assert_eq!(Secret::new(url.to_owned()).place(), place, "{url}");
    }
}

#[test]
fn the_socket_path_is_a_plain_path_beside_the_api() {
    for path in [
        "/socket.io/",
        "/socket.io",
        "/a/b_c~d-e",
        "/apis",
        "/v1/api/",
        "/API",
    ] {
        assert!(is_socket_path(path), "{path}");
    }
    for path in [
        "",
        "/",
        "//",
        "socket.io",
        "/a//b",
        "/a//",
        "/./",
        "/a/../b",
        "/a?b",
        "/a#b",
        "/a%20b",
        "/a b",
        "/é",
        "/{id}",
        "/*",
        "/api",
        "/api/",
        "/api/socket.io",
    ] {
        assert!(!is_socket_path(path), "{path}");
    }
    let found = parse(&["--socket-io-path=/api/x"]).contradictions();
    assert!(
        found.iter().any(|text| text.starts_with("SOCKET_IO_PATH ")),
        "{found:?}"
    );
}

#[test]
fn the_bus_prefix_has_no_character_of_a_pattern() {
    for prefix in ["bellhop", "a", "Shop_1:test-2.x:", &"x".repeat(64)] {
        assert!(is_bus_prefix(prefix), "{prefix}");
    }
    for prefix in [
        "",
        "a*",
        "a?",
        "[a]",
        "a\\b",
        "a b",
        "{a}",
        "é",
        &"x".repeat(65),
    ] {
        assert!(!is_bus_prefix(prefix), "{prefix}");
    }
    let found = parse(&["--bus-prefix=a*"]).contradictions();
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("BELLHOP_BUS_PREFIX ")),
        "{found:?}"
    );
}

#[test]
fn a_secret_is_never_printed() {
    let config = parse(&[
        "--jwt-secret=correct-horse-battery-staple-0123456789",
        "--database-url=postgres://u:hunter2@db/x",
    ]);
    let text = format!("{config:?}");
    assert!(
        !text.contains("correct-horse") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn clients_are_told_an_origin() {
    for (url, usable) in [
        ("wss://push.example.com", true),
        ("http://localhost:3000/", true),
        ("push.example.com", false),
        ("wss://push.example.com/socket.io/", false),
        ("wss://user@push.example.com", false),
        ("wss://:hunter2@push.example.com", false),
        ("ftp://push.example.com", false),
    ] {
        let found = parse(&["--websocket-url", url]).contradictions();
        assert_eq!(found.is_empty(), usable, "{url}: {found:?}");
    }
}

#[test]
fn switches_and_lists_are_read_as_they_are_spelled() {
    let config = parse(&[]);
    assert!(config.listen.enable_websocket);
    assert_eq!(
        config.listen.socket_io_transports,
        [Transport::Websocket, Transport::Polling]
    );
    let config = parse(&["--enable-websocket=false", "--socket-io-transports=polling"]);
    assert!(!config.listen.enable_websocket);
    assert_eq!(config.listen.socket_io_transports, [Transport::Polling]);
}

#[test]
fn an_api_key_has_one_name_and_a_name_one_key() {
    let (first, second) = ("0a".repeat(32), "0B".repeat(32));
    let found = |keys: &[String]| {
        let keys = format!("--api-keys={}", keys.join(","));
        parse(&[&keys]).contradictions().len()
    };
    assert_eq!(
        found(&[format!("shop:{first}"), format!("crm:{second}")]),
        0
    );
    assert_eq!(
        found(&[format!("shop:{first}"), format!("shop:{second}")]),
        1
    );
    assert_eq!(found(&[format!("shop:{first}"), format!("crm:{first}")]), 1);
    assert_eq!(
        found(&[format!("shop:{first}"), format!("shop:{first}")]),
        2
    );
}

#[test]
fn an_api_key_ends_the_development_sign_in() {
    let key = format!("--api-keys=shop:{}", "0a".repeat(32));
    assert!(parse(&[]).auth.allows_dev_sign_in());
    let with_key = parse(&[&key]).auth;
    assert!(with_key.is_embedded() && !with_key.allows_dev_sign_in());
}

#[test]
fn an_event_limit_is_a_rate_and_a_burst() {
    assert_eq!("5/20".parse(), Ok(EventLimit { rate: 5, burst: 20 }));
    assert_eq!("7".parse(), Ok(EventLimit { rate: 7, burst: 7 }));
    assert_eq!("0".parse(), Ok(EventLimit { rate: 0, burst: 0 }));
    assert!("a/b".parse::<EventLimit>().is_err());
}
