//! Polling instead of a socket: what a resume would replay, as one answer.

use std::sync::Arc;

use axum::extract;
use axum::response::Response;
use http::{HeaderMap, Uri};
use serde::Serialize;
use uuid::Uuid;

use super::caller::Reader;
use super::etag::revalidated;
use super::problem::Problem;
use super::query::{DEFAULT_LIMIT, Query};
use super::{State, openapi};
use crate::notification::{Notification, Reason};
use crate::store::{Missed, RowState};
use crate::user::UserId;

/// All that happened after `since`, in the state it has now; one snapshot.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes<'a> {
    /// What was created or changed, in seq order.
    items: Vec<Notification>,
    /// What is gone, in seq order: also what was created after `since`, which the caller may know from a list
    /// that is newer than its `since`. An id that it does not know means nothing to it.
    deleted: Vec<Deleted>,
    /// Seq of the last read-all, however long ago.
    read_all_seq: u64,
    /// Seq of the last clear, however long ago.
    cleared_seq: u64,
    /// The next `since`.
    seq: u64,
    epoch: &'a str,
    unread_count: u64,
    /// There is another page.
    more: bool,
    /// This cannot be told as changes: the caller refetches its list, and goes on from that one's `seq`.
    reset: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Deleted {
    id: Uuid,
    seq: u64,
    reason: Reason,
}

/// `GET /api/notifications/changes`
#[utoipa::path(
    get,
    path = "/api/notifications/changes",
    operation_id = "getChanges",
    tag = "inbox",
    summary = "What has changed: for clients without a socket",
    security(("bearer" = [])),
    params(openapi::ChangesQuery, openapi::IfNoneMatch),
    responses(
        (status = 200, description = "What a resume would replay", body = ref("#/components/schemas/Changes"), headers(("ETag" = String, description = "For `If-None-Match`."))),
        (status = 304, description = "Nothing has changed", headers(("ETag" = String, description = "For `If-None-Match`."))),
        openapi::UserRefusals,
    ),
)]
pub(super) async fn changes(
    extract::State(state): extract::State<Arc<State>>,
    reader: Reader,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let (since, epoch, limit) = (
        query.since(),
        query.text("epoch"),
        query.limit(DEFAULT_LIMIT),
    );
    query.finish()?;

    // Before the store is read: what is of a later history may bear an earlier epoch, never the other way round.
    let present = state.epoch.get();
    let missed = async |user: UserId| Ok(state.store.missed(&user, since, limit).await?);
    let (user, missed) = reader.read(missed).await?;
    let same_history = epoch.is_none_or(|epoch| *epoch == *present);
    let told = told(missed, since, same_history, &present);
    Ok(revalidated(&headers, &user, &present, &told))
}

fn told(missed: Missed, since: u64, same_history: bool, epoch: &str) -> Changes<'_> {
    let reset = !same_history || since > missed.head || since < missed.floor;
    let more = missed.more && !reset;
    let last = missed.rows.last().map(|row| row.seq).filter(|_| more);
    let mut changes = Changes {
        items: Vec::new(),
        deleted: Vec::new(),
        read_all_seq: missed.read_all_seq,
        cleared_seq: missed.cleared_seq,
        seq: last.unwrap_or(missed.head),
        epoch,
        unread_count: missed.unread,
        more,
        reset,
    };
    if reset {
        return changes;
    }
    for row in missed.rows {
        match row.state {
            RowState::Live(notification) => changes.items.push(*notification),
            RowState::Deleted { id, reason } => changes.deleted.push(Deleted {
                id,
                seq: row.seq,
                reason,
            }),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::notification::{Draft, Kind, Priority};
    use crate::store::MissedRow;

    fn live(seq: u64, created_seq: u64) -> MissedRow {
        let draft = Draft {
            kind: Kind::default(),
            priority: Priority::Normal,
            title: "t".to_owned(),
            message: String::new(),
            data: Box::default(),
            action_url: None,
            icon: None,
            badge: None,
            silent: false,
            sticky: false,
            expires_at: None,
        };
        let user = UserId::try_from("42").unwrap();
        let notification =
            Notification::created(&draft, user, Uuid::nil(), seq, DateTime::UNIX_EPOCH);
        MissedRow {
            seq,
            created_seq,
            state: RowState::Live(Box::new(notification)),
        }
    }

    fn gone(seq: u64, created_seq: u64) -> MissedRow {
        MissedRow {
            seq,
            created_seq,
            state: RowState::Deleted {
                id: Uuid::nil(),
                reason: Reason::Expired,
            },
        }
    }

    fn missed(more: bool) -> Missed {
        let rows = vec![live(6, 6), gone(7, 3), gone(8, 8), live(9, 2), gone(10, 9)];
        Missed {
            head: 12,
            floor: 2,
            unread: 1,
            valid_after: None,
            read_all_seq: 4,
            cleared_seq: 1,
            rows,
            more,
        }
    }

    #[test]
    fn all_that_is_gone_is_told_whenever_it_was_created() {
        let changes = told(missed(false), 5, true, "e");
        assert_eq!(
            changes
                .items
                .iter()
                .map(|item| item.seq)
                .collect::<Vec<_>>(),
            [6, 9]
        );
        let gone = [7, 8, 10].map(|seq| Deleted {
            id: Uuid::nil(),
            seq,
            reason: Reason::Expired,
        });
        assert_eq!(changes.deleted, gone);
        assert_eq!(
            (
                changes.read_all_seq,
                changes.cleared_seq,
                changes.unread_count
            ),
            (4, 1, 1)
        );
        assert_eq!(
            (changes.seq, changes.more, changes.reset),
            (12, false, false)
        );
    }

    #[test]
    fn a_page_ends_at_its_last_row() {
        let changes = told(missed(true), 5, true, "e");
        assert_eq!((changes.seq, changes.more), (10, true));
    }

    #[test]
    fn what_cannot_be_told_is_a_reset() {
        for (since, same_history) in [(5, false), (13, true), (1, true), (0, true)] {
            let changes = told(missed(true), since, same_history, "e");
            assert!(changes.reset && !changes.more, "{since}");
            assert_eq!(
                (changes.items.len(), changes.deleted.len(), changes.seq),
                (0, 0, 12),
                "{since}"
            );
        }
        assert!(!told(missed(true), 12, true, "e").reset);
        assert!(!told(missed(true), 2, true, "e").reset);
    }

    #[test]
    fn the_members_are_those_of_the_contract() {
        let mut missed = missed(false);
        missed.rows.remove(0);
        missed.rows.truncate(1);
        assert_eq!(
            serde_json::to_value(told(missed, 5, true, "e1")).unwrap(),
            serde_json::json!({
                "items": [], "deleted": [{"id": Uuid::nil(), "seq": 7, "reason": "expired"}], "readAllSeq": 4,
                "clearedSeq": 1, "seq": 12, "epoch": "e1", "unreadCount": 1, "more": false, "reset": false
            })
        );
    }
}
