//! Transient emits: an event of the application's own for one user, several or everyone; nothing remembers it.

use std::sync::Arc;

use axum::extract;
use axum::response::Response;
use http::StatusCode;
use serde_json::value::RawValue;

use super::body::Large;
use super::caller::Publisher;
use super::fields::Fields;
use super::json::compact;
use super::problem::Problem;
use super::recipients::recipients;
use super::{State, json, openapi};
use crate::bus::Sent;
use crate::event::{self, Event};
use crate::publish::Recipients;

const EVENT: &str = "at most 128 characters of ^[a-z][a-z0-9-]*(:[a-z0-9-]+)*$, and no name that Bellhop or Socket.IO uses";
pub(super) const MAX_EVENT: usize = 128;

/// Names that would be taken for ours, or by client libraries for their own.
pub(super) const RESERVED: [&str; 19] = [
    event::NEW,
    event::UPDATED,
    event::DELETED,
    event::UNREAD_COUNT,
    event::REFRESH,
    event::SYNCED,
    event::AUTH_EXPIRING,
    event::SERVER_DRAIN,
    "notification:read",
    "notification:unread",
    "notification:read-all",
    "notification:delete",
    "notification:click",
    "notification:received",
    "auth:refresh",
    "connect",
    "disconnect",
    "disconnecting",
    "error",
];

/// `POST /api/emit`
#[utoipa::path(
    post,
    path = "/api/emit",
    operation_id = "emit",
    tag = "publishing",
    summary = "Emit an event of your own; nothing is stored",
    security(("bearer" = []), ("apiKey" = [])),
    request_body(content = ref("#/components/schemas/Emit"), content_type = "application/json"),
    responses(
        (status = 202, description = "Passed on; `local`: on this node only", body = ref("#/components/schemas/Emitted")),
        openapi::PublisherRefusals,
        openapi::BodyRefusals,
        openapi::RateRefusal,
    ),
)]
pub(super) async fn emit(
    extract::State(state): extract::State<Arc<State>>,
    publisher: Publisher,
    Large(body): Large,
) -> Result<Response, Problem> {
    let (to, event) = parse(&body)?;
    match &to {
        Recipients::Everyone => state.limits.count_broadcast(&publisher)?,
        Recipients::Users(users) => state.limits.count(&publisher, users)?,
    }
    let delivery = match state.publisher.emit(&to, &event) {
        Sent::Live => "live",
        Sent::Deferred => "local",
    };
    Ok(json(
        StatusCode::ACCEPTED,
        &serde_json::json!({ "delivery": delivery }),
    ))
}

fn parse(body: &[u8]) -> Result<(Recipients, Event), Problem> {
    let mut fields = Fields::of(body)?;
    let to = recipients(&mut fields, true);
    if !fields.has("event") {
        fields.refuse("event", "required", EVENT);
    }
    let name = fields.text("event");
    if name.as_ref().is_some_and(|name| !is_event_name(name)) {
        fields.refuse("event", "pattern_mismatch", EVENT);
    }
    if name
        .as_ref()
        .is_some_and(|name| RESERVED.contains(&name.as_str()))
    {
        fields.refuse("event", "reserved", EVENT);
    }
    let payload = fields
        .take("payload")
        .map_or_else(|| "null".to_owned(), |json| compact(json).text);
    fields.finish()?;
    // Checked as part of the body.
    let payload = RawValue::from_string(payload).unwrap_or_default();
    Ok((
        to,
        Event {
            name: name.unwrap_or_default().into(),
            payload,
        },
    ))
}

/// `^[a-z][a-z0-9-]*(:[a-z0-9-]+)*$`
fn is_event_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(allowed);
    name.len() <= MAX_EVENT
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.split(':').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::tests::errors;
    use crate::user::UserId;

    #[test]
    fn an_event_name_is_in_parts() {
        for name in ["a", "typing", "order:shipped", "a-b:1:c-", &"x".repeat(128)] {
            assert!(is_event_name(name), "{name}");
        }
        for name in [
            "",
            "A",
            "1a",
            "-a",
            "a:",
            ":a",
            "a::b",
            "a b",
            "a_b",
            "é",
            "connect_error",
            &"x".repeat(129),
        ] {
            assert!(!is_event_name(name), "{name}");
        }
    }

    #[test]
    fn an_emit_has_one_form_of_recipient() {
        let user = |text| UserId::try_from(text).unwrap();
        for (to, expected) in [
            (r#""userId": 7"#, Recipients::Users(vec![user("7")])),
            (
                r#""userIds": ["b", "a"], "broadcast": false"#,
                Recipients::Users(vec![user("b"), user("a")]),
            ),
            (r#""broadcast": true, "userId": null"#, Recipients::Everyone),
        ] {
            let body = format!(r#"{{{to}, "event": "typing", "payload": [ 1, "a b" ]}}"#);
            let (found, event) = parse(body.as_bytes()).unwrap();
            assert_eq!(found, expected);
            assert_eq!(
                (&*event.name, event.payload.get()),
                ("typing", r#"[1,"a b"]"#)
            );
        }
        assert_eq!(
            parse(br#"{"userId": 7, "event": "typing"}"#)
                .unwrap()
                .1
                .payload
                .get(),
            "null"
        );
    }

    #[test]
    fn every_rule_that_an_emit_breaks_is_named() {
        for (body, expected) in [
            ("{}", &["/userId required", "/event required"][..]),
            (
                r#"{"userId": 1, "broadcast": true, "event": "a"}"#,
                &["/userId ambiguous"],
            ),
            (
                r#"{"broadcast": 1, "event": 1}"#,
                &[
                    "/broadcast type_mismatch",
                    "/userId required",
                    "/event type_mismatch",
                ],
            ),
            (
                r#"{"broadcast": true, "event": "A"}"#,
                &["/event pattern_mismatch"],
            ),
            (
                r#"{"broadcast": true, "event": ""}"#,
                &["/event pattern_mismatch"],
            ),
            (
                r#"{"broadcast": true, "event": "notification:new"}"#,
                &["/event reserved"],
            ),
            (
                r#"{"broadcast": true, "event": "disconnecting"}"#,
                &["/event reserved"],
            ),
            (
                r#"{"broadcast": true, "event": "a", "data": 1}"#,
                &["/data unknown_field"],
            ),
        ] {
            assert_eq!(
                errors(parse(body.as_bytes()).unwrap_err()),
                expected,
                "{body}"
            );
        }
    }
}
