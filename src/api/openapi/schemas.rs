//! The bodies of the API as JSON Schema 2020-12, each with examples; tests hold them against what is read and written.

use serde_json::{Map, Value, json};

use crate::api::batch::MAX_NOTIFICATIONS;
use crate::api::draft::{MAX_LINK, MAX_MESSAGE, MAX_TITLE};
use crate::api::emit::{MAX_EVENT, RESERVED};
use crate::api::publish::MAX_KEY;
use crate::api::query::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::api::recipients::MAX_USERS;
use crate::api::users::LAST_CHANGES;
use crate::config::Transport;
use crate::notification::{Priority, Reason};
use crate::user::UserId;

/// Everything but control characters; of those, newline and tab, and CR before LF.
const CHARACTER: &str = r"(?:[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]|\r\n)";

/// Such a character that can be seen.
const VISIBLE: &str = r"[^\s\u0000-\u001f\u007f-\u009f]";

/// What a link must not have anywhere.
const NOT_IN_LINKS: &str = r"\s\\\u0000-\u001f\u007f-\u009f";

const MAX_INTEGER: u64 = (1 << 53) - 1;

/// By name, for `#/components/schemas/…`.
pub(super) fn all(http_urls: bool) -> Map<String, Value> {
    let groups = [
        names(),
        values(),
        vec![("Link", link(http_urls))],
        parameters(),
        notifications(),
        reading(),
        writing(),
        users(),
        others(),
    ];
    let schemas = groups.into_iter().flatten();
    schemas
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

type Group = Vec<(&'static str, Value)>;

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn or_null(name: &str) -> Value {
    json!({ "anyOf": [reference(name), { "type": "null" }] })
}

/// An object in which these members have to be there, and any of `properties` may be.
fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// What we answer with: all of these members, and later releases may add some.
fn answer(properties: &Value) -> Value {
    let names = properties.as_object().into_iter().flatten();
    let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    object(&names, properties)
}

/// What we take: none but these members.
fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    schema
}

fn with(mut schema: Value, name: &str, value: Value) -> Value {
    schema[name] = value;
    schema
}

fn examples(schema: Value, examples: Vec<Value>) -> Value {
    with(schema, "examples", Value::Array(examples))
}

/// Whom and which.
fn names() -> Group {
    let longest = UserId::MAX_LENGTH;
    let user_id = format!("^[A-Za-z0-9._~@:-]{{1,{longest}}}$");
    let user_id = json!({ "type": "string", "pattern": user_id, "minLength": 1, "maxLength": longest, "examples": ["123"] });
    let number = json!({ "type": "integer", "minimum": 0, "maximum": MAX_INTEGER });
    let input = json!({
        "description": "An integer is the user of its decimal spelling; different strings are different users.",
        "anyOf": [reference("UserId"), number],
        "examples": ["123", 123],
    });
    let many = json!({
        "description": "Each user once, whichever way it is spelled.",
        "type": "array", "items": reference("UserIdInput"),
        "minItems": 1, "maxItems": MAX_USERS, "uniqueItems": true,
    });
    let seq = json!({
        "description": "The user's own change counter.",
        "type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX,
    });
    let id = json!({ "type": "string", "format": "uuid", "examples": [ID] });
    vec![
        ("UserIdInput", input),
        ("UserId", user_id),
        ("UserIds", many),
        ("NotificationId", id),
        ("Seq", seq),
    ]
}

/// What is in the other members.
fn values() -> Group {
    let kind = json!({ "type": "string", "pattern": "^[A-Z][A-Z0-9_]{0,63}$", "maxLength": 64, "default": "GENERAL" });
    let priority = json!({ "type": "string", "enum": Priority::ALL.map(Priority::as_str), "default": Priority::default().as_str() });
    let delivery = json!({
        "description": "Whether the other nodes were told at once, or find it in the store.",
        "type": "string", "enum": ["live", "deferred"],
    });
    let title = format!("^{CHARACTER}*{VISIBLE}{CHARACTER}*$");
    let title =
        json!({ "type": "string", "minLength": 1, "maxLength": MAX_TITLE, "pattern": title });
    let message =
        json!({ "type": "string", "maxLength": MAX_MESSAGE, "pattern": format!("^{CHARACTER}*$") });
    let data = json!({
        "description": "At most 8 KiB written compactly, at most 8 containers deep with itself.",
        "type": "object",
    });
    let epoch = json!({ "description": "Another one: history was replaced.", "type": "string" });
    let time = json!({ "type": "string", "format": "date-time", "examples": [CREATED_AT] });
    let count = json!({ "type": "integer", "format": "int64", "minimum": 0 });
    let reason = json!({ "type": "string", "enum": Reason::ALL.map(Reason::as_str) });
    vec![
        ("Count", count),
        ("Epoch", epoch),
        ("Time", time),
        ("Kind", kind),
        ("Priority", priority),
        ("Reason", reason),
        ("Delivery", delivery),
        ("Title", title),
        ("Message", message),
        ("Data", data),
    ]
}

/// Of hosts, those that every reader of URLs takes.
fn link(http_urls: bool) -> Value {
    let scheme = if http_urls {
        "[Hh][Tt][Tt][Pp][Ss]?"
    } else {
        "[Hh][Tt][Tt][Pp][Ss]"
    };
    let byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    let name = r"(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z][A-Za-z0-9-]{0,62}";
    let port = "(?::[0-9]{1,4}|:[1-5][0-9]{4})?";
    let tail = format!("(?:[/?#][^{NOT_IN_LINKS}]*)?");
    let url = format!(r"{scheme}://(?:{name}|{byte}(?:\.{byte}){{3}}){port}{tail}");
    let path = format!("/(?:[^/{NOT_IN_LINKS}][^{NOT_IN_LINKS}]*)?");
    let scheme = if http_urls {
        "`http:` or `https:`"
    } else {
        "`https:`"
    };
    let description = format!(
        "A URL of {scheme}, or a path that begins with one `/`. Never fetched by the server."
    );
    json!({
        "description": description,
        "type": "string",
        "maxLength": MAX_LINK,
        "pattern": format!("^(?:{url}|{path})$"),
        "examples": ["/orders/7", "https://example.com/orders/7"],
    })
}

fn parameters() -> Group {
    vec![
        (
            "IdempotencyKey",
            json!({ "type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$", "examples": ["order-7-shipped"] }),
        ),
        ("ETag", json!({ "type": "string", "examples": ["\"2a\""] })),
        (
            "Limit",
            json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT }),
        ),
        (
            "LastChanges",
            json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LAST_CHANGES }),
        ),
        (
            "Cursor",
            json!({ "description": "Opaque, and of one user.", "type": "string", "pattern": "^[A-Za-z0-9_-]{22}$", "minLength": 22, "maxLength": 22 }),
        ),
        ("Unread", json!({ "type": "boolean" })),
    ]
}

const ID: &str = "0198f1c2-7d5a-7c3e-9b1f-2f6f0e8f4a11";
const CREATED_AT: &str = "2026-11-23T08:00:00.123Z";
const EPOCH: &str = "9b1f2f6f";

fn notification_example() -> Value {
    json!({
        "id": ID, "userId": "123", "seq": 42, "type": "GENERAL", "priority": "HIGH",
        "title": "Order shipped", "message": "Order 7 is on its way.", "data": { "orderId": 7 },
        "actionUrl": "/orders/7", "icon": null, "badge": null, "silent": false, "sticky": false,
        "isRead": false, "readAt": null, "clickedAt": null, "createdAt": CREATED_AT, "expiresAt": null,
    })
}

/// As it is answered.
fn notifications() -> Group {
    let properties = json!({
        "id": reference("NotificationId"), "userId": reference("UserId"), "seq": reference("Seq"),
        "type": reference("Kind"), "priority": reference("Priority"),
        "title": { "type": "string", "minLength": 1, "maxLength": MAX_TITLE },
        "message": { "type": "string", "maxLength": MAX_MESSAGE },
        "data": { "type": "object" },
        "actionUrl": link_or_null(), "icon": link_or_null(), "badge": link_or_null(),
        "silent": { "type": "boolean" }, "sticky": { "type": "boolean" },
        "isRead": { "type": "boolean" }, "readAt": or_null("Time"), "clickedAt": or_null("Time"),
        "createdAt": reference("Time"), "expiresAt": or_null("Time"),
    });
    let delivered = with(notification_example(), "delivery", json!("live"));
    let item = json!({ "userId": "123", "id": ID, "seq": 42 });
    let many = json!({ "items": [item], "delivery": "live" });
    let with_delivery = answer(&json!({ "delivery": reference("Delivery") }));
    let created = json!({ "userId": reference("UserId"), "id": reference("NotificationId"), "seq": reference("Seq") });
    let items = json!({ "items": { "type": "array", "items": reference("CreatedItem") }, "delivery": reference("Delivery") });
    vec![
        (
            "Notification",
            examples(answer(&properties), vec![notification_example()]),
        ),
        (
            "CreatedOne",
            examples(
                json!({ "allOf": [reference("Notification"), with_delivery] }),
                vec![delivered.clone()],
            ),
        ),
        ("CreatedItem", answer(&created)),
        ("CreatedMany", examples(answer(&items), vec![many.clone()])),
        (
            "Created",
            json!({
                "description": "The notification, if the body named one `userId`; else one item for each user, in their order.",
                "oneOf": [reference("CreatedOne"), reference("CreatedMany")],
                "examples": [delivered, many],
            }),
        ),
    ]
}

fn link_or_null() -> Value {
    json!({ "type": ["string", "null"], "maxLength": MAX_LINK })
}

/// What users read of their inboxes.
fn reading() -> Group {
    let notifications = json!({ "type": "array", "items": reference("Notification") });
    let page = positioned(json!({
        "items": notifications, "nextCursor": { "type": ["string", "null"] }, "epoch": reference("Epoch"),
    }));
    let page_example = json!({ "items": [notification_example()], "nextCursor": null, "unreadCount": 1, "seq": 42, "epoch": EPOCH });
    let count = json!({ "count": reference("Count"), "seq": reference("Seq") });
    let deleted = json!({ "id": reference("NotificationId"), "seq": reference("Seq"), "reason": reference("Reason") });
    let updated = positioned(json!({ "updated": reference("Count") }));
    let cleared = positioned(json!({ "deleted": reference("Count") }));
    let bulk = |name: &str| json!({ name: 3, "unreadCount": 0, "seq": 44 });
    vec![
        ("Page", examples(answer(&page), vec![page_example])),
        (
            "UnreadCount",
            examples(answer(&count), vec![json!({ "count": 1, "seq": 42 })]),
        ),
        ("Deleted", answer(&deleted)),
        ("Changes", changes()),
        ("ReadAll", examples(answer(&updated), vec![bulk("updated")])),
        ("Cleared", examples(answer(&cleared), vec![bulk("deleted")])),
    ]
}

/// With the counters of its inbox.
fn positioned(properties: Value) -> Value {
    let properties = with(properties, "seq", reference("Seq"));
    with(properties, "unreadCount", reference("Count"))
}

fn changes() -> Value {
    let properties = positioned(json!({
        "items": { "type": "array", "items": reference("Notification") },
        "deleted": { "type": "array", "items": reference("Deleted") },
        "readAllSeq": reference("Seq"), "clearedSeq": reference("Seq"), "epoch": reference("Epoch"),
        "more": { "description": "There is another page, from `seq` on.", "type": "boolean" },
        "reset": { "description": "This cannot be told as changes: fetch the list again, and go on from its `seq`.", "type": "boolean" },
    }));
    let example = json!({
        "items": [notification_example()], "deleted": [{ "id": ID, "seq": 43, "reason": "deleted" }],
        "readAllSeq": 0, "clearedSeq": 0, "seq": 43, "epoch": EPOCH, "unreadCount": 1, "more": false, "reset": false,
    });
    examples(answer(&properties), vec![example])
}

/// RFC 3339, but for a leap second and for an offset that is not known.
fn expiry(description: &str) -> Value {
    json!({
        "description": description, "type": ["string", "null"], "format": "date-time",
        "not": { "type": "string", "pattern": "^.{17}60|-00:00$" },
    })
}

/// The members of a draft. `null` counts as absent.
fn draft() -> Value {
    json!({
        "title": reference("Title"), "message": or_null("Message"),
        "type": or_null("Kind"), "priority": or_null("Priority"), "data": or_null("Data"),
        "actionUrl": or_null("Link"), "icon": or_null("Link"), "badge": or_null("Link"),
        "silent": { "description": "No sound.", "type": ["boolean", "null"] },
        "sticky": { "description": "Stays until clicked; by default, if `priority` is `URGENT`.", "type": ["boolean", "null"] },
        "expiresAt": expiry("In the future; by default never."),
    })
}

/// One of the forms of a body: the member is there, and is not `null`.
fn addressed_by(name: &str) -> Value {
    json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } })
}

/// What publishers and users send.
fn writing() -> Group {
    let to_one = with(draft(), "userId", reference("UserIdInput"));
    let to_any = with(draft(), "userId", or_null("UserIdInput"));
    let to_any = with(to_any, "userIds", or_null("UserIds"));
    let shipped = json!({
        "userId": "123", "title": "Order shipped", "message": "Order 7 is on its way.",
        "priority": "HIGH", "data": { "orderId": 7 }, "actionUrl": "/orders/7",
    });
    let to_many = json!({ "userIds": [7, "alice"], "title": "Maintenance tonight" });
    let new = closed(object(&["title"], &to_any));
    let new = with(
        new,
        "oneOf",
        json!([addressed_by("userId"), addressed_by("userIds")]),
    );
    let one = closed(object(&["userId", "title"], &to_one));
    let batch = json!({ "notifications": { "type": "array", "items": reference("NewNotificationForOne"), "minItems": 1, "maxItems": MAX_NOTIFICATIONS } });
    let test = with(draft(), "title", or_null("Title"));
    vec![
        (
            "NewNotification",
            examples(new, vec![shipped.clone(), to_many]),
        ),
        (
            "NewNotificationForOne",
            examples(one, vec![shipped.clone()]),
        ),
        (
            "Batch",
            examples(
                closed(object(&["notifications"], &batch)),
                vec![json!({ "notifications": [shipped] })],
            ),
        ),
        (
            "TestNotification",
            examples(
                closed(object(&[], &test)),
                vec![json!({}), json!({ "title": "Does it work?" })],
            ),
        ),
        ("Emit", emit()),
        (
            "Emitted",
            examples(
                object(
                    &["delivery"],
                    &json!({ "delivery": { "type": "string", "enum": ["live", "local"] } }),
                ),
                vec![json!({ "delivery": "live" })],
            ),
        ),
    ]
}

fn emit() -> Value {
    let properties = json!({
        "userId": or_null("UserIdInput"), "userIds": or_null("UserIds"),
        "broadcast": { "description": "To everyone who is connected.", "type": ["boolean", "null"] },
        "event": {
            "type": "string", "minLength": 1, "maxLength": MAX_EVENT,
            "pattern": "^[a-z][a-z0-9-]*(:[a-z0-9-]+)*$", "not": { "enum": RESERVED },
        },
        "payload": { "description": "Any JSON; by default `null`." },
    });
    let everyone =
        json!({ "required": ["broadcast"], "properties": { "broadcast": { "const": true } } });
    let forms = json!([addressed_by("userId"), addressed_by("userIds"), everyone]);
    examples(
        with(closed(object(&["event"], &properties)), "oneOf", forms),
        vec![
            json!({ "userId": "123", "event": "order:progress", "payload": { "percent": 40 } }),
            json!({ "broadcast": true, "event": "maintenance" }),
        ],
    )
}

/// What publishers send and read of one user.
fn users() -> Group {
    let presence = json!({
        "online": { "type": "boolean" }, "sockets": reference("Count"),
        "complete": { "description": "`false`: there may be more, on nodes that were not heard.", "type": "boolean" },
    });
    vec![
        ("Edit", edit()),
        (
            "Passed",
            examples(
                answer(&json!({ "delivery": reference("Delivery") })),
                vec![json!({ "delivery": "live" })],
            ),
        ),
        (
            "Presence",
            examples(
                answer(&presence),
                vec![json!({ "online": true, "sockets": 2, "complete": true })],
            ),
        ),
        ("InspectedChange", inspected_change()),
        ("Inspection", inspection()),
    ]
}

/// At least one of the members that a publisher may change.
fn edit() -> Value {
    let properties = json!({
        "title": reference("Title"), "message": or_null("Message"), "data": or_null("Data"),
        "actionUrl": or_null("Link"), "icon": or_null("Link"), "badge": or_null("Link"),
        "expiresAt": expiry("In the future, or never."),
    });
    let some = with(closed(object(&[], &properties)), "minProperties", json!(1));
    let delivered = json!({ "title": "Order delivered", "actionUrl": "/orders/7/receipt" });
    examples(
        some,
        vec![delivered, json!({ "message": null, "expiresAt": null })],
    )
}

fn inspected_change() -> Value {
    answer(&json!({
        "seq": reference("Seq"), "createdSeq": reference("Seq"), "id": reference("NotificationId"),
        "type": reference("Kind"), "priority": reference("Priority"), "createdAt": reference("Time"),
        "confirmedAt": or_null("Time"), "readAt": or_null("Time"), "clickedAt": or_null("Time"),
        "expiresAt": or_null("Time"), "deletedAt": or_null("Time"), "deleteReason": or_null("Reason"),
    }))
}

fn inspection() -> Value {
    let properties = positioned(json!({
        "userId": reference("UserId"), "floorSeq": reference("Seq"),
        "readAllSeq": reference("Seq"), "clearedSeq": reference("Seq"), "epoch": reference("Epoch"),
        "validAfter": { "description": "Tokens issued at or before it are revoked.", "anyOf": [reference("Time"), { "type": "null" }] },
        "changes": { "description": "Newest first.", "type": "array", "items": reference("InspectedChange") },
    }));
    let change = json!({
        "seq": 42, "createdSeq": 41, "id": ID, "type": "GENERAL", "priority": "HIGH", "createdAt": CREATED_AT,
        "confirmedAt": CREATED_AT, "readAt": CREATED_AT, "clickedAt": null, "expiresAt": null,
        "deletedAt": null, "deleteReason": null,
    });
    let example = json!({
        "userId": "123", "seq": 42, "floorSeq": 0, "unreadCount": 0, "readAllSeq": 0, "clearedSeq": 0,
        "validAfter": null, "epoch": EPOCH, "changes": [change],
    });
    examples(answer(&properties), vec![example])
}

fn client_config() -> Value {
    let transports =
        json!({ "type": "string", "enum": [Transport::Websocket, Transport::Polling] });
    let properties = json!({
        "websocketUrl": { "description": "`null`: where this was fetched from.", "type": ["string", "null"] },
        "enableWebsocket": { "description": "`false`: there are no sockets; poll.", "type": "boolean" },
        "path": { "type": "string" },
        "transports": { "type": "array", "items": transports },
        "pollIntervalMs": { "type": "integer", "minimum": 1 },
    });
    let example = json!({
        "websocketUrl": null, "enableWebsocket": true, "path": "/socket.io/",
        "transports": ["websocket", "polling"], "pollIntervalMs": 60_000,
    });
    examples(answer(&properties), vec![example])
}

fn others() -> Group {
    let token = json!({ "token": { "type": "string" }, "userId": reference("UserId"), "expiresAt": reference("Time") });
    vec![
        (
            "DevSignIn",
            examples(
                closed(object(
                    &["userId"],
                    &json!({ "userId": reference("UserIdInput") }),
                )),
                vec![json!({ "userId": "123" })],
            ),
        ),
        (
            "DevToken",
            examples(
                object(&["token", "userId", "expiresAt"], &token),
                vec![
                    json!({ "token": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "userId": "123", "expiresAt": CREATED_AT }),
                ],
            ),
        ),
        (
            "OpenApi",
            examples(
                object(
                    &["openapi", "info", "paths"],
                    &json!({ "openapi": { "type": "string" }, "info": { "type": "object" }, "paths": { "type": "object" } }),
                ),
                vec![
                    json!({ "openapi": "3.1.0", "info": { "title": "Bellhop", "version": "1.0.0" }, "paths": {} }),
                ],
            ),
        ),
        ("ClientConfig", client_config()),
        ("FieldError", field_error_schema()),
        ("Problem", problem()),
    ]
}

fn field_error_schema() -> Value {
    let properties = json!({
        "pointer": { "description": "Where, as a JSON pointer (RFC 6901); in a query, `/name`.", "type": "string" },
        "code": { "description": "What is wrong with it, for programs.", "type": "string", "pattern": "^[a-z_]+$" },
        "expected": { "description": "What would be right, for people.", "type": "string" },
    });
    object(&["pointer", "code", "expected"], &properties)
}

/// What programs decide by, and what to do about it. A code is never given another meaning.
pub(super) const CODES: [(&str, &str); 31] = [
    ("api_key_repeated", "send one X-API-Key header"),
    ("authorization_repeated", "send one Authorization header"),
    ("body_empty", "send a JSON object"),
    ("body_incomplete", "send the whole body"),
    (
        "body_invalid",
        "`errors` names each field that breaks a rule",
    ),
    ("body_timeout", "send the body faster"),
    ("body_too_large", "send less at a time"),
    ("credentials_ambiguous", "send a token or a key, not both"),
    ("cursor_invalid", "start at the first page"),
    ("forbidden", "use a publisher's token or key"),
    (
        "idempotency_key_invalid",
        "1 to 255 visible ASCII characters, once",
    ),
    ("idempotency_key_reused", "use a new key for another body"),
    (
        "internal_error",
        "see the log of the node, under `requestId`",
    ),
    ("json_duplicate_key", "name each member once"),
    ("json_invalid", "send JSON"),
    ("json_too_deep", "nest less"),
    (
        "media_type_unsupported",
        "send application/json, not encoded",
    ),
    ("method_not_allowed", "see the header Allow"),
    ("not_found", "there is nothing, or it is another user's"),
    ("overloaded", "repeat it; nothing was done"),
    (
        "query_invalid",
        "`errors` names each parameter that breaks a rule",
    ),
    ("rate_limited", "repeat it after Retry-After"),
    ("request_invalid", "send what HTTP asks for"),
    (
        "storage_unavailable",
        "repeat it, with the same Idempotency-Key; the outcome is not known",
    ),
    (
        "timed_out",
        "repeat it, with the same Idempotency-Key; the outcome is not known",
    ),
    ("token_expired", "get a new token"),
    (
        "token_invalid",
        "the log of the node says which rule refused it",
    ),
    (
        "token_missing",
        "send Authorization: Bearer and a token, or as a publisher X-API-Key and a key",
    ),
    (
        "too_many_for_limit",
        "name fewer users at a time, or the same one less often",
    ),
    (
        "user_id_invalid",
        "1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -",
    ),
    ("utf8_invalid", "send UTF-8"),
];

fn problem() -> Value {
    let meanings: Vec<String> = CODES
        .iter()
        .map(|(code, then)| format!("- `{code}`: {then}"))
        .collect();
    let codes = CODES.map(|(code, _)| code);
    let properties = json!({
        "type": { "description": "The code, as a name that leads nowhere.", "type": "string", "format": "uri", "pattern": "^urn:bellhop:problem:[a-z0-9_]+$" },
        "title": { "type": "string" },
        "status": { "type": "integer", "minimum": 400, "maximum": 599 },
        "code": { "description": meanings.join("\n"), "type": "string", "enum": codes },
        "detail": { "description": "For people.", "type": "string" },
        "errors": { "type": "array", "items": reference("FieldError"), "maxItems": 100 },
        "requestId": { "type": "string" },
    });
    let names = [
        "type",
        "title",
        "status",
        "code",
        "detail",
        "errors",
        "requestId",
    ];
    with(
        object(&names, &properties),
        "description",
        json!("RFC 9457."),
    )
}
