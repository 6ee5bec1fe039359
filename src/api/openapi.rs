//! The description of this API (`OpenAPI` 3.1): what its handlers do not say themselves, and the route that answers it.
//!
//! Each handler carries its own part, as `#[utoipa::path]`, and comes into the router by `routes!`, which
//! takes both: so there is no route without a description. What many of them share is here: who may call,
//! what can go wrong, and the parameters. Bodies are in [`schemas`], next to an example of each; a handler
//! names them by `ref("#/components/schemas/…")`, and [`completed`] puts the example where it is used.

mod schemas;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{OpenApi, Ref, RefOr, Required};
use utoipa::{IntoParams, IntoResponses};

use super::State;
use super::limits::Exceeded;
use super::problem::{FieldError, Problem};
use super::query::NoParameters;
use crate::auth::Refusal;
use crate::store::StoreError;

type Responses = std::collections::BTreeMap<String, RefOr<utoipa::openapi::Response>>;

/// The document: the same for every caller, and written when it is first asked for.
#[derive(Debug, Default)]
pub struct Document(OnceLock<Bytes>);

/// `GET /api/openapi.json`
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    operation_id = "getOpenApi",
    tag = "client",
    summary = "This description",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = ref("#/components/schemas/OpenApi")),
        AnyRefusals,
    ),
)]
pub(super) async fn read(
    extract::State(state): extract::State<Arc<State>>,
    _: NoParameters,
) -> Response {
    let described = || super::described(state.dev.is_some()).into_openapi();
    state
        .document
        .answer(described, state.options.allow_http_urls)
}

/// What the document begins with, before any route is in it.
pub(super) fn begin() -> OpenApi {
    let info = utoipa::openapi::InfoBuilder::new()
        .title("Bellhop")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license()))
        .build();
    let server = utoipa::openapi::Server::new("/");
    let tags = TAGS.map(|(name, description)| {
        utoipa::openapi::tag::TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    });
    utoipa::openapi::OpenApiBuilder::new()
        .info(info)
        .servers(Some([server]))
        .tags(Some(tags))
        .build()
}

fn license() -> utoipa::openapi::License {
    utoipa::openapi::LicenseBuilder::new()
        .name("Apache-2.0")
        .identifier(Some("Apache-2.0"))
        .build()
}

const DESCRIPTION: &str = "A notification is posted to any node, is durable before it is acknowledged, and reaches the \
user's sockets on every node over Socket.IO. All errors are problems (RFC 9457): programs decide by `code`. Methods that \
a resource does not have are answered with 405 and `Allow`, paths that do not exist with 404.";

const TAGS: [(&str, &str); 4] = [
    (
        "publishing",
        "For your backend: a publisher's token, or an API key.",
    ),
    (
        "inbox",
        "For the user's devices: a user token acts on its own inbox only.",
    ),
    (
        "users",
        "For your backend: what concerns a user as a whole.",
    ),
    ("client", "For everyone."),
];

impl Document {
    fn answer(&self, described: impl FnOnce() -> OpenApi, http_urls: bool) -> Response {
        let write = || completed(&described(), http_urls).to_string().into();
        let text = self.0.get_or_init(write).clone();
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        (content_type, Body::from(text)).into_response()
    }
}

/// Completes what `openapi` has gathered from the routes. `http_urls`: notifications may have `http:` URLs.
fn completed(openapi: &OpenApi, http_urls: bool) -> Value {
    let mut document = serde_json::to_value(openapi).unwrap_or_default();
    let schemas = schemas::all(http_urls);
    for operation in operations(&mut document) {
        say_which_codes(operation);
        name_request_ids(operation);
        give_examples(operation, &schemas);
        say_whether_needed(operation, &schemas);
        link_what_is_created(operation);
    }
    document["components"] = json!({
        "schemas": schemas,
        "responses": problem_responses(),
        "examples": problem_examples(),
        "headers": { "RequestId": request_id_header() },
        "securitySchemes": security_schemes(),
    });
    document
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_path, item)| {
        let operations = item.as_object_mut().into_iter().flatten();
        operations.map(|(_method, operation)| operation)
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Acts on the inbox of its `sub`. A publisher has `notifications:publish` in its space-separated `scope`.",
        },
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "A publisher's key; `bellhop key` makes one.",
        },
    })
}

fn request_id_header() -> Value {
    json!({
        "description": "The name of this request in the log of the node: the caller's own, if it gave a good one.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" },
        "example": "0198f1c2-7d5a-7c3e-9b1f-2f6f0e8f4a11",
    })
}

/// Every answer bears the header.
fn name_request_ids(operation: &mut Value) {
    let responses = operation["responses"].as_object_mut().into_iter().flatten();
    for (_status, response) in responses.filter(|(_, response)| response.get("$ref").is_none()) {
        response["headers"]["x-request-id"] = json!({ "$ref": "#/components/headers/RequestId" });
    }
}

/// Puts the examples of a body's schema where the body is used, where readers and tools look for them.
fn give_examples(operation: &mut Value, schemas: &Map<String, Value>) {
    let (mut bodies, mut rest) = (Vec::new(), vec![operation]);
    while let Some(value) = rest.pop() {
        let Some(members) = value.as_object_mut() else {
            continue;
        };
        for (name, member) in members {
            match name.as_str() {
                "content" => bodies.push(member),
                _ => rest.push(member),
            }
        }
    }
    for media in bodies
        .into_iter()
        .filter_map(Value::as_object_mut)
        .flatten()
        .map(|(_type, media)| media)
    {
        if media.get("examples").is_some() {
            continue;
        }
        let examples =
            named(&media["schema"], schemas).and_then(|schema| schema["examples"].as_array());
        let examples = examples.into_iter().flatten().enumerate();
        let examples = examples
            .map(|(index, value)| (format!("example{}", index + 1), json!({ "value": value })))
            .collect();
        media["examples"] = Value::Object(examples);
    }
}

/// A body that needs no member may be left out.
fn say_whether_needed(operation: &mut Value, schemas: &Map<String, Value>) {
    let Some(body) = operation.get_mut("requestBody") else {
        return;
    };
    let schema = named(&body["content"]["application/json"]["schema"], schemas);
    let needs = |schema: &Value| {
        let required = schema["required"].as_array();
        required.is_some_and(|names| !names.is_empty()) || schema.get("minProperties").is_some()
    };
    body["required"] = json!(schema.is_some_and(needs));
}

/// What one creates, one can then act on: as the user who created it for themselves, or as a publisher.
fn link_what_is_created(operation: &mut Value) {
    const USERS: [&str; 5] = [
        "getNotification",
        "markRead",
        "markUnread",
        "clickNotification",
        "deleteNotification",
    ];
    const PUBLISHERS: [&str; 3] = [
        "getUserNotification",
        "editNotification",
        "withdrawNotification",
    ];
    let Some(created) = operation["responses"].get_mut("201") else {
        return;
    };
    let schema = &created["content"]["application/json"]["schema"]["$ref"];
    let (one, next) = match schema.as_str() {
        Some("#/components/schemas/CreatedOne") => ("", &[&USERS[..], &PUBLISHERS].concat()),
        Some("#/components/schemas/CreatedMany") => ("/items/0", &PUBLISHERS.to_vec()),
        // Of the two forms of an answer, a link can only name one.
        _ => return,
    };
    let (id, user) = (
        format!("$response.body#{one}/id"),
        format!("$response.body#{one}/userId"),
    );
    let link = |then: &&str| {
        let mut parameters = json!({ "id": id });
        if PUBLISHERS.contains(then) {
            parameters["userId"] = json!(user);
        }
        (
            (*then).to_owned(),
            json!({ "operationId": then, "parameters": parameters }),
        )
    };
    created["links"] = Value::Object(next.iter().map(link).collect());
}

/// The schema that a reference leads to.
fn named<'s>(reference: &Value, schemas: &'s Map<String, Value>) -> Option<&'s Value> {
    let name = reference["$ref"].as_str()?.rsplit('/').next()?;
    schemas.get(name)
}

// What can go wrong. Handlers name these in their `responses(…)`.

/// For everybody: a query that is not taken; the node is busy, or has a defect.
pub(super) struct AnyRefusals;

/// For what a user's token is needed for.
pub(super) struct UserRefusals;

/// For what a publisher's token or key is needed for.
pub(super) struct PublisherRefusals;

/// Publishing too often.
pub(super) struct RateRefusal;

/// What the path names is not there, or is not the caller's.
pub(super) struct NotFound;

/// For what has a body.
pub(super) struct BodyRefusals;

const FAILURES: [u16; 2] = [500, 503];

impl IntoResponses for AnyRefusals {
    fn responses() -> Responses {
        problems(&[400])
    }
}

impl IntoResponses for UserRefusals {
    fn responses() -> Responses {
        problems(&[400, 401, 403])
    }
}

impl IntoResponses for PublisherRefusals {
    fn responses() -> Responses {
        problems(&[400, 401, 403])
    }
}

impl IntoResponses for RateRefusal {
    fn responses() -> Responses {
        problems(&[429])
    }
}

impl IntoResponses for NotFound {
    fn responses() -> Responses {
        problems(&[404])
    }
}

impl IntoResponses for BodyRefusals {
    fn responses() -> Responses {
        problems(&[400, 408, 413, 415, 422])
    }
}

fn problems(statuses: &[u16]) -> Responses {
    let all = statuses.iter().chain(&FAILURES);
    all.map(|status| {
        let shared = Ref::from_response_name(format!("Problem{status}"));
        (status.to_string(), RefOr::Ref(shared))
    })
    .collect()
}

/// One of each problem that an operation can end with, as it is answered.
fn samples() -> Vec<Problem> {
    let malformed = |(code, detail)| Problem::malformed(code, detail);
    let field = |pointer: &str, code, expected| FieldError {
        pointer: pointer.to_owned(),
        code,
        expected,
    };
    let query = Problem::Malformed {
        code: "query_invalid",
        detail: "Each entry of errors names a parameter and what is expected of it.".into(),
        errors: vec![field("/limit", "out_of_range", "1 to 200")],
    };
    let others = [
        query,
        Refusal::Missing.into(),
        Refusal::Expired.into(),
        Refusal::Invalid("signature").into(),
        Problem::Forbidden(
            "This needs a token with the scope notifications:publish, or an API key.",
        ),
        Problem::NotFound,
        Problem::BodyTimeout,
        Problem::TooLarge,
        Problem::UnsupportedMediaType("Send the body with Content-Type: application/json."),
        Problem::Invalid(vec![field("/title", "required", "1 to 200 characters")]),
        Problem::KeyReused,
        Problem::TooManyForLimit,
        Problem::RateLimited(Exceeded::EXAMPLE),
        Problem::Defect("an example"),
        Problem::Overloaded,
        Problem::StoreAway(StoreError::Refused("an example".to_owned())),
        Problem::TimedOut,
    ];
    MALFORMED.map(malformed).into_iter().chain(others).collect()
}

const MALFORMED: [(&str, &str); 12] = [
    (
        "authorization_repeated",
        "There is more than one Authorization header.",
    ),
    (
        "api_key_repeated",
        "There is more than one X-API-Key header.",
    ),
    (
        "credentials_ambiguous",
        "Send Authorization: Bearer or X-API-Key, not both.",
    ),
    (
        "cursor_invalid",
        "The cursor is not one that this user was given; start at the first page.",
    ),
    (
        "user_id_invalid",
        "A userId is 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -",
    ),
    (
        "idempotency_key_invalid",
        "Idempotency-Key is 1 to 255 visible ASCII characters, once.",
    ),
    (
        "body_empty",
        "The body is empty; a JSON object is expected.",
    ),
    ("body_incomplete", "The body did not arrive as a whole."),
    ("utf8_invalid", "The body is not UTF-8."),
    ("json_invalid", "The body is not JSON: line 1, column 2."),
    (
        "json_too_deep",
        "The body is nested too deeply: line 1, column 101.",
    ),
    (
        "json_duplicate_key",
        "An object of the body has the same name twice: line 1, column 16.",
    ),
];

/// Whether an operation can end with this code: that follows from what it takes.
fn can_end_with(operation: &Value, code: &str) -> bool {
    let takes = |name: &str| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters
            .into_iter()
            .any(|parameter| parameter["name"] == name)
    };
    let needs = |scheme: &str| {
        let schemes = operation["security"].as_array().into_iter().flatten();
        schemes.into_iter().any(|one| one.get(scheme).is_some())
    };
    match code {
        "authorization_repeated" | "api_key_repeated" | "credentials_ambiguous" => needs("bearer"),
        // All of them ask the store at least which tokens are revoked.
        "storage_unavailable" | "timed_out" => needs("bearer"),
        "cursor_invalid" => takes("cursor"),
        "user_id_invalid" => takes("userId"),
        "idempotency_key_invalid" | "idempotency_key_reused" => takes("Idempotency-Key"),
        "too_many_for_limit" => needs("apiKey") && operation["responses"].get("429").is_some(),
        "utf8_invalid" => operation.get("requestBody").is_some(),
        _ if code.starts_with("body_") || code.starts_with("json_") => {
            operation.get("requestBody").is_some()
        }
        _ => true,
    }
}

/// Where not every code of a status is possible, says which are.
fn say_which_codes(operation: &mut Value) {
    let (samples, whole) = (samples(), operation.clone());
    let responses = operation["responses"].as_object_mut().into_iter().flatten();
    for (status, response) in responses.filter(|(_, response)| response.get("$ref").is_some()) {
        let of_status = samples
            .iter()
            .filter(|sample| sample.status().as_str() == status);
        let (possible, others): (Vec<_>, Vec<_>) =
            of_status.partition(|sample| can_end_with(&whole, sample.code()));
        if !others.is_empty() {
            *response = problem_response(status, &possible);
        }
    }
}

/// One shared response for each status, with every code that it may have.
fn problem_responses() -> Map<String, Value> {
    let mut by_status = std::collections::BTreeMap::<_, Vec<_>>::new();
    let samples = samples();
    for sample in &samples {
        by_status
            .entry(sample.status().as_u16().to_string())
            .or_default()
            .push(sample);
    }
    let responses = by_status.iter().map(|(status, samples)| {
        (
            format!("Problem{status}"),
            problem_response(status, samples),
        )
    });
    responses.collect()
}

fn problem_examples() -> Map<String, Value> {
    let example = |problem: &Problem| {
        let text = problem.text("0198f1c2-7d5a-7c3e-9b1f-2f6f0e8f4a11");
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        (problem.code().to_owned(), json!({ "value": value }))
    };
    samples().iter().map(example).collect()
}

fn problem_response(status: &str, samples: &[&Problem]) -> Value {
    let codes: Vec<&str> = samples.iter().map(|sample| sample.code()).collect();
    let example = |code: &&str| {
        (
            (*code).to_owned(),
            json!({ "$ref": format!("#/components/examples/{code}") }),
        )
    };
    let (description, own) = DESCRIPTIONS
        .iter()
        .find(|(known, ..)| *known == status)
        .map_or(("", None), |(_, description, own)| (*description, *own));
    let mut headers = json!({ "x-request-id": { "$ref": "#/components/headers/RequestId" } });
    if let Some((name, description)) = own {
        headers[name] = json!({ "description": description, "schema": { "type": "string" } });
    }
    json!({
        "description": description,
        "headers": headers,
        "content": {
            "application/problem+json": {
                "schema": {
                    "$ref": "#/components/schemas/Problem",
                    "properties": { "code": { "enum": codes }, "status": { "const": status.parse::<u16>().unwrap_or_default() } },
                },
                "examples": codes.iter().map(example).collect::<Map<_, _>>(),
            },
        },
    })
}

type Header = (&'static str, &'static str);

const RETRY_AFTER: Header = ("Retry-After", "After how many seconds to repeat it.");

/// What each status means, and the header that comes with it.
const DESCRIPTIONS: [(&str, &str, Option<Header>); 11] = [
    (
        "400",
        "It cannot be read: header, path, query or JSON.",
        None,
    ),
    (
        "401",
        "No token or key, or none that is accepted.",
        Some((
            "WWW-Authenticate",
            "The scheme, `Bearer`, and what was wrong.",
        )),
    ),
    ("403", "Not with this token or key.", None),
    ("404", "Not there, or another user's.", None),
    ("408", "The body did not arrive in time.", None),
    ("413", "The body is too large.", None),
    ("415", "Not application/json, or encoded.", None),
    ("422", "The body breaks a rule; all errors at once.", None),
    ("429", "Too often; nothing was done.", Some(RETRY_AFTER)),
    ("500", "The node failed; its log says why.", None),
    (
        "503",
        "Repeat it, with the same `Idempotency-Key` if it had one.",
        Some(RETRY_AFTER),
    ),
];

// The parameters. Handlers name these in their `params(…)`.

/// `Idempotency-Key`
pub(super) struct IdempotencyKey;

/// The `{id}` of a path.
pub(super) struct NotificationId;

/// The `{userId}` of a path.
pub(super) struct Addressed;

/// The query of an inspection.
pub(super) struct InspectQuery;

/// The query of the list.
pub(super) struct ListQuery;

/// The query of the changes.
pub(super) struct ChangesQuery;

/// `If-None-Match`
pub(super) struct IfNoneMatch;

/// Which answers [`IntoParams`] may take from its caller is of no use here: each parameter knows its place.
macro_rules! parameters {
    ($($holder:ty: [$(($name:literal, $place:ident, $schema:literal, $description:literal)),* $(,)?];)*) => {$(
        impl IntoParams for $holder {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$(parameter($name, ParameterIn::$place, $schema, $description)),*]
            }
        }
    )*};
}

parameters! {
    IdempotencyKey: [
        ("Idempotency-Key", Header, "IdempotencyKey", "A repeat within 24 hours with the same key and body is answered as the first was."),
    ];
    NotificationId: [("id", Path, "NotificationId", "As it was given when the notification was created.")];
    Addressed: [("userId", Path, "UserId", "The user, percent-encoded where it has to be.")];
    InspectQuery: [("limit", Query, "LastChanges", "How many changes at most.")];
    ListQuery: [
        ("limit", Query, "Limit", "How many items at most."),
        ("cursor", Query, "Cursor", "The `nextCursor` of the page before."),
        ("unread", Query, "Unread", "Only unread ones, or only read ones."),
        ("type", Query, "Kind", "Only of this type."),
    ];
    ChangesQuery: [
        ("since", Query, "Seq", "The `seq` that the client has; 0, or none, is nothing."),
        ("epoch", Query, "Epoch", "The `epoch` that came with it."),
        ("limit", Query, "Limit", "How many items and deleted together at most."),
    ];
    IfNoneMatch: [("If-None-Match", Header, "ETag", "The `ETag` of the answer that the client has.")];
}

fn parameter(name: &str, place: ParameterIn, schema: &str, description: &str) -> Parameter {
    let required = if place == ParameterIn::Path {
        Required::True
    } else {
        Required::False
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(Ref::from_schema_name(schema)))
        .build()
}
