//! What a client may do over its socket, and what it is answered.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Sessions;
use crate::auth::Refusal;
use crate::catch_up::Trust;
use crate::hub::Seat;
use crate::inbox::InboxError;
use crate::metrics::Closed;
use crate::notification::Reason;
use crate::store::Bulk;

/// By which clients say how far they have received.
pub(super) const RECEIVED: &str = "notification:received";

impl Sessions {
    /// Carries out what a client asks for, and answers what its ack says.
    pub(super) async fn act(
        &self,
        seat: &Arc<Seat>,
        event: &str,
        data: &Value,
    ) -> Result<Value, Denied> {
        if event == "auth:refresh" {
            return self.renew(seat, data).await;
        }
        if !seat.is_proven() {
            return Err(Denied::Unproven);
        }
        let user = &seat.user;
        match event {
            "notification:read" | "notification:unread" => {
                let read = event == "notification:read";
                let notification = self.inbox.set_read(user, id(data)?, read).await?;
                Ok(json!({ "ok": true, "seq": notification.seq }))
            }
            "notification:read-all" => Ok(bulk_ack(self.inbox.read_all(user).await?)),
            "notification:delete" => {
                self.inbox.delete(user, id(data)?, Reason::Deleted).await?;
                Ok(json!({ "ok": true }))
            }
            "notification:click" => {
                let notification = self.inbox.set_clicked(user, id(data)?).await?;
                Ok(json!({ "ok": true, "seq": notification.seq }))
            }
            RECEIVED => {
                let seq = data.get("seq").and_then(Value::as_u64);
                let (above, seq) = seat.confirm(seq.ok_or(Denied::InvalidSeq)?);
                if seq > above {
                    self.receipts.add(user, above, seq);
                }
                Ok(json!({ "ok": true, "seq": seq }))
            }
            _ => Err(Denied::UnknownEvent),
        }
    }

    /// Takes a new token for the same user; another user's token ends the socket.
    async fn renew(&self, seat: &Arc<Seat>, data: &Value) -> Result<Value, Denied> {
        let token = data
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let identity = self.verifier.verify(token).map_err(Denied::Token)?;
        if identity.user != seat.user {
            seat.close(Closed::AuthExpired);
            return Err(Denied::Token(Refusal::Invalid(
                "the new token is another user's",
            )));
        }
        let lifetime = identity.lifetime;
        let trust = self.catch_up.trust(&seat.user, lifetime).await;
        if trust == Trust::Revoked || !seat.renew(lifetime, trust == Trust::Proven) {
            return Err(Denied::Token(Refusal::Revoked));
        }
        if trust == Trust::Unknown {
            self.catch_up.follow(Arc::clone(seat), seat.recheck(), None);
        }
        Ok(json!({ "ok": true }))
    }
}

/// Why an event from a client was not carried out.
#[derive(Debug)]
pub(super) enum Denied {
    UnknownEvent,
    InvalidId,
    InvalidSeq,
    RateLimited,
    /// The store has not yet said whether its token is revoked.
    Unproven,
    Token(Refusal),
    Inbox(InboxError),
}

impl From<InboxError> for Denied {
    fn from(error: InboxError) -> Self {
        Self::Inbox(error)
    }
}

impl Denied {
    pub(super) fn into_ack(self) -> Value {
        let (code, message) = match self {
            Self::UnknownEvent => ("unknown_event", "this server knows no such event"),
            Self::InvalidId => ("invalid_id", "expected {id} with a notification's id"),
            Self::InvalidSeq => ("invalid_seq", "expected {seq} with a seq"),
            Self::RateLimited => ("rate_limited", "too many events; wait a second"),
            Self::Token(refusal) => (refusal.code(), "the token was refused"),
            Self::Unproven => ("storage_unavailable", "try again in a second"),
            Self::Inbox(InboxError::NotFound) => ("not_found", "there is no such notification"),
            Self::Inbox(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an event failed");
                ("storage_unavailable", "try again in a second")
            }
        };
        json!({ "ok": false, "code": code, "message": message })
    }
}

fn id(data: &Value) -> Result<Uuid, Denied> {
    let text = data
        .get("id")
        .and_then(Value::as_str)
        .ok_or(Denied::InvalidId)?;
    text.parse().or(Err(Denied::InvalidId))
}

fn bulk_ack(bulk: Bulk) -> Value {
    json!({ "ok": true, "updated": bulk.changed, "unreadCount": bulk.counters.unread, "seq": bulk.counters.seq })
}
