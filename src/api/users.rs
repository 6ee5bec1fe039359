//! What publishers see and do of one user: their notifications, their inbox as a whole, their devices.

use std::sync::Arc;

use axum::extract;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::json;

use super::body::Small;
use super::caller::{Addressee, Id, Publisher};
use super::edit;
use super::problem::Problem;
use super::publish::delivery;
use super::query::Query;
use super::{State, json as answer, openapi};
use crate::notification::{Reason, timestamp};
use crate::store::{InspectedRow, Inspection, ValidAfter};
use crate::user::UserId;

type Shared = extract::State<Arc<State>>;

/// Changes that an inspection shows, unless it says how many.
pub(super) const LAST_CHANGES: u32 = 20;

/// `GET /api/users/{userId}/notifications/{id}`: whether it was read and clicked.
#[utoipa::path(
    get,
    path = "/api/users/{userId}/notifications/{id}",
    operation_id = "getUserNotification",
    tag = "publishing",
    summary = "Whether it was read and clicked",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed, openapi::NotificationId),
    responses(
        (status = 200, description = "The notification", body = ref("#/components/schemas/Notification")),
        openapi::PublisherRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn one(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
    Id(id): Id,
) -> Result<Response, Problem> {
    let found = state.store.get(&user, id).await?;
    let notification = found.notification.ok_or(Problem::NotFound)?;
    Ok(answer(StatusCode::OK, &notification))
}

/// `PATCH /api/users/{userId}/notifications/{id}`: the notification as it is now.
#[utoipa::path(
    patch,
    path = "/api/users/{userId}/notifications/{id}",
    operation_id = "editNotification",
    tag = "publishing",
    summary = "Change what it says; repeating it changes nothing",
    description = "A member that is left out stays as it is; `null` takes away what may be absent.",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed, openapi::NotificationId),
    request_body(content = ref("#/components/schemas/Edit"), content_type = "application/json"),
    responses(
        (status = 200, description = "The notification as it is now", body = ref("#/components/schemas/Notification")),
        openapi::PublisherRefusals,
        openapi::BodyRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn edit(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
    Id(id): Id,
    Small(body): Small,
) -> Result<Response, Problem> {
    let edit = edit::parse(&body, state.rules())?;
    let notification = state.inbox.edit(&user, id, edit).await?;
    Ok(answer(StatusCode::OK, &notification))
}

/// `DELETE /api/users/{userId}/notifications/{id}`
#[utoipa::path(
    delete,
    path = "/api/users/{userId}/notifications/{id}",
    operation_id = "withdrawNotification",
    tag = "publishing",
    summary = "Take it back; repeating it changes nothing",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed, openapi::NotificationId),
    responses(
        (status = 204, description = "Withdrawn"),
        openapi::PublisherRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn withdraw(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
    Id(id): Id,
) -> Result<Response, Problem> {
    state.inbox.delete(&user, id, Reason::Withdrawn).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /api/users/{userId}`: erases the inbox, also that of a user who never had one.
#[utoipa::path(
    delete,
    path = "/api/users/{userId}",
    operation_id = "eraseUser",
    tag = "users",
    summary = "Erase all notifications of a user, and what idempotency remembers of them",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed),
    responses(
        (status = 204, description = "Erased; also of a user who never had one"),
        openapi::PublisherRefusals,
    ),
)]
pub(super) async fn erase(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
) -> Result<Response, Problem> {
    state.inbox.erase(&user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/users/{userId}/refresh`
#[utoipa::path(
    post,
    path = "/api/users/{userId}/refresh",
    operation_id = "refreshUser",
    tag = "users",
    summary = "Tell a user's devices to fetch again",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed),
    responses(
        (status = 202, description = "Passed on; nothing is promised", body = ref("#/components/schemas/Passed")),
        openapi::PublisherRefusals,
    ),
)]
pub(super) async fn refresh(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
) -> Result<Response, Problem> {
    let sent = state.inbox.refresh(&user).await?;
    let body = json!({ "delivery": delivery(sent) });
    Ok(answer(StatusCode::ACCEPTED, &body))
}

/// `POST /api/users/{userId}/disconnect`: closes the sockets, and revokes the tokens that were issued until now.
#[utoipa::path(
    post,
    path = "/api/users/{userId}/disconnect",
    operation_id = "disconnectUser",
    tag = "users",
    summary = "Close a user's sockets, and refuse the tokens that were issued before now",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed),
    responses(
        (status = 202, description = "Tokens are refused; `deferred`: other nodes close sockets as soon as they hear of it", body = ref("#/components/schemas/Passed")),
        openapi::PublisherRefusals,
    ),
)]
pub(super) async fn disconnect(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
) -> Result<Response, Problem> {
    let sent = state.inbox.revoke(&user).await?;
    state.revocations.forget(&user);
    let body = json!({ "delivery": delivery(sent) });
    Ok(answer(StatusCode::ACCEPTED, &body))
}

/// `GET /api/users/{userId}/presence`
#[utoipa::path(
    get,
    path = "/api/users/{userId}/presence",
    operation_id = "getPresence",
    tag = "users",
    summary = "Whether a user is connected",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed),
    responses(
        (status = 200, description = "At this moment", body = ref("#/components/schemas/Presence")),
        openapi::PublisherRefusals,
    ),
)]
pub(super) async fn presence(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
) -> Result<Response, Problem> {
    let sockets = state.presence.of(&user).await;
    let body = json!({
        "online": sockets.count > 0, "sockets": sockets.count, "complete": sockets.complete
    });
    Ok(answer(StatusCode::OK, &body))
}

/// An inbox as support looks at it, without what was written in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected<'a> {
    user_id: &'a UserId,
    seq: u64,
    floor_seq: u64,
    unread_count: u64,
    read_all_seq: u64,
    cleared_seq: u64,
    /// Tokens issued at or before it are revoked.
    valid_after: Option<String>,
    epoch: &'a str,
    /// The last changes of notifications, newest first.
    changes: &'a [InspectedRow],
}

/// `GET /api/users/{userId}`
#[utoipa::path(
    get,
    path = "/api/users/{userId}",
    operation_id = "inspectUser",
    tag = "users",
    summary = "An inbox as support looks at it, without what was written in it",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::Addressed, openapi::InspectQuery),
    responses(
        (status = 200, description = "Its counters, and its last changes", body = ref("#/components/schemas/Inspection")),
        openapi::PublisherRefusals,
    ),
)]
pub(super) async fn inspect(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let limit = query.limit(LAST_CHANGES);
    query.finish()?;
    let epoch = state.epoch.get();
    let found = state.store.inspect(&user, limit).await?;
    let inspected = inspected(&user, &found, &epoch);
    Ok(answer(StatusCode::OK, &inspected))
}

fn inspected<'a>(user: &'a UserId, found: &'a Inspection, epoch: &'a str) -> Inspected<'a> {
    Inspected {
        user_id: user,
        seq: found.standing.counters.seq,
        floor_seq: found.floor,
        unread_count: found.standing.counters.unread,
        read_all_seq: found.read_all_seq,
        cleared_seq: found.cleared_seq,
        valid_after: spelled(found.standing.valid_after),
        epoch,
        changes: &found.changes,
    }
}

fn spelled(valid_after: ValidAfter) -> Option<String> {
    let milliseconds = i64::try_from(valid_after?).ok()?;
    chrono::DateTime::from_timestamp_millis(milliseconds).map(timestamp)
}
