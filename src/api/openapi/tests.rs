//! The description holds together, and says what the code does.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeZone as _, Utc};
use jsonschema::Validator;
use serde_json::value::RawValue;

use http_body_util::BodyExt as _;

use super::*;
use crate::api::described;
use crate::api::draft::{Publication, Rules, test_draft};
use crate::notification::{Draft, Notification};

fn document() -> Value {
    let (_, openapi) = described(true).split_for_parts();
    completed(&openapi, true)
}

fn each_operation(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Every object in it.
fn objects(document: &Value) -> Vec<&Map<String, Value>> {
    let (mut found, mut rest) = (Vec::new(), vec![document]);
    while let Some(value) = rest.pop() {
        if let Some(members) = value.as_object() {
            found.push(members);
            rest.extend(members.values());
        }
        rest.extend(value.as_array().into_iter().flatten());
    }
    found
}

fn validator(document: &Value, name: &str) -> Validator {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/components/schemas/{name}"),
        "components": document["components"],
    });
    let options = jsonschema::draft202012::options();
    options
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn is_valid(name: &str, value: &Value) -> bool {
    validator(&document(), name).is_valid(value)
}

const RULES: fn() -> Rules = || Rules {
    http_urls: true,
    now: Utc.with_ymd_and_hms(2026, 11, 23, 8, 0, 0).unwrap(),
};

#[tokio::test]
async fn the_description_is_answered_as_it_is() {
    let openapi = described(false).into_openapi();
    let document = Document::default();
    let response = document.answer(|| openapi.clone(), false);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let read: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(read["openapi"], "3.1.0");
    assert_eq!(read, completed(&openapi, false));
    let link = read["components"]["schemas"]["Link"]["pattern"]
        .as_str()
        .unwrap();
    assert!(!link.contains("[Ss]?"), "http: is not allowed here");
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_one() {
    let document = document();
    for object in objects(&document) {
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        let _compiles = validator(&document, name);
    }
}

#[test]
fn every_operation_says_who_what_and_how_it_ends() {
    let document = document();
    let mut ids = BTreeSet::new();
    let tags = BTreeSet::from(TAGS.map(|(name, _)| name));
    let operations: Vec<_> = each_operation(&document)
        .map(|(_, _, operation)| &operation["operationId"])
        .collect();
    for object in objects(&document) {
        let linked = object.get("operationId").unwrap_or(operations[0]);
        assert!(operations.contains(&linked), "{linked}");
    }
    for (path, method, operation) in each_operation(&document) {
        let operation_id = operation["operationId"].as_str().unwrap();
        assert!(
            ids.insert(operation_id.to_owned()),
            "{operation_id} is there twice"
        );
        assert!(operation["summary"].is_string(), "{operation_id}");
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(
            tags.contains(tag) && operation["tags"][1].is_null(),
            "{operation_id}"
        );

        let responses = operation["responses"].as_object().unwrap();
        let has = |status: &str| responses.contains_key(status);
        assert!(has("500") && has("503"), "{operation_id}");
        assert_eq!(
            operation["security"].is_array(),
            has("401"),
            "{operation_id}"
        );
        assert_eq!(
            operation["requestBody"].is_object(),
            has("422"),
            "{operation_id}"
        );
        assert_eq!(
            operation["requestBody"].is_object(),
            has("413"),
            "{operation_id}"
        );
        let parameters = operation["parameters"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let in_path = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path");
        assert_eq!(
            in_path.count(),
            path.matches('{').count(),
            "{method} {path}"
        );
    }
}

#[test]
fn every_body_has_an_example_and_every_answer_a_request_id() {
    let document = document();
    for (_, _, operation) in each_operation(&document) {
        let shared = document["components"]["responses"].as_object().unwrap();
        let own = operation["responses"].as_object().unwrap();
        let answers = own.values().chain(shared.values());
        for answer in answers.filter(|answer| answer.get("$ref").is_none()) {
            assert!(answer["headers"]["x-request-id"].is_object(), "{answer}");
        }
        let own = [operation, &document["components"]["responses"]];
        let bodies = own
            .into_iter()
            .flat_map(objects)
            .filter_map(|object| object.get("content"));
        for media in bodies.flat_map(|content| content.as_object().unwrap().values()) {
            assert!(media["schema"]["$ref"].is_string(), "{media}");
            assert!(
                !media["examples"].as_object().unwrap().is_empty(),
                "{media}"
            );
        }
    }
}

#[test]
fn every_example_is_valid() {
    let document = document();
    let mut checked = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            let validator = validator(&document, name);
            let errors: Vec<_> = validator
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
            checked += 1;
        }
    }
    let problem = validator(&document, "Problem");
    for example in document["components"]["examples"]
        .as_object()
        .unwrap()
        .values()
    {
        assert!(problem.is_valid(&example["value"]), "{example}");
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn what_the_code_writes_is_what_is_described() {
    let draft = Draft {
        kind: crate::notification::Kind::default(),
        priority: crate::notification::Priority::Urgent,
        title: "Title".to_owned(),
        message: String::new(),
        data: RawValue::from_string("{}".to_owned()).unwrap(),
        action_url: Some("/orders/7".to_owned()),
        icon: None,
        badge: None,
        silent: false,
        sticky: true,
        expires_at: Some(Utc::now()),
    };
    let user = crate::user::UserId::try_from("123").unwrap();
    let written = Notification::created(&draft, user, uuid::Uuid::now_v7(), 1, Utc::now());
    let written = serde_json::to_value(&written).unwrap();
    assert!(is_valid("Notification", &written), "{written}");
    let described = &document()["components"]["schemas"]["Notification"]["properties"];
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&written), names(described));
}

/// A body of one user with one more field.
fn with(name: &str, value: Value) -> Value {
    let mut body = json!({ "userId": "1", "title": "t" });
    body[name] = value;
    body
}

/// Each body is taken, and described as good, if and only if it is said to be good.
fn assert_described_as_taken(bodies: &[(Value, bool)]) {
    let validator = validator(&document(), "NewNotification");
    for (body, good) in bodies {
        let taken = Publication::parse(body.to_string().as_bytes(), RULES()).is_ok();
        assert_eq!((taken, validator.is_valid(body)), (*good, *good), "{body}");
    }
}

#[test]
fn texts_are_described_as_good_if_they_are_taken() {
    let long = |length| "x".repeat(length);
    assert_described_as_taken(&[
        (with("title", json!("t")), true),
        (with("title", json!("")), false),
        (with("title", json!(" \n\t")), false),
        (with("title", json!(" \r\n. ")), true),
        (with("title", json!("a\u{0}")), false),
        (with("title", json!(long(200))), true),
        (with("title", json!(long(201))), false),
        (with("title", json!("é".repeat(200))), true),
        (with("title", json!(7)), false),
        (with("title", Value::Null), false),
        (with("message", json!("")), true),
        (with("message", json!("a\tb\n\u{85}")), false),
        (with("message", json!(long(4097))), false),
        (with("message", Value::Null), true),
        (with("type", json!("ORDER_7")), true),
        (with("type", json!("order")), false),
        (with("priority", json!("HIGH")), true),
        (with("priority", json!("high")), false),
        (with("data", json!({ "any": [1, null, {}] })), true),
        (with("data", json!([])), false),
        (with("silent", json!("true")), false),
    ]);
}

#[test]
fn times_and_links_are_described_as_good_if_they_are_taken() {
    assert_described_as_taken(&[
        (with("expiresAt", json!("2030-01-31T08:00:00Z")), true),
        (with("expiresAt", json!("tomorrow")), false),
        (
            with("expiresAt", json!("2030-01-31T08:00:00.5-03:30")),
            true,
        ),
        (with("expiresAt", json!("2030-01-31T08:60:00Z")), false),
        (with("expiresAt", json!("2030-01-31T08:00:00-00:00")), false),
        (with("expiresAt", json!("2030-06-30T23:59:60Z")), false),
        (with("expiresAt", Value::Null), true),
        (with("icon", json!("/")), true),
        (with("icon", json!("//host")), false),
        (with("icon", json!("/\\host")), false),
        (with("icon", json!("/a b")), false),
        (with("icon", json!("https://example.com:8443/a?b#c")), true),
        (with("icon", json!("HTTP://127.0.0.1")), true),
        (with("icon", json!("https://user@example.com")), false),
        (with("icon", json!("https:example.com")), false),
        (with("icon", json!("javascript:alert(1)")), false),
    ]);
}

#[test]
fn fields_and_users_are_described_as_good_if_they_are_taken() {
    assert_described_as_taken(&[
        (with("unknown", json!(1)), false),
        (with("userId", json!(7)), true),
        (with("userId", json!(-1)), false),
        (with("userId", json!(9_007_199_254_740_992_u64)), false),
        (with("userId", json!("a b")), false),
        (with("userIds", json!(["1"])), false),
        (with("userIds", Value::Null), true),
        (with("userId", Value::Null), false),
        (json!({ "title": "t" }), false),
        (json!({ "userIds": ["1", 2], "title": "t" }), true),
        (json!({ "userIds": [], "title": "t" }), false),
        (json!({ "userIds": ["1", "1"], "title": "t" }), false),
        (json!([]), false),
    ]);
}

#[test]
fn an_edit_and_a_batch_are_described_as_good_if_they_are_taken() {
    let draft = |user: Value| json!({ "userId": user, "title": "t" });
    let edits = [
        (json!({}), false),
        (json!({ "title": "t" }), true),
        (json!({ "title": null }), false),
        (json!({ "message": null }), true),
        (json!({ "message": "" }), true),
        (
            json!({ "data": null, "icon": null, "expiresAt": null }),
            true,
        ),
        (json!({ "expiresAt": "2030-01-31T08:00:00Z" }), true),
        (json!({ "priority": "HIGH" }), false),
    ];
    let batches = [
        (json!({}), false),
        (json!({ "notifications": null }), false),
        (json!({ "notifications": [] }), false),
        (
            json!({ "notifications": [draft(json!("1")), draft(json!(1))] }),
            true,
        ),
        (json!({ "notifications": [draft(Value::Null)] }), false),
        (
            json!({ "notifications": [{ "title": "t", "userIds": ["1"] }] }),
            false,
        ),
        (
            json!({ "notifications": vec![draft(json!(1)); 1_000] }),
            true,
        ),
        (
            json!({ "notifications": vec![draft(json!(1)); 1_001] }),
            false,
        ),
    ];
    let document = document();
    let (edit, batch) = (validator(&document, "Edit"), validator(&document, "Batch"));
    for (body, good) in edits {
        let taken = crate::api::edit::parse(body.to_string().as_bytes(), RULES()).is_ok();
        assert_eq!((taken, edit.is_valid(&body)), (good, good), "{body}");
    }
    for (body, good) in batches {
        let taken = crate::api::batch::parse(body.to_string().as_bytes(), RULES()).is_ok();
        assert_eq!((taken, batch.is_valid(&body)), (good, good), "{body:.80}");
    }
}

#[test]
fn the_examples_of_requests_are_taken() {
    let document = document();
    let examples = |name: &str| {
        document["components"]["schemas"][name]["examples"]
            .as_array()
            .unwrap()
            .clone()
    };
    for body in examples("NewNotification") {
        assert!(
            Publication::parse(body.to_string().as_bytes(), RULES()).is_ok(),
            "{body}"
        );
    }
    for body in examples("TestNotification") {
        assert!(
            test_draft(body.to_string().as_bytes(), RULES()).is_ok(),
            "{body}"
        );
    }
}

#[test]
fn the_names_of_ours_and_two_addressees_are_no_emits() {
    let validator = validator(&document(), "Emit");
    let emit = |event: &str| json!({ "userId": "1", "event": event });
    assert!(validator.is_valid(&emit("order:progress")));
    for event in ["notification:new", "disconnect", "Order", "", "a:"] {
        assert!(!validator.is_valid(&emit(event)), "{event}");
    }
    let mut both = emit("order");
    both["broadcast"] = json!(false);
    assert!(validator.is_valid(&both), "it is not for everyone");
    both["broadcast"] = json!(true);
    assert!(!validator.is_valid(&both));
    both["userId"] = Value::Null;
    assert!(validator.is_valid(&both));
}

/// Which are there is the contract's; a route that is added is added here.
#[test]
fn the_routes_of_the_contract_are_described() {
    let document = document();
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for (path, method, _) in each_operation(&document) {
        found.entry(path).or_default().push(method);
    }
    let expected = [
        ("/api/notifications", &["delete", "get", "post"][..]),
        ("/api/notifications/batch", &["post"]),
        ("/api/notifications/test", &["post"]),
        ("/api/notifications/unread-count", &["get"]),
        ("/api/notifications/changes", &["get"]),
        ("/api/notifications/read-all", &["post"]),
        ("/api/notifications/{id}", &["delete", "get"]),
        ("/api/notifications/{id}/read", &["patch"]),
        ("/api/notifications/{id}/unread", &["patch"]),
        ("/api/notifications/{id}/click", &["post"]),
        ("/api/users/{userId}", &["delete", "get"]),
        (
            "/api/users/{userId}/notifications/{id}",
            &["delete", "get", "patch"],
        ),
        ("/api/users/{userId}/refresh", &["post"]),
        ("/api/users/{userId}/disconnect", &["post"]),
        ("/api/users/{userId}/presence", &["get"]),
        ("/api/client-config", &["get"]),
        ("/api/emit", &["post"]),
        ("/api/openapi.json", &["get"]),
        ("/api/dev/token", &["post"]),
    ];
    for (path, methods) in expected {
        let mut found = found.remove(path).unwrap_or_default();
        found.sort_unstable();
        assert_eq!(found, methods, "{path}");
    }
    assert!(found.is_empty(), "not in the list above: {found:?}");
    let (_, elsewhere) = described(false).split_for_parts();
    assert!(!elsewhere.paths.paths.contains_key("/api/dev/token"));
}

/// `routes!` takes a route with its description; `.route(` would take one without.
#[test]
fn no_route_is_added_without_a_description() {
    let source = include_str!("../mod.rs");
    assert!(!source.contains(".route("), "use .routes(routes!(…))");
}

/// For methods that a path does not have, and for what HTTP itself refuses.
const OF_NO_OPERATION: [&str; 2] = ["method_not_allowed", "request_invalid"];

#[test]
fn every_code_of_a_problem_is_described() {
    let sources = [
        include_str!("../answer.rs"),
        include_str!("../body.rs"),
        include_str!("../caller.rs"),
        include_str!("../cursor.rs"),
        include_str!("../json.rs"),
        include_str!("../problem.rs"),
        include_str!("../publish.rs"),
        include_str!("../query.rs"),
    ];
    let known = schemas::CODES.map(|(code, _)| code);
    for source in sources {
        for after in source.split("malformed(").skip(1) {
            let mut quoted = after
                .trim_start()
                .strip_prefix('"')
                .into_iter()
                .flat_map(|rest| rest.split('"'));
            if let Some(code) = quoted.next() {
                assert!(known.contains(&code), "{code}");
            }
        }
    }
    let mut sorted = known;
    sorted.sort_unstable();
    assert_eq!(sorted, known, "in order, so that one is found");
    let mut sampled: Vec<_> = samples().iter().map(Problem::code).collect();
    sampled.extend(OF_NO_OPERATION);
    sampled.sort_unstable();
    assert_eq!(sampled, known);
}
