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
use super::{State, json as answer};
use crate::notification::{Reason, timestamp};
use crate::store::{InspectedRow, Inspection, ValidAfter};
use crate::user::UserId;

type Shared = extract::State<Arc<State>>;

/// Changes that an inspection shows, unless it says how many.
const LAST_CHANGES: u32 = 20;

/// `GET /api/users/{userId}/notifications/{id}`: whether it was read and clicked.
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
pub(super) async fn erase(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
) -> Result<Response, Problem> {
    state.inbox.erase(&user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/users/{userId}/refresh`
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
pub(super) async fn inspect(
    extract::State(state): Shared,
    _: Publisher,
    Addressee(user): Addressee,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let limit = query.limit(LAST_CHANGES);
    query.finish()?;
    let found = state.store.inspect(&user, limit).await?;
    let inspected = inspected(&user, &found, &state.epoch);
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
