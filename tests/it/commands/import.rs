//! `import`: an export comes in whole, in its order, once, and nothing is pushed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use bellhop::store::{ListQuery, Page, Store};
use bellhop::user::UserId;
use serde_json::{Value, json};

use super::{DEADLINE, Running, bellhop, run};
use crate::cluster::Backing;
use crate::databases::Database;

/// An empty database of each kind that there is.
async fn databases() -> Vec<Database> {
    let postgres = Database::postgres().await;
    std::iter::once(Database::sqlite())
        .chain(postgres)
        .collect()
}

/// A line as Prisma and its like write it: created `age` minutes ago.
fn line(user: usize, id: usize, age: i64) -> Value {
    let created = chrono::Utc::now() - chrono::TimeDelta::minutes(age);
    json!({
        "id": format!("clh{id:022}"), "userId": user, "type": "order-shipped", "priority": "high",
        "title": format!("Number {id}"), "message": "On its way", "data": {"orderId": id},
        "isRead": id.is_multiple_of(2), "readAt": null, "createdAt": created.to_rfc3339(), "updatedAt": created.to_rfc3339(),
    })
}

fn with(mut line: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(more);
    line
}

fn write(folder: &Path, lines: &[Value]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.join("old.ndjson"), text).unwrap();
    "old.ndjson".to_owned()
}

fn import(folder: &Path, database: &Database, further: &[&str]) -> (i32, String, String) {
    let url = format!("--database-url={}", database.url);
    run(folder, &[&["import", &url], further].concat())
}

async fn list(store: &Store, user: &str) -> Page {
    let query = ListQuery {
        limit: 200,
        ..ListQuery::default()
    };
    store
        .list(&UserId::try_from(user).unwrap(), &query)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_in_whole_in_its_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    // The oldest last, and 50 users in turn.
    let lines: Vec<Value> = (0..5_000)
        .map(|n| line(n % 50, n, n.try_into().unwrap()))
        .collect();
    let file = write(folder.path(), &lines);
    for database in databases().await {
        let (code, output, error) = import(folder.path(), &database, &[&file]);
        assert_eq!(code, 0, "{error}");
        assert_eq!(output, "5000 imported, 0 known already\n");

        let store = database.open().await;
        let page = list(&store, "7").await;
        let titles: Vec<_> = page.items.iter().map(|one| one.title.clone()).collect();
        let expected: Vec<_> = (0..100).map(|n| format!("Number {}", 7 + 50 * n)).collect();
        assert_eq!(titles, expected, "newest first");
        assert_eq!((page.unread, page.seq), (100, 100));
        assert_eq!(list(&store, "8").await.unread, 0, "what was read is read");
        let one = &page.items[0];
        assert_eq!(one.kind.as_str(), "ORDER_SHIPPED");
        assert_eq!(
            one.data.get(),
            r#"{"legacyId":"clh0000000000000000000007","orderId":7}"#
        );
        store.close().await;

        let (code, output, error) = import(folder.path(), &database, &[&file]);
        assert_eq!(
            (code, output.as_str()),
            (0, "0 imported, 5000 known already\n"),
            "{error}"
        );
        let store = database.open().await;
        assert_eq!(list(&store, "7").await.seq, 100, "a repeat changes nothing");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_keeps_all_of_it_out_unless_it_may_be_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines: Vec<Value> = (0..100).map(|n| line(1, n, 1)).collect();
    lines[6] = with(
        line(1, 6, 1),
        &json!({"title": "", "priority": "LOU\u{1b}D"}),
    );
    lines[7] = json!([1]);
    for bad in &mut lines[50..80] {
        *bad = with(bad.clone(), &json!({"sender": {"id": 7}}));
    }
    let file = write(folder.path(), &lines);
    let database = Database::sqlite();

    let (code, output, error) = import(folder.path(), &database, &[&file]);
    assert_eq!((code, output.as_str()), (1, ""));
    for says in [
        "line 7: /priority: LOW, NORMAL, HIGH or URGENT, not \"LOU\\u{1b}D\" (unknown_value); /title: 1 to 200 characters",
        "line 8: an object (type_mismatch)",
        "line 51: /sender: no member of a notification (unknown_field)",
        "and 12 more bad lines",
        "nothing was written: 32 lines of 100 are bad; mend them",
        "--skip-invalid",
        "--ignore",
    ] {
        assert!(error.contains(says), "{says}: {error}");
    }
    assert_eq!(error.lines().count(), 22, "{error}");

    let ignore = ["--ignore=sender", "--skip-invalid", &file];
    let (code, output, error) = import(
        folder.path(),
        &database,
        &[&ignore[..], &["--dry-run"]].concat(),
    );
    assert_eq!(code, 0, "{error}");
    assert_eq!(output, "98 would be imported\n2 skipped: broke a rule\n");
    let (code, output, _) = import(folder.path(), &database, &ignore);
    assert_eq!(code, 0);
    assert_eq!(
        output,
        "98 imported, 0 known already\n2 skipped: broke a rule\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_forgotten_at_once_is_left_out_and_the_setting_is_named() {
    const DAY: i64 = 24 * 60;
    let folder = tempfile::tempdir().unwrap();
    let past = json!({"expiresAt": "2020-01-01T00:00:00Z"});
    let lines = [
        line(1, 1, 31 * DAY),
        line(1, 2, 29 * DAY),
        line(1, 3, 3),
        line(1, 4, 2),
        line(2, 5, 1),
        with(line(1, 6, 1), &past),
        with(line(1, 7, 1), &json!({"deletedAt": 1_600_000_000_000_i64})),
    ];
    let file = write(folder.path(), &lines);
    let database = Database::sqlite();
    let (code, output, error) = import(folder.path(), &database, &[&file, "--retention-changes=2"]);
    assert_eq!(code, 0, "{error}");
    for says in [
        "3 imported, 0 known already\n",
        "1 skipped: older than 30 days, which would be forgotten at once: raise BELLHOP_RETENTION_DAYS",
        "1 skipped: beyond the newest 2 of a user, which would be forgotten at once: raise BELLHOP_RETENTION_CHANGES",
        "1 skipped: expired",
        "1 skipped: deleted",
    ] {
        assert!(output.contains(says), "{says}: {output}");
    }
    let store = database.open().await;
    let titles: Vec<_> = list(&store, "1")
        .await
        .items
        .into_iter()
        .map(|one| one.title)
        .collect();
    assert_eq!(titles, ["Number 4", "Number 3"]);
    store.close().await;
    let all = ["--retention-days=0", "--retention-changes=0", &file];
    let (_, output, _) = import(folder.path(), &database, &all);
    assert!(
        output.starts_with("2 imported, 3 known already\n"),
        "{output}"
    );
}

#[test]
fn what_comes_twice_counts_once_against_the_limit_of_a_user() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let once: Vec<Value> = (0..6).map(|n| line(1, n, n.try_into().unwrap())).collect();
    let file = write(folder.path(), &[&once[..], &once[..]].concat());
    let (code, output, error) = import(folder.path(), &database, &[&file, "--retention-changes=8"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(output, "6 imported, 6 known already\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_id_counts_alike_in_both_and_what_it_changes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let mut lines: Vec<Value> = vec![line(1, 1, 2), line(1, 2, 1), line(2, 1, 1)];
    lines.push(lines[1].clone());
    let other = with(lines[0].clone(), &json!({"title": "Other"}));
    lines.extend(std::iter::repeat_n(other, 22));
    let file = write(folder.path(), &lines);
    let (code, output, dry) = import(folder.path(), &database, &[&file, "--dry-run"]);
    assert_eq!(code, 0, "{dry}");
    assert!(
        output.starts_with("3 would be imported, 23 known already"),
        "{output}"
    );
    let (code, output, error) = import(folder.path(), &database, &[&file]);
    assert_eq!((code, &error), (0, &dry));
    assert_eq!(output, "3 imported, 23 known already\n");
    assert!(error.contains("line 5: this id of this user came before with other content"));
    assert!(error.contains("and 2 more such lines"), "{error}");
    assert_eq!(error.lines().count(), 21, "{error}");
    let store = database.open().await;
    assert_eq!(list(&store, "1").await.items[1].title, "Number 1");
    store.close().await;
}

#[test]
fn common_shapes_of_exports_are_hinted_at() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let snake = with(line(1, 1, 1), &json!({"user_id": 1, "created_at": 1}));
    let file = write(folder.path(), &[snake.clone(), snake]);
    let (code, _, error) = import(folder.path(), &database, &[&file]);
    assert_eq!(code, 1);
    let hint = "SELECT user_id AS \"userId\"";
    assert_eq!(error.matches(hint).count(), 1, "{error}");

    let array = format!("\n [\n{}\n]", line(1, 1, 1));
    std::fs::write(folder.path().join("old.json"), array).unwrap();
    let (code, _, error) = import(folder.path(), &database, &["old.json"]);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(
        error.contains("jq -c '.[]' FILE | bellhop import -"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_as_good_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let url = format!("--database-url={}", database.url);
    let mut child = bellhop(folder.path(), &["import", "-", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A mark of the encoding, empty lines, lines that end as on Windows, and none at the end.
    write!(
        input,
        "\u{feff}{}\r\n\r\n\n{}",
        line(1, 1, 2),
        line(1, 2, 1)
    )
    .unwrap();
    drop(input);
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert!(status.success());
    assert_eq!(stdout, b"2 imported, 0 known already\n");

    let (code, _, error) = import(folder.path(), &database, &["missing.ndjson"]);
    assert_eq!(code, 1);
    assert!(error.contains("missing.ndjson: No such file"), "{error}");
}

#[test]
fn a_line_that_is_too_long_is_told_also_where_it_begins_with_blanks() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let long = format!("{}{}", " ".repeat(70_000), line(1, 2, 1));
    let text = format!("{}\n{long}\n", line(1, 1, 1));
    std::fs::write(folder.path().join("old.ndjson"), text).unwrap();
    let (code, output, error) = import(folder.path(), &database, &["old.ndjson"]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("line 2: at most 64 KiB"), "{error}");
    assert!(error.contains("1 line of 2 is bad; mend it"), "{error}");
}

#[test]
fn what_would_steer_a_terminal_is_told_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let bad = with(line(1, 1, 1), &json!({"\u{1b}[2Jx\u{9b}": 1}));
    let file = write(folder.path(), &[bad]);
    let (code, _, error) = import(folder.path(), &database, &[&file]);
    assert_eq!(code, 1);
    assert!(error.contains(r"/\u{1b}[2Jx\u{9b}: no member"), "{error}");

    let (code, _, error) = import(folder.path(), &database, &["."]);
    assert_eq!(code, 1);
    assert!(error.contains(". is a folder"), "{error}");
}

#[test]
fn ctrl_c_ends_it_also_while_standard_input_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..8 {
        let mut child = bellhop(folder.path(), &["import", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // More than a pipe holds: when it is written, somebody reads.
        input.write_all(&vec![b'\n'; 512 * 1024]).unwrap();
        let id = child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-INT", &id]).status().unwrap().success());
        let (ended, ends) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait().unwrap()));
        let status = ends.recv_timeout(DEADLINE).expect("Ctrl-C is not heard");
        assert!(!status.success(), "{status}");
        drop(input);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<Value> = (0..20_000).map(|n| line(n % 7, n, 1)).collect();
    let file = write(folder.path(), &lines);
    let database = Database::sqlite();
    let url = format!("--database-url={}", database.url);
    let first = Running::start(bellhop(folder.path(), &["import", &file, &url]));
    // As soon as there is a database, it writes.
    let place = database.url.strip_prefix("sqlite://").unwrap();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let made = async {
        while !Path::new(place).exists() {
            look.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, made).await.unwrap();
    first.signal("-INT");
    let code = first.ends();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");

    let (code, output, error) = import(folder.path(), &database, &[&file]);
    assert_eq!(code, 0, "{error}");
    let numbers: Vec<u64> = output
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    assert_eq!(numbers.iter().sum::<u64>(), 20_000, "{output}");
    assert!(numbers[1].is_multiple_of(1_000), "whole chunks: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_devices_are_told_to_fetch_and_get_nothing_pushed() {
    // On SQLite no node runs while the import has the file.
    if Database::postgres().await.is_none() {
        return;
    }
    let backing = Backing::postgres().await;
    let node = backing.node(&[]).await;
    let mut device = node.connect("42").await;
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<Value> = (0..10).map(|n| line(42, n, 1)).collect();
    let file = write(folder.path(), &lines);
    let settings: Vec<&str> = backing.arguments.iter().map(String::as_str).collect();
    let (code, _, error) = run(folder.path(), &[&["import", &file], &settings[..]].concat());
    assert_eq!((code, error.as_str()), (0, ""));

    let refresh = device.until("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("gap"), &json!(10))
    );
}
