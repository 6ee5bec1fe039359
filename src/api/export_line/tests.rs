//! What lines of exports are read as, and what is wrong with the others.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::notification::timestamp;

const NOW: &str = "2026-01-01T00:00:00Z";

fn read(line: &Value) -> Result<Line, Vec<FieldError>> {
    let rules = LineRules {
        http_urls: false,
        now: draft::time(NOW).unwrap(),
        ignored: &["sender".to_owned()],
    };
    super::read(line.to_string().as_bytes(), rules)
}

fn with(more: &Value) -> Value {
    let mut line = json!({
        "userId": 42, "id": "clh3x9k2c0000", "title": "Hello", "createdAt": "2024-01-31T08:00:00.000Z"
    });
    let more = more.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(more);
    line
}

fn notification(more: &Value) -> Notification {
    match read(&with(more)) {
        Ok(Line::Notification(notification)) => *notification,
        other => panic!("{more}: {other:?}"),
    }
}

#[test]
fn an_export_of_another_system_is_understood() {
    let one = notification(&json!({
        "message": "Your order", "type": "order-shipped", "priority": "high", "data": {"orderId": 7},
        "actionUrl": "/orders/7", "icon": null, "isRead": true, "readAt": null,
        "updatedAt": "2024-02-01T00:00:00Z", "sender": {"id": 1}
    }));
    assert_eq!(one.user_id.as_str(), "42");
    assert_eq!(
        (one.kind.as_str(), one.priority),
        ("ORDER_SHIPPED", Priority::High)
    );
    assert_eq!(
        one.data.get(),
        r#"{"legacyId":"clh3x9k2c0000","orderId":7}"#
    );
    assert_eq!(timestamp(one.created_at), "2024-01-31T08:00:00.000Z");
    assert!(one.is_read);
    assert_eq!(timestamp(one.read_at.unwrap()), "2024-02-01T00:00:00.000Z");
}

#[test]
fn an_id_is_kept_or_always_mapped_alike() {
    let uuid = "0198F1C2-0000-7000-8000-000000000001";
    let kept = notification(&json!({ "id": uuid }));
    assert_eq!(kept.id, Uuid::parse_str(uuid).unwrap());
    assert_eq!(kept.data.get(), "{}");

    let (number, text) = (
        notification(&json!({"id": 7})),
        notification(&json!({"id": "7"})),
    );
    assert_eq!(number.id, text.id);
    assert_eq!(number.data.get(), r#"{"legacyId":7}"#);
    assert_eq!(number.id.get_version_num(), 5);
    // As every release maps it: a repeated import must not add it again.
    assert_eq!(
        number.id.to_string(),
        "2676ccdf-104b-51f8-83ea-ab349a12bd4b"
    );
    let other = notification(&json!({ "id": 7, "userId": "4" }));
    assert_ne!(other.id, number.id);
    let own = notification(&json!({ "id": 7, "data": {"legacyId": "mine"} }));
    assert_eq!(own.data.get(), r#"{"legacyId":"mine"}"#);
}

#[test]
fn data_may_be_a_text_that_holds_an_object() {
    let one = notification(&json!({ "data": " {\"orderId\": 7}" }));
    assert_eq!(
        one.data.get(),
        r#"{"legacyId":"clh3x9k2c0000","orderId":7}"#
    );
    let large = json!({ "a": "x".repeat(9_000) }).to_string();
    let faults = read(&with(&json!({ "data": large }))).unwrap_err();
    assert_eq!(
        (&*faults[0].pointer, faults[0].code),
        ("/data", "too_large")
    );
}

#[test]
fn a_read_one_has_a_time_of_reading() {
    let (created, late) = ("2024-01-31T08:00:00.000Z", "2024-03-01T00:00:00.000Z");
    for (state, read_at) in [
        (json!({}), None),
        (json!({"isRead": false, "readAt": late}), None),
        (json!({"read": true}), Some(created)),
        (json!({"isRead": true, "read": true}), Some(created)),
        (json!({"readAt": late}), Some(late)),
        (json!({"readAt": "2024-03-01T00:00:00"}), Some(late)),
        (json!({"readAt": "2024-03-01 01:00:00+01:00"}), Some(late)),
        (json!({"clickedAt": late}), Some(late)),
        (
            json!({"isRead": true, "readAt": 1_709_251_200_000_i64}),
            Some(late),
        ),
    ] {
        let one = notification(&state);
        assert_eq!(one.read_at.map(timestamp).as_deref(), read_at, "{state}");
        assert_eq!(one.is_read, read_at.is_some());
    }
}

#[test]
fn what_breaks_a_rule_is_told_all_at_once() {
    for (more, expected) in [
        (json!({"id": null}), "/id required"),
        (json!({"id": 1.5}), "/id type_mismatch"),
        (json!({"id": ""}), "/id blank"),
        (json!({"id": "x".repeat(256)}), "/id too_long"),
        (json!({"userId": "a b"}), "/userId user_id_invalid"),
        (json!({"createdAt": null}), "/createdAt required"),
        (
            json!({"createdAt": "2026-01-01T00:01:00Z"}),
            "/createdAt time_future",
        ),
        (json!({"createdAt": "yesterday"}), "/createdAt time_invalid"),
        (json!({"readAt": -1}), "/readAt time_invalid"),
        (json!({"data": "[1]"}), "/data type_mismatch"),
        (json!({"data": "{}, \"x\": {}"}), "/data type_mismatch"),
        (json!({"data": "{\"a\":1,\"a\":2}"}), "/data type_mismatch"),
        (json!({"type": "2nd"}), "/type pattern_mismatch"),
        (json!({"priority": "LOUD"}), "/priority unknown_value"),
        (
            json!({"isRead": true, "read": false}),
            "/read contradiction",
        ),
        (json!({"created_at": 1}), "/created_at unknown_field"),
        (
            json!({"title": null, "userId": null}),
            "/userId required, /title required",
        ),
    ] {
        let faults = read(&with(&more)).unwrap_err();
        let told: Vec<_> = faults
            .iter()
            .map(|fault| format!("{} {}", fault.pointer, fault.code))
            .collect();
        assert_eq!(told.join(", "), expected, "{more}");
    }
    let faults = super::read(
        b"{",
        LineRules {
            http_urls: false,
            now: Utc::now(),
            ignored: &[],
        },
    );
    assert_eq!(faults.unwrap_err()[0].code, "json_invalid");
}

#[test]
fn what_is_over_is_read_all_the_same() {
    let one = notification(&json!({ "expiresAt": "2024-02-01T00:00:00Z", "seq": 7 }));
    assert!(one.expires_at.is_some() && one.seq == 0);
    let deleted = read(&with(&json!({ "deletedAt": "2024-02-01T00:00:00Z" })));
    assert!(matches!(deleted, Ok(Line::Deleted)));
}
