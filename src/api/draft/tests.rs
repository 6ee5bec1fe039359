//! The rules of a body, as tables: what is sent, and what is answered.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::fields::tests::errors;

fn rules() -> Rules {
    let now = DateTime::parse_from_rfc3339("2026-11-23T08:00:00Z")
        .unwrap()
        .to_utc();
    Rules {
        http_urls: false,
        now,
    }
}

fn parse(body: &str) -> Result<Publication, Vec<String>> {
    Publication::parse(body.as_bytes(), rules()).map_err(errors)
}

/// A good body with one member set to the JSON `value`.
fn with(name: &str, value: &str) -> Result<Draft, Vec<String>> {
    let good = [("userId", "\"42\""), ("title", "\"Hello\"")];
    let members = good
        .into_iter()
        .filter(|(good, _)| *good != name)
        .chain([(name, value)]);
    let members: Vec<String> = members
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    parse(&format!("{{{}}}", members.join(", "))).map(|publication| publication.draft)
}

#[test]
fn the_smallest_body_has_the_defaults() {
    let Publication { draft, users, many } =
        parse(r#"{"userId": "42", "title": "Hello"}"#).unwrap();
    assert_eq!((users[0].as_str(), users.len(), many), ("42", 1, false));
    assert_eq!(
        (draft.kind.as_str(), draft.priority),
        ("GENERAL", Priority::Normal)
    );
    assert_eq!(
        (
            draft.title.as_str(),
            draft.message.as_str(),
            draft.data.get()
        ),
        ("Hello", "", "{}")
    );
    assert_eq!(
        (draft.action_url, draft.icon, draft.badge),
        (None, None, None)
    );
    assert_eq!(
        (draft.silent, draft.sticky, draft.expires_at),
        (false, false, None)
    );
}

#[test]
fn null_is_as_good_as_absent() {
    let body = r#"{"userId": "42", "userIds": null, "title": "Hello", "message": null, "type": null,
        "priority": null, "data": null, "actionUrl": null, "icon": null, "badge": null, "silent": null,
        "sticky": null, "expiresAt": null}"#;
    let Publication { draft, many, .. } = parse(body).unwrap();
    assert_eq!(
        (draft.data.get(), draft.kind.as_str(), many),
        ("{}", "GENERAL", false)
    );
    assert_eq!(with("title", "null").unwrap_err(), ["/title required"]);
    assert_eq!(with("userId", "null").unwrap_err(), ["/userId required"]);
}

#[test]
fn all_errors_come_at_once() {
    let body = r#"{"title": 7, "message": [], "type": "general", "priority": "high", "data": [], "actionUrl": "x",
        "icon": 1, "badge": "//x", "silent": 0, "sticky": "yes", "expiresAt": "tomorrow", "extra": 1}"#;
    let expected = [
        "/userId required",
        "/priority unknown_value",
        "/type pattern_mismatch",
        "/title type_mismatch",
        "/message type_mismatch",
        "/data type_mismatch",
        "/actionUrl url_not_allowed",
        "/icon type_mismatch",
        "/badge url_not_allowed",
        "/silent type_mismatch",
        "/sticky type_mismatch",
        "/expiresAt time_invalid",
        "/extra unknown_field",
    ];
    assert_eq!(parse(body).unwrap_err(), expected);
}

#[test]
fn a_user_is_a_string_of_a_closed_set_or_an_integer() {
    for value in ["\"a.b_c~d@e:f-1\"", "0", "9007199254740991"] {
        assert!(with("userId", value).is_ok(), "{value}");
    }
    let long = format!("\"{}\"", "x".repeat(129));
    for value in [
        "\"\"",
        &long,
        r#""a\u0000""#,
        r#""a\n""#,
        r#""\u202e""#,
        "\"a*\"",
        "\"a?\"",
        "\"[a]\"",
        "\"a,b\"",
        "\"../a\"",
        "\"a b\"",
        "\"é\"",
        "\"\u{212a}\"",
        "9007199254740992",
        "-1",
        "-0",
        "18446744073709551616",
    ] {
        assert_eq!(
            with("userId", value).unwrap_err(),
            ["/userId user_id_invalid"],
            "{value}"
        );
    }
    for value in ["7.0", "7e0", "true", "[7]", "{}"] {
        assert_eq!(
            with("userId", value).unwrap_err(),
            ["/userId type_mismatch"],
            "{value}"
        );
    }
    assert_eq!(with("userId", r#""\ud800""#).unwrap_err(), ["json_invalid"]);
    assert_eq!(with("userId", "1e309").unwrap_err(), ["json_invalid"]);
}

#[test]
fn many_users_are_each_there_once() {
    let body = |ids: &str| format!(r#"{{"title": "t", "userIds": {ids}}}"#);
    let Publication { users, many, .. } = parse(&body(r#"["b", 7, "a"]"#)).unwrap();
    assert_eq!(
        users.iter().map(UserId::as_str).collect::<Vec<_>>(),
        ["b", "7", "a"]
    );
    assert!(many && parse(&body(r#"["b"]"#)).unwrap().many);

    let ids = |count: u32| format!("{:?}", (0..count).collect::<Vec<_>>());
    assert_eq!(parse(&body(&ids(1_000))).unwrap().users.len(), 1_000);
    for (ids, expected) in [
        (ids(1_001).as_str(), &["/userIds too_many"][..]),
        ("[]", &["/userIds too_few"]),
        ("null", &["/userId required"]),
        ("\"42\"", &["/userIds type_mismatch"]),
        ("{}", &["/userIds type_mismatch"]),
        (r#"["a", "b", "a"]"#, &["/userIds/2 duplicate"]),
        (r#"["7", 7]"#, &["/userIds/1 duplicate"]),
        (
            r#"["a", "b c", null, 1.5]"#,
            &[
                "/userIds/1 user_id_invalid",
                "/userIds/2 type_mismatch",
                "/userIds/3 type_mismatch",
            ],
        ),
    ] {
        assert_eq!(parse(&body(ids)).unwrap_err(), expected, "{ids:.40}");
    }
    let both = r#"{"title": "t", "userId": "a", "userIds": ["b"]}"#;
    assert_eq!(parse(both).unwrap_err(), ["/userId ambiguous"]);
    let everyone = r#"{"title": "t", "broadcast": true}"#;
    assert_eq!(
        parse(everyone).unwrap_err(),
        ["/userId required", "/broadcast unknown_field"]
    );
}

#[test]
fn a_title_is_seen() {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    for text in ["x", "a\tb\nc", " x ", &"😀".repeat(200), "\u{2028}x"] {
        assert_eq!(with("title", &quoted(text)).unwrap().title, text);
    }
    assert_eq!(with("title", r#""a\r\nb""#).unwrap().title, "a\nb");
    assert!(
        with(
            "title",
            &quoted(&"\r\n".repeat(199).replacen('\r', "x\r", 1))
        )
        .is_ok()
    );
    for (text, expected) in [
        ("", "/title blank"),
        (" \n\t\u{3000}", "/title blank"),
        ("a\rb", "/title control_character"),
        ("a\0", "/title control_character"),
        ("a\u{7f}", "/title control_character"),
        ("a\u{85}", "/title control_character"),
        ("a\u{1b}[31m", "/title control_character"),
        (&"x".repeat(201), "/title too_long"),
    ] {
        assert_eq!(
            with("title", &quoted(text)).unwrap_err(),
            [expected],
            "{text:?}"
        );
    }
    assert!(with("message", &quoted(&"é".repeat(4_096))).is_ok());
    assert_eq!(
        with("message", &quoted(&"x".repeat(4_097))).unwrap_err(),
        ["/message too_long"]
    );
    assert_eq!(with("message", "\"\"").unwrap().message, "");
}

#[test]
fn data_is_kept_as_it_is_spelled() {
    let data = with(
        "data",
        "{ \"b\" : [ 1.50, 9007199254740993 ], \"a\": \"\\u00e9 \\\" \" }",
    )
    .unwrap()
    .data;
    assert_eq!(
        data.get(),
        "{\"b\":[1.50,9007199254740993],\"a\":\"\\u00e9 \\\" \"}"
    );

    let filled = |bytes: usize| format!("{{ \"a\" : \"{}\" }}", "x".repeat(bytes - 8));
    assert_eq!(
        with("data", &filled(8_192)).unwrap().data.get().len(),
        8_192
    );
    let nested = |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    assert!(with("data", &nested(8)).is_ok());
    for (value, expected) in [
        (filled(8_193).as_str(), "/data too_large"),
        (&nested(9), "/data too_deep"),
        ("[]", "/data type_mismatch"),
        ("\"{}\"", "/data type_mismatch"),
        ("7", "/data type_mismatch"),
        ("{\"a\": {\"b\": 1, \"b\": 2}}", "json_duplicate_key"),
        (&nested(200), "json_too_deep"),
    ] {
        assert_eq!(with("data", value).unwrap_err(), [expected], "{value:.40}");
    }
}

#[test]
fn a_link_leads_where_it_says() {
    let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    for link in [
        "/",
        "/orders/7?x=//y#z",
        "https://a.example",
        "HTTPS://a.example:8443/x?y#z",
        "https://a.example/@x",
        "https://[::1]/",
        "https://münchen.example/",
        "/é",
        "/%5C%5Cevil",
        &long(2_048),
    ] {
        assert_eq!(
            with("actionUrl", &json!(link).to_string())
                .unwrap()
                .action_url
                .unwrap(),
            link
        );
    }
    assert!(is_link("http://a.example", true) && !is_link("http://u@a.example", true));
}

#[test]
fn a_link_that_could_lead_elsewhere_is_refused() {
    let long = format!("/{}", "x".repeat(2_048));
    for link in [
        "",
        "orders/7",
        "//evil",
        "/\\evil",
        "\\evil",
        "https:\\\\evil",
        "/a\\b",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "http://a.example",
        "ftp://a.example",
        "https://user:pw@a.example",
        "https://user@a.example",
        "https://@a.example",
        "https:a.example",
        "https:/a.example",
        "https://",
        "https:///a",
        "https://a b/",
        " https://a.example",
        "/a b",
        "/\t/evil",
        "/a\u{a0}",
        "https://a.example:99999",
        "https://?x",
        "?x",
        "#x",
        "https://169.254.169.254@evil",
        "mailto:a@b",
        &long,
    ] {
        let found = with("icon", &json!(link).to_string()).unwrap_err();
        assert_eq!(found, ["/icon url_not_allowed"], "{link:.60}");
    }
}

#[test]
fn an_expiry_is_a_time_to_come() {
    for (text, kept) in [
        ("2026-11-23T08:00:00.001Z", "2026-11-23T08:00:00.001Z"),
        (
            "2026-11-23T10:30:00.123456789+02:00",
            "2026-11-23T08:30:00.123Z",
        ),
        ("9999-12-31T23:59:59z", "9999-12-31T23:59:59.000Z"),
    ] {
        let expiry = with("expiresAt", &json!(text).to_string())
            .unwrap()
            .expires_at
            .unwrap();
        assert_eq!(crate::notification::timestamp(expiry), kept);
    }
    for (text, expected) in [
        ("2026-11-23T08:00:00Z", "/expiresAt time_past"),
        ("1999-01-01T00:00:00Z", "/expiresAt time_past"),
        ("", "/expiresAt time_invalid"),
        ("2030-01-01", "/expiresAt time_invalid"),
        ("2030-01-01T00:00:00", "/expiresAt time_invalid"),
        ("2030-13-01T00:00:00Z", "/expiresAt time_invalid"),
        ("10000-01-01T00:00:00Z", "/expiresAt time_invalid"),
        ("9999-12-31T23:59:59-01:00", "/expiresAt time_invalid"),
        ("2030-06-30T23:59:60Z", "/expiresAt time_invalid"),
        ("2030-01-01T00:00:00-00:00", "/expiresAt time_invalid"),
    ] {
        assert_eq!(
            with("expiresAt", &json!(text).to_string()).unwrap_err(),
            [expected],
            "{text}"
        );
    }
    assert_eq!(
        with("expiresAt", "1893456000").unwrap_err(),
        ["/expiresAt type_mismatch"]
    );
}

#[test]
fn what_is_urgent_stays_unless_it_is_said_otherwise() {
    assert!(with("priority", "\"URGENT\"").unwrap().sticky);
    assert!(!with("priority", "\"HIGH\"").unwrap().sticky);
    assert!(with("sticky", "true").unwrap().sticky);
    let body = r#"{"userId": 1, "title": "t", "priority": "URGENT", "sticky": false}"#;
    assert!(!parse(body).unwrap().draft.sticky);
}

#[test]
fn a_test_needs_no_body() {
    let parse = |body: &str| test_draft(body.as_bytes(), rules()).map_err(errors);
    for body in ["", "{}", r#"{"title": null}"#] {
        let draft = parse(body).unwrap();
        assert_eq!(draft.title, "Test notification", "{body}");
        assert!(!draft.message.is_empty(), "{body}");
    }
    let original = r#"{"title": "WebSocket Test", "message": "Testing real-time delivery", "type": "GENERAL", "priority": "HIGH"}"#;
    let draft = parse(original).unwrap();
    assert_eq!(
        (draft.title.as_str(), draft.priority),
        ("WebSocket Test", Priority::High)
    );
    assert_eq!(parse(r#"{"message": ""}"#).unwrap().message, "");
    assert_eq!(parse(r#"{"title": ""}"#).unwrap_err(), ["/title blank"]);
    assert_eq!(
        parse(r#"{"userId": "1"}"#).unwrap_err(),
        ["/userId unknown_field"]
    );
    assert_eq!(parse("[]").unwrap_err(), [" type_mismatch"]);
}

/// Any JSON, often with the names and the kinds of values that a body has.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = prop_oneof![
        any::<String>(),
        "[A-Z]{1,8}",
        Just("https://a.example/x".to_owned()),
        Just("URGENT".to_owned()),
        Just("2030-01-01T00:00:00Z".to_owned()),
        Just("x\r\n\u{0}".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        text.prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(12, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| json!(items)),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| json!(members)),
        ]
    })
}

fn any_body() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "userId",
        "userIds",
        "title",
        "message",
        "type",
        "priority",
        "data",
        "actionUrl",
        "icon",
        "badge",
        "silent",
        "sticky",
        "expiresAt",
        "other",
    ]);
    let members = prop::collection::btree_map(names, any_json(), 0..14);
    let body = members.prop_map(|members| {
        let mut body = json!(members);
        let is_whole = body.as_object().is_some_and(|body| body.len() % 2 == 0);
        if is_whole {
            body["userId"] = json!("42");
            body["title"] = json!("Hello");
        }
        body.to_string()
    });
    prop_oneof![4 => body, 1 => any_json().prop_map(|value| value.to_string()), 1 => any::<String>()]
}

fn is_within_limits(draft: &Draft) -> bool {
    let no_controls = |text: &str| {
        text.chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
    };
    let links = [&draft.action_url, &draft.icon, &draft.badge];
    (1..=200).contains(&draft.title.chars().count())
        && draft.message.chars().count() <= 4_096
        && no_controls(&draft.title)
        && no_controls(&draft.message)
        && draft.data.get().starts_with('{')
        && draft.data.get().len() <= 8_192
        && links.into_iter().flatten().all(|link| is_link(link, false))
        && draft.expires_at.is_none_or(|time| time > rules().now)
}

proptest! {
    #[test]
    fn any_body_is_a_draft_within_the_limits_or_a_problem_of_the_caller(body in any_body()) {
        match Publication::parse(body.as_bytes(), rules()) {
            Ok(publication) => {
                prop_assert!(is_within_limits(&publication.draft), "{publication:?}");
                prop_assert!((1..=1_000).contains(&publication.users.len()));
            }
            Err(problem) => prop_assert!(matches!(problem.status().as_u16(), 400 | 422), "{problem:?}"),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(problem) = Publication::parse(&body, rules()) {
            prop_assert!(matches!(problem.status().as_u16(), 400 | 422), "{problem:?}");
        }
    }
}
