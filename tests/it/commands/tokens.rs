//! `key` and `check-token`: what they print is what a node then does.

use std::io::Write as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Running, SECRET, addresses, bellhop, run, serve, token};
use crate::databases::Database;

#[test]
fn a_new_key_is_shown_once_with_the_setting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (code, output, told) = run(folder, &["key", "--name", "shop"]);
    let lines: Vec<_> = output.lines().collect();
    let [key, setting] = lines[..] else {
        panic!("{output}");
    };
    assert_eq!(code, 0, "{told}");
    let random = BASE64_URL_SAFE_NO_PAD.decode(key.strip_prefix("bh_").unwrap());
    assert_eq!(random.unwrap().len(), 32, "256 bits");
    let digest: String = Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(setting, format!("BELLHOP_API_KEYS=shop:{digest}"));
    assert!(told.contains("X-API-Key"), "{told}");

    let (_, another, _) = run(folder, &["key", "--name", "shop"]);
    assert_ne!(another.lines().next(), Some(key));
    let (code, _, error) = run(folder, &["key", "--name", "a b"]);
    assert_eq!(code, 2);
    assert!(error.contains("1 to 64 of A-Z"), "{error}");
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        0,
        "kept nowhere"
    );
}

#[test]
fn a_setting_that_cannot_be_read_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for key in ["hunter2", "shop:hunter2"] {
        let mut command = bellhop(folder, &["check-config"]);
        let output = command.env("BELLHOP_API_KEYS", key).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("BELLHOP_API_KEYS"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    std::fs::write(folder.join(".env"), "JWT_SECRET=hunter2 and more\n").unwrap();
    let (code, _, told) = run(folder, &["check-config"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains(".env") && told.contains("quotes"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_names_the_database_without_its_password() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let mut url = url::Url::parse(&database.url).unwrap();
    if url.password().is_none() {
        url.set_password(Some("hunter2")).unwrap();
    }
    let password = url.password().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [listen, admin] = addresses();
    let url = format!("--database-url={url}");
    let arguments = ["serve", &url, "--listen", &listen, "--admin-listen", &admin];
    let node = Running::start(bellhop(folder.path(), &arguments));
    let line = node.line("Bellhop serves at");
    assert!(line.contains(&format!("http://{listen}")), "{line}");
    assert!(!line.contains(password), "{line}");
}

#[test]
fn a_node_believes_the_key_whose_setting_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, output, _) = run(folder, &["key"]);
    let (key, setting) = output.trim().split_once('\n').unwrap();
    std::fs::write(folder.join(".env"), format!("{setting}\n")).unwrap();
    let addresses = addresses();
    let _node = serve(folder, &addresses);
    let publish = |key: &str| {
        let output = std::process::Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["-H", &format!("X-API-Key: {key}")])
            .args(["-H", "content-type: application/json"])
            .args(["-d", r#"{"userId":"42","title":"Hello"}"#])
            .arg(format!("http://{}/api/notifications", addresses[0]))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(publish(key), "201");
    assert_eq!(publish("bh_somebody-elses"), "401");
}

#[test]
fn a_scope_that_is_no_string_is_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    let secret = SECRET.strip_prefix("--jwt-secret=").unwrap();
    let exp = crate::auth::now() + 600;
    for (scope, is_read) in [
        (json!(["notifications:publish"]), false),
        (json!("a notifications:publish"), true),
    ] {
        let token = crate::auth::sign(
            &json!({ "sub": "shop", "exp": exp, "scope": scope }),
            secret,
        );
        let (code, output, _) = run(folder.path(), &["check-token", &token, SECRET]);
        assert_eq!(code, 0, "{output}");
        assert_eq!(output.contains("publisher: yes"), is_read, "{output}");
        assert_eq!(
            output.contains("scope is not a string"),
            !is_read,
            "{output}"
        );
    }
}

#[test]
fn a_token_is_explained_as_the_node_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = token(folder, "42", &[SECRET]);
    let publisher = token(
        folder,
        "shop",
        &[SECRET, "--scope", "notifications:publish"],
    );

    let (code, output, error) = run(folder, &["check-token", &good, SECRET]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    for line in ["✓ believed: user 42", "publisher: no", " min)"] {
        assert!(output.contains(line), "{output}");
    }
    let (_, output, _) = run(folder, &["check-token", &publisher, SECRET, "--json"]);
    let found: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&found["believed"], &found["userId"], &found["publisher"]),
        (&json!(true), &json!("shop"), &json!(true))
    );

    for (token, settings, decides, says) in [
        (
            &good,
            &["--jwt-secret=another-secret-0123456789abcdef0123"][..],
            "JWT_SECRET",
            "sign by HS256 with the secret that JWT_SECRET has here",
        ),
        (
            &good,
            &[SECRET, "--jwt-issuer=shop"],
            "JWT_ISSUER",
            "iss is absent, JWT_ISSUER is \"shop\"",
        ),
        (
            &good,
            &[SECRET, "--jwt-audience=app"],
            "JWT_AUDIENCE",
            "aud is absent",
        ),
        (
            &good,
            &[SECRET, "--jwt-user-claim=uid"],
            "JWT_USER_CLAIM",
            "the claim \"uid\" is absent",
        ),
        (
            &good,
            &[SECRET, "--token-max-lifetime-seconds=60"],
            "BELLHOP_TOKEN_MAX_LIFETIME_SECONDS",
            "at most 60 s",
        ),
        (
            &"opaque".to_owned(),
            &[SECRET],
            "the token's form",
            "bellhop token",
        ),
    ] {
        let arguments = [&["check-token", token], settings].concat();
        let (code, output, error) = run(folder, &arguments);
        assert_eq!(code, 1, "{settings:?}: {output}");
        assert!(
            output.starts_with("✗ refused (token_invalid): "),
            "{output}"
        );
        assert!(
            output.contains(decides) && output.contains(says),
            "{output}"
        );
        assert!(error.contains("refuses the token"), "{error}");
        let (_, output, _) = run(folder, &[&arguments[..], &["--json"]].concat());
        let found: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(found["decidedBy"][0], decides, "{output}");
        assert!(
            !output.contains("0123456789abcdef"),
            "no secret is repeated"
        );
    }
}

#[test]
fn a_token_that_has_ended_names_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"42","exp":1500000000}"#);
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let key = jsonwebtoken::EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
    let message = format!("{header}.{claims}");
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    let token = format!("{message}.{signature}");
    let (code, output, _) = run(folder.path(), &["check-token", &token, SECRET]);
    assert_eq!(code, 1);
    let says = "✗ refused (token_expired): it has ended at 2017-07-14T02:40:00.000Z, ";
    assert!(output.starts_with(says), "{output}");
    assert!(output.contains("the clock"), "{output}");
}

#[test]
fn a_token_comes_from_standard_input_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = token(folder, "42", &[SECRET]);
    let mut command = bellhop(folder, &["check-token", "-", SECRET]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "Bearer {good}").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("user 42")
    );

    let (code, _, error) = run(folder, &["check-token", "bh_key", SECRET]);
    assert_eq!(code, 1);
    assert!(error.contains("X-API-Key"), "{error}");
}

#[test]
fn the_database_knows_what_was_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let (code, _, error) = run(folder, &["check-token", "x.y.z", "--database", SECRET]);
    assert_eq!(code, 1, "{error}");
    let good = token(folder, "42", &[SECRET]);
    let asked = ["check-token", &good, "--database", SECRET];
    let (_, _, error) = run(folder, &asked);
    assert!(error.contains("no database bellhop.db"), "{error}");
    assert!(
        !folder.join("bellhop.db").exists(),
        "checking makes nothing"
    );

    let node = serve(folder, &addresses);
    let good = token(folder, "42", &[]);
    let publisher = token(folder, "shop", &["--scope", "notifications:publish"]);
    let (code, _, error) = run(folder, &["check-token", &good, "--database"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("is in use") && error.contains("leave out --database"),
        "{error}"
    );
    let url = format!("http://{}/api/users/42/disconnect", addresses[0]);
    let answer = std::process::Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"])
        .args(["-H", &format!("Authorization: Bearer {publisher}"), &url])
        .output();
    assert_eq!(answer.unwrap().stdout, b"202");
    stop(node);

    let (code, output, _) = run(folder, &["check-token", &good]);
    assert_eq!(code, 0, "{output}");
    let (code, output, _) = run(folder, &["check-token", &good, "--database"]);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("it was revoked"), "{output}");
    let other = token(folder, "43", &[]);
    let (code, output, _) = run(folder, &["check-token", &other, "--database"]);
    assert_eq!(code, 0);
    assert!(output.contains("revoked: no"), "{output}");
}

fn stop(node: Running) {
    node.signal("-TERM");
    assert_eq!(node.ends(), Some(0));
}
