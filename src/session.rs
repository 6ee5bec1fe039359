//! One socket's life: authenticate → enter the hub → subscribe → catch up → live → gone.

mod acts;
mod direct;
mod library;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::auth::{self, Identity, Refusal, Verifier};
use crate::bus::{Bus, Subscription};
use crate::catch_up::{CatchUp, Trust};
use crate::config::EventLimit;
use crate::epoch::Epoch;
use crate::feed::Feed;
use crate::hub::cursor::Step;
use crate::hub::{Hub, Resume, Seat, Socket};
use crate::inbox::Inbox;
use crate::metrics::{Metrics, Rejected};
use crate::rate::{Bucket, Taken};
use crate::receipts::Receipts;
use crate::tasks::Tasks;

use self::acts::{Denied, RECEIVED};

/// How long a socket waits for its subscription to be confirmed. After that it goes live without, and
/// is compared with the store again when the confirmation comes.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// How many clients a second are told to fetch the list as they connect; those beyond are told over the
/// next seconds.
pub const NEWCOMERS: EventLimit = EventLimit {
    rate: 200,
    burst: 200,
};

/// Receipts are cumulative, so one a second says all.
const RECEIPTS: EventLimit = EventLimit { rate: 1, burst: 2 };

/// Everything that sessions share.
pub struct Sessions {
    pub verifier: Verifier,
    pub hub: Hub,
    pub bus: Bus,
    pub inbox: Inbox,
    pub catch_up: CatchUp,
    pub feed: Feed,
    pub metrics: Arc<Metrics>,
    pub epoch: Epoch,
    pub receipts: Receipts,
    pub event_limit: EventLimit,
    /// Clients that bring nothing to resume from, and are told to fetch the list: at once, while it has room.
    pub newcomers: Bucket,
    /// `false`: every socket is told that it is not wanted, and its client polls.
    pub enabled: bool,
    /// How long a client may take for its CONNECT.
    pub connect_timeout: Duration,
    /// What sockets have begun.
    pub tasks: Tasks,
}

/// What a CONNECT was granted by; the socket carries it until it is entered.
#[derive(Clone)]
struct Admitted {
    identity: Identity,
    trust: Trust,
    resume: Resume,
}

/// Why a CONNECT is refused. Its `Display` is the `connect_error` message that the client acts on; a
/// retry does not cure any of these.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Refused {
    #[error("{}", .0.code())]
    Token(Refusal),
    #[error("too_many_connections")]
    TooManyConnections,
    #[error("disabled")]
    Disabled,
}

impl Sessions {
    /// Decides whether a client may enter that sent `auth` with its CONNECT and `headers` with its first request.
    async fn admit(&self, headers: &HeaderMap, auth: &Value) -> Result<Admitted, Refused> {
        if !self.enabled {
            return Err(Refused::Disabled);
        }
        let identity = self.identity(headers, auth)?;
        let Identity { user, lifetime, .. } = &identity;
        let trust = self.catch_up.trust(user, *lifetime).await;
        if trust == Trust::Revoked {
            return Err(Refused::Token(Refusal::Revoked));
        }
        Ok(Admitted {
            identity,
            trust,
            resume: resume(auth, &self.epoch),
        })
    }

    fn identity(&self, headers: &HeaderMap, auth: &Value) -> Result<Identity, Refused> {
        let token = match auth.get("token").and_then(Value::as_str) {
            Some(token) => token,
            None => auth::bearer(headers).map_err(|error| Refused::Token(error.into()))?,
        };
        let identity = self.verifier.verify(token).map_err(Refused::Token)?;

        if !self.hub.has_room_for(&identity.user) {
            return Err(Refused::TooManyConnections);
        }
        Ok(identity)
    }

    fn report(&self, socket: impl Display, refused: Refused) {
        let (kind, rule) = match refused {
            Refused::Token(refusal) => (Rejected::Auth, refusal.to_string()),
            Refused::TooManyConnections => (
                Rejected::Limit,
                "the user's sockets on this node; BELLHOP_LIMIT_CONNECTIONS_PER_USER decides"
                    .to_owned(),
            ),
            Refused::Disabled => (
                Rejected::Disabled,
                "there are no sockets here; ENABLE_WEBSOCKET decides".to_owned(),
            ),
        };
        self.metrics.connections_rejected.of(kind).increment(1);
        tracing::info!(%socket, code = %refused, rule, "connect refused");
    }

    /// Enters a socket that was admitted into the hub, and subscribes to its user.
    ///
    /// `None`: it was over a limit after all, and is closed.
    fn seat(
        &self,
        socket: Socket,
        admitted: Admitted,
    ) -> Option<(Arc<Seat>, Step, Arc<Subscription>)> {
        let Admitted {
            identity: Identity { user, lifetime, .. },
            trust,
            resume,
        } = admitted;
        let resume = Resume {
            spread: resume.last_seq.is_none() && self.newcomers.take() != Taken::Granted,
            ..resume
        };
        let (seat, step) = self.hub.enter(&user, socket, resume, lifetime)?;
        if trust != Trust::Proven {
            seat.doubt();
        }
        if resume.spread {
            self.catch_up.spread(Arc::clone(&seat));
        }
        let subscription = Arc::new(self.bus.subscribe(&user));
        Some((seat, step, subscription))
    }

    /// Brings a socket live: from here on it hears what happens, and what happened since it was there last.
    async fn go_live(&self, seat: Arc<Seat>, step: Step, subscription: &Subscription) {
        if step != Step::Subscribe {
            return self.catch_up.follow(seat, step, None);
        }
        // What does not come in time anyway is not waited for.
        let patience = if self.bus.reaches(&seat.user) {
            CONFIRMATION
        } else {
            Duration::ZERO
        };
        let confirmed = tokio::time::timeout(patience, subscription.confirmed())
            .await
            .is_ok();
        self.catch_up
            .follow(Arc::clone(&seat), seat.subscribed(), None);
        if !confirmed {
            self.compare_until_confirmed(&seat, subscription).await;
        }
    }

    /// What comes before the confirmation may pass by: until then, and once after, the feed compares the user.
    async fn compare_until_confirmed(&self, seat: &Seat, subscription: &Subscription) {
        let mut patience = tokio::time::interval(CONFIRMATION);
        while !seat.is_gone() {
            tokio::select! {
                () = subscription.confirmed() => return self.feed.compare(&seat.user),
                // While the bus does not reach the user, the feed compares it each second.
                _ = patience.tick() => if self.bus.reaches(&seat.user) {
                    self.feed.compare(&seat.user);
                },
            }
        }
    }

    /// How often a client may send events, and receipts, which come beside them and have a limit of their own.
    fn limits(&self) -> Limits {
        Limits {
            events: Bucket::new(self.event_limit),
            receipts: Bucket::new(RECEIPTS),
        }
    }

    /// Answers a client's event, as the ack says it.
    async fn answer(&self, seat: &Arc<Seat>, name: &str, data: &Value, taken: Taken) -> Value {
        let answer = match taken {
            Taken::Granted => self.act(seat, name, data).await,
            Taken::Refused | Taken::Abused => Err(Denied::RateLimited),
        };
        answer.unwrap_or_else(Denied::into_ack)
    }
}

/// What one client may send.
struct Limits {
    events: Bucket,
    receipts: Bucket,
}

impl Limits {
    fn take(&self, event: &str) -> Taken {
        match event {
            RECEIVED => self.receipts.take(),
            _ => self.events.take(),
        }
    }
}

/// What the client brought to resume from. A `lastSeq` that is none is answered like one from the
/// future: with a refresh, never with an error that would repeat for ever.
fn resume(auth: &Value, epoch: &Epoch) -> Resume {
    // Before the epoch itself: one that is replaced in between is judged anew as the socket enters.
    let generation = epoch.generation();
    let last_seq = auth.get("lastSeq").filter(|value| !value.is_null());
    // The Java client's auth payload holds texts only.
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let last_seq = last_seq.map(|value| number(value).unwrap_or(u64::MAX));
    let other_epoch = auth
        .get("epoch")
        .is_some_and(|value| !value.is_null() && value.as_str() != Some(&*epoch.get()));
    Resume {
        last_seq,
        other_epoch,
        generation,
        spread: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resume_needs_a_number_and_the_present_epoch() {
        let brought = |auth: Value| resume(&auth, &"e1".into());
        assert_eq!(brought(json!({})), Resume::default());
        assert_eq!(
            brought(json!({"lastSeq": null, "epoch": null})),
            Resume::default()
        );
        assert_eq!(
            brought(json!({"lastSeq": 0, "epoch": "e1"})),
            Resume {
                last_seq: Some(0),
                ..Resume::default()
            }
        );
        assert_eq!(
            brought(json!({"lastSeq": 7, "epoch": "e0"})),
            Resume {
                last_seq: Some(7),
                other_epoch: true,
                ..Resume::default()
            }
        );
        assert_eq!(brought(json!({ "lastSeq": "7" })).last_seq, Some(7));
        for wrong in [
            json!(-1),
            json!("x"),
            json!(1e308),
            json!(1.5),
            json!([]),
            json!({}),
        ] {
            assert_eq!(
                brought(json!({ "lastSeq": wrong })).last_seq,
                Some(u64::MAX),
                "{wrong}"
            );
        }
    }
}
