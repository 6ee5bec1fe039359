//! One socket's life: authenticate → enter the hub → subscribe → catch up → live → gone.

mod acts;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, Event as EventName, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use socketioxide::socket::DisconnectReason;
use socketioxide::{ParserConfig, SocketIo, SocketIoBuilder, TransportType};

use crate::auth::{self, Identity, Refusal, Verifier};
use crate::bus::{Bus, Subscription};
use crate::catch_up::{CatchUp, Trust};
use crate::config::{EventLimit, Listen, Sockets, Transport};
use crate::epoch::Epoch;
use crate::feed::Feed;
use crate::hub::cursor::Step;
use crate::hub::porch::Guest;
use crate::hub::{Hub, Resume, Seat};
use crate::inbox::Inbox;
use crate::metrics::{Closed, Metrics, Rejected};
use crate::rate::{Bucket, Taken};
use crate::receipts::Receipts;

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

/// Packets that the library queues for a socket at most: far above what stalls a socket, so that pings
/// and acks always find room.
const SOCKET_QUEUE: usize = 1_024;

/// Receipts are cumulative, so one a second says all.
const RECEIPTS: EventLimit = EventLimit { rate: 1, burst: 2 };

/// Largest piece that a WebSocket reads at once; what an idle connection holds is of this size. Clients send little, and
/// a longer message is read in pieces.
const READ_BUFFER: usize = 512;

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
    /// The layer that speaks Socket.IO below `path`, with the namespace `/`: the only one there is.
    #[must_use]
    pub fn serve(self, settings: &Sockets, listen: &Listen) -> SocketIoLayer {
        let path = &listen.socket_io_path;
        let payload = settings.max_payload_bytes;
        let bytes = usize::try_from(payload).unwrap_or(usize::MAX);
        // No attachments: Bellhop's events are text, and an announced attachment holds memory.
        let parser = ParserConfig::common()
            .max_incoming_binaries(0)
            .max_incoming_binary_buf_size(0);
        let (layer, io) = with_transports(SocketIo::builder(), &listen.socket_io_transports)
            .with_parser(parser)
            .req_path(path.trim_end_matches('/').to_owned())
            .ping_interval(settings.ping_interval())
            .ping_timeout(settings.ping_timeout())
            .connect_timeout(settings.connect_timeout())
            .max_payload(u64::from(payload))
            .ws_max_message_size(bytes)
            .ws_max_frame_size(bytes)
            .ws_read_buffer_size(READ_BUFFER)
            .max_buffer_size(SOCKET_QUEUE)
            .build_layer();

        let entering = Arc::new(self);
        let sessions = Arc::clone(&entering);
        let authenticate = move |socket: SocketRef, TryData(auth): TryData<Value>| {
            let sessions = Arc::clone(&sessions);
            async move {
                sessions
                    .authenticate(&socket, &auth.unwrap_or_default())
                    .await
            }
        };
        // What must not come late (the handlers of events and of the end) is set before the first await.
        let enter = move |socket: SocketRef| Arc::clone(&entering).enter(socket);
        io.ns("/", enter.with(authenticate));
        layer
    }

    /// Decides whether a socket may enter, and remembers as whom.
    async fn authenticate(&self, socket: &SocketRef, auth: &Value) -> Result<(), Refused> {
        Guest::connected(socket);
        let admitted = self.admit(socket, auth).await.inspect_err(|refused| {
            self.report(socket, *refused);
            self.hub.dismiss(socket);
        })?;
        socket.extensions.insert(admitted);
        Ok(())
    }

    async fn admit(&self, socket: &SocketRef, auth: &Value) -> Result<Admitted, Refused> {
        if !self.enabled {
            return Err(Refused::Disabled);
        }
        let identity = self.identity(socket, auth)?;
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

    fn identity(&self, socket: &SocketRef, auth: &Value) -> Result<Identity, Refused> {
        let token = match auth.get("token").and_then(Value::as_str) {
            Some(token) => token,
            None => auth::bearer(&socket.req_parts().headers)
                .map_err(|error| Refused::Token(error.into()))?,
        };
        let identity = self.verifier.verify(token).map_err(Refused::Token)?;

        if !self.hub.has_room_for(&identity.user) {
            return Err(Refused::TooManyConnections);
        }
        Ok(identity)
    }

    fn report(&self, socket: &SocketRef, refused: Refused) {
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
        tracing::info!(socket = %socket.id, code = %refused, rule, "connect refused");
    }

    /// Enters the socket into the hub and its room, and answers the future that brings it live.
    fn enter(self: Arc<Self>, socket: SocketRef) -> impl Future<Output = ()> + Send + use<> {
        // Always there: authenticate put it there.
        let admitted: Option<Admitted> = socket.extensions.remove();
        let entered = admitted.and_then(|admitted| self.seat(&socket, admitted));
        async move {
            if let Some((seat, step, subscription)) = entered {
                self.go_live(&socket, seat, step, &subscription).await;
            }
        }
    }

    fn seat(
        self: &Arc<Self>,
        socket: &SocketRef,
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
        socket.join(user.room());
        let (seat, step) = self.hub.enter(&user, socket, resume, lifetime)?;
        if trust != Trust::Proven {
            seat.doubt();
        }
        if resume.spread {
            self.catch_up.spread(Arc::clone(&seat));
        }
        let subscription = Arc::new(self.bus.subscribe(&user));

        // Weak, for the seat holds its socket, and the socket holds these.
        let (sessions, at, held) = (
            Arc::clone(self),
            Arc::downgrade(&seat),
            Arc::clone(&subscription),
        );
        socket.on_disconnect(move |_: SocketRef, reason: DisconnectReason| {
            if let Some(seat) = at.upgrade() {
                sessions.leave(&seat, reason);
            }
            drop(held);
            std::future::ready(())
        });
        let (sessions, at) = (Arc::clone(self), Arc::downgrade(&seat));
        let buckets = Arc::new([self.event_limit, RECEIPTS].map(Bucket::new));
        socket.on_fallback(
            move |EventName(name): EventName, TryData(data): TryData<Value>, ack: AckSender| async move {
                let Some(seat) = at.upgrade() else { return };
                // Receipts come beside other events, and have a limit of their own.
                let [events, receipts] = &*buckets;
                let bucket = if name == RECEIVED { receipts } else { events };
                let answer = match bucket.take() {
                    Taken::Granted => sessions.act(&seat, &name, &data.unwrap_or_default()).await,
                    Taken::Refused => Err(Denied::RateLimited),
                    Taken::Abused => return seat.close(Closed::Protocol),
                };
                // A client that is gone does not hear the answer.
                let _gone = ack.send(&answer.unwrap_or_else(Denied::into_ack));
            },
        );
        Some((seat, step, subscription))
    }

    async fn go_live(
        &self,
        socket: &SocketRef,
        seat: Arc<Seat>,
        step: Step,
        subscription: &Subscription,
    ) {
        if !socket.connected() {
            // It ended before its end could be noticed, with its transport or without.
            seat.close(Closed::TransportError);
            socket.leave_all();
            return self.leave(&seat, DisconnectReason::TransportError);
        }
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

    fn leave(&self, seat: &Arc<Seat>, reason: DisconnectReason) {
        if reason == DisconnectReason::ClientNSDisconnect {
            // There is no other namespace that its transport could be for.
            seat.close(Closed::Client);
        }
        self.hub.leave(seat, closed_by_client(reason));
    }
}

/// The library takes an array of a length that is known when it is compiled.
fn with_transports(
    builder: SocketIoBuilder<LocalAdapter>,
    allowed: &[Transport],
) -> SocketIoBuilder<LocalAdapter> {
    match (
        allowed.contains(&Transport::Websocket),
        allowed.contains(&Transport::Polling),
    ) {
        (true, false) => builder.transports([TransportType::Websocket]),
        (false, true) => builder.transports([TransportType::Polling]),
        (true, true) | (false, false) => builder,
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

fn closed_by_client(reason: DisconnectReason) -> Closed {
    match reason {
        DisconnectReason::TransportClose | DisconnectReason::ClientNSDisconnect => Closed::Client,
        DisconnectReason::TransportError => Closed::TransportError,
        DisconnectReason::HeartbeatTimeout => Closed::PingTimeout,
        DisconnectReason::PacketParsingError | DisconnectReason::MultipleHttpPollingError => {
            Closed::Protocol
        }
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => Closed::Drain,
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
