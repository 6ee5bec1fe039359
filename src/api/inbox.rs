//! What users do with their inboxes over REST: list, count, read, delete.

use std::sync::Arc;

use axum::extract;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::caller::{Actor, Id, Reader};
use super::cursor::Cursor;
use super::etag::revalidated;
use super::problem::Problem;
use super::query::{DEFAULT_LIMIT, Query};
use super::{State, json as answer, openapi};
use crate::notification::{Notification, Reason};
use crate::store::ListQuery;
use crate::user::UserId;

type Shared = extract::State<Arc<State>>;

/// `GET /api/notifications`: newest first, by pages.
#[utoipa::path(
    get,
    path = "/api/notifications",
    operation_id = "listNotifications",
    tag = "inbox",
    summary = "The notifications, newest first, by pages",
    security(("bearer" = [])),
    params(openapi::ListQuery),
    responses(
        (status = 200, description = "A page", body = ref("#/components/schemas/Page")),
        openapi::UserRefusals,
    ),
)]
pub(super) async fn list(
    extract::State(state): Shared,
    reader: Reader,
    uri: Uri,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed<'a> {
        items: &'a [Notification],
        next_cursor: Option<String>,
        unread_count: u64,
        seq: u64,
        epoch: &'a str,
    }
    let epoch = state.epoch.get();
    let list = async |user: UserId| Ok(state.store.list(&user, &list_query(&uri, &user)?).await?);
    let (user, page) = reader.read(list).await?;
    let listed = Listed {
        items: &page.items,
        next_cursor: page.next.map(|before| Cursor(before).encode(&user)),
        unread_count: page.unread,
        seq: page.seq,
        epoch: &epoch,
    };
    Ok(answer(StatusCode::OK, &listed))
}

fn list_query(uri: &Uri, user: &UserId) -> Result<ListQuery, Problem> {
    let mut query = Query::of(uri);
    let (limit, unread, kind) = (query.limit(DEFAULT_LIMIT), query.unread(), query.kind());
    let cursor = query.text("cursor");
    query.finish()?;
    let cursor = cursor.map(|text| Cursor::decode(&text, user)).transpose()?;
    Ok(ListQuery {
        limit,
        before: cursor.map(|cursor| cursor.0),
        unread,
        kind,
    })
}

/// `GET /api/notifications/unread-count`
#[utoipa::path(
    get,
    path = "/api/notifications/unread-count",
    operation_id = "getUnreadCount",
    tag = "inbox",
    summary = "How many are unread",
    security(("bearer" = [])),
    params(openapi::IfNoneMatch),
    responses(
        (status = 200, description = "The count, and when it was so", body = ref("#/components/schemas/UnreadCount"), headers(("ETag" = String, description = "For `If-None-Match`."))),
        (status = 304, description = "As the client has it", headers(("ETag" = String, description = "For `If-None-Match`."))),
        openapi::UserRefusals,
    ),
)]
pub(super) async fn unread_count(
    extract::State(state): Shared,
    reader: Reader,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let epoch = state.epoch.get();
    let standing = async |user: UserId| Ok(state.store.standing(&user).await?);
    let (user, standing) = reader.read(standing).await?;
    let counters = standing.counters;
    let body = json!({ "count": counters.unread, "seq": counters.seq });
    Ok(revalidated(&headers, &user, &epoch, &body))
}

/// `GET /api/notifications/{id}`
#[utoipa::path(
    get,
    path = "/api/notifications/{id}",
    operation_id = "getNotification",
    tag = "inbox",
    summary = "One notification",
    security(("bearer" = [])),
    params(openapi::NotificationId),
    responses(
        (status = 200, description = "The notification", body = ref("#/components/schemas/Notification")),
        openapi::UserRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn one(
    extract::State(state): Shared,
    reader: Reader,
    Id(id): Id,
) -> Result<Response, Problem> {
    let get = async |user: UserId| Ok(state.store.get(&user, id).await?);
    let (_, found) = reader.read(get).await?;
    let notification = found.notification.ok_or(Problem::NotFound)?;
    Ok(answer(StatusCode::OK, &notification))
}

/// `PATCH /api/notifications/{id}/read`
#[utoipa::path(
    patch,
    path = "/api/notifications/{id}/read",
    operation_id = "markRead",
    tag = "inbox",
    summary = "Mark one as read; repeating it changes nothing",
    security(("bearer" = [])),
    params(openapi::NotificationId),
    responses(
        (status = 200, description = "The notification as it is now", body = ref("#/components/schemas/Notification")),
        openapi::UserRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn read(
    state: Shared,
    Actor(user): Actor,
    Id(id): Id,
) -> Result<Response, Problem> {
    set_read(state, user, id, true).await
}

/// `PATCH /api/notifications/{id}/unread`
#[utoipa::path(
    patch,
    path = "/api/notifications/{id}/unread",
    operation_id = "markUnread",
    tag = "inbox",
    summary = "Mark one as unread; repeating it changes nothing",
    security(("bearer" = [])),
    params(openapi::NotificationId),
    responses(
        (status = 200, description = "The notification as it is now", body = ref("#/components/schemas/Notification")),
        openapi::UserRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn unread(
    state: Shared,
    Actor(user): Actor,
    Id(id): Id,
) -> Result<Response, Problem> {
    set_read(state, user, id, false).await
}

async fn set_read(
    extract::State(state): Shared,
    user: UserId,
    id: Uuid,
    read: bool,
) -> Result<Response, Problem> {
    let notification = state.inbox.set_read(&user, id, read).await?;
    Ok(answer(StatusCode::OK, &notification))
}

/// `POST /api/notifications/read-all`
#[utoipa::path(
    post,
    path = "/api/notifications/read-all",
    operation_id = "markAllRead",
    tag = "inbox",
    summary = "Mark all as read",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "What has changed", body = ref("#/components/schemas/ReadAll")),
        openapi::UserRefusals,
    ),
)]
pub(super) async fn read_all(
    extract::State(state): Shared,
    Actor(user): Actor,
) -> Result<Response, Problem> {
    let bulk = state.inbox.read_all(&user).await?;
    let counters = bulk.counters;
    let body =
        json!({ "updated": bulk.changed, "unreadCount": counters.unread, "seq": counters.seq });
    Ok(answer(StatusCode::OK, &body))
}

/// `POST /api/notifications/{id}/click`
#[utoipa::path(
    post,
    path = "/api/notifications/{id}/click",
    operation_id = "clickNotification",
    tag = "inbox",
    summary = "Mark one as clicked and read; repeating it changes nothing",
    security(("bearer" = [])),
    params(openapi::NotificationId),
    responses(
        (status = 200, description = "The notification as it is now", body = ref("#/components/schemas/Notification")),
        openapi::UserRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn click(
    extract::State(state): Shared,
    Actor(user): Actor,
    Id(id): Id,
) -> Result<Response, Problem> {
    let notification = state.inbox.set_clicked(&user, id).await?;
    Ok(answer(StatusCode::OK, &notification))
}

/// `DELETE /api/notifications/{id}`
#[utoipa::path(
    delete,
    path = "/api/notifications/{id}",
    operation_id = "deleteNotification",
    tag = "inbox",
    summary = "Delete one; repeating it changes nothing",
    security(("bearer" = [])),
    params(openapi::NotificationId),
    responses(
        (status = 204, description = "Deleted"),
        openapi::UserRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn delete(
    extract::State(state): Shared,
    Actor(user): Actor,
    Id(id): Id,
) -> Result<Response, Problem> {
    state.inbox.delete(&user, id, Reason::Deleted).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /api/notifications`
#[utoipa::path(
    delete,
    path = "/api/notifications",
    operation_id = "clearNotifications",
    tag = "inbox",
    summary = "Delete all",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "What has changed", body = ref("#/components/schemas/Cleared")),
        openapi::UserRefusals,
    ),
)]
pub(super) async fn clear(
    extract::State(state): Shared,
    Actor(user): Actor,
) -> Result<Response, Problem> {
    let bulk = state.inbox.clear(&user).await?;
    let counters = bulk.counters;
    let body =
        json!({ "deleted": bulk.changed, "unreadCount": counters.unread, "seq": counters.seq });
    Ok(answer(StatusCode::OK, &body))
}
