//! Sockets that the library speaks for: long polling, what was upgraded from it, and the rest of what is not a WebSocket from
//! the start.

use std::sync::Arc;

use serde_json::Value;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, Event as EventName, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use socketioxide::socket::DisconnectReason;
use socketioxide::{ParserConfig, SocketIo, SocketIoBuilder, TransportType};

use super::{Admitted, Refused, Sessions};
use crate::bus::Subscription;
use crate::config::{Listen, Sockets, Transport};
use crate::hub::Seat;
use crate::hub::porch::Guest;
use crate::metrics::Closed;
use crate::rate::Taken;

/// Packets that the library queues for a socket at most: far above what stalls a socket, so that pings
/// and acks always find room.
const SOCKET_QUEUE: usize = 1_024;

/// Largest piece that a WebSocket reads at once; what an idle connection holds is of this size. Clients send little, and
/// a longer message is read in pieces.
const READ_BUFFER: usize = 512;

impl Sessions {
    /// The layer that speaks Socket.IO below `path`, with the namespace `/`: the only one there is.
    #[must_use]
    pub fn serve(self: &Arc<Self>, settings: &Sockets, listen: &Listen) -> SocketIoLayer {
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

        let (sessions, entering) = (Arc::clone(self), Arc::clone(self));
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
        let admitted = self
            .admit(&socket.req_parts().headers, auth)
            .await
            .inspect_err(|refused| {
                self.report(socket.id, *refused);
                self.hub.dismiss(socket);
            })?;
        socket.extensions.insert(admitted);
        Ok(())
    }

    /// Enters the socket into the hub and its room, and answers the future that brings it live.
    fn enter(self: Arc<Self>, socket: SocketRef) -> impl Future<Output = ()> + Send + use<> {
        // Always there: authenticate put it there.
        let admitted: Option<Admitted> = socket.extensions.remove();
        let entered = admitted.and_then(|admitted| {
            socket.join(admitted.identity.user.room());
            self.seat(self.hub.library(&socket), admitted)
        });
        if let Some((seat, _, subscription)) = &entered {
            self.listen(&socket, seat, subscription);
        }
        async move {
            let Some((seat, step, subscription)) = entered else {
                return;
            };
            if socket.connected() {
                return self.go_live(seat, step, &subscription).await;
            }
            // It ended before its end could be noticed, with its transport or without.
            seat.close(Closed::TransportError);
            socket.leave_all();
            self.hub.leave(&seat, Closed::TransportError);
        }
    }

    /// Takes what the client sends, and notices its end.
    fn listen(
        self: &Arc<Self>,
        socket: &SocketRef,
        seat: &Arc<Seat>,
        subscription: &Arc<Subscription>,
    ) {
        // Weak, for the seat holds its socket, and the socket holds these.
        let (sessions, at) = (Arc::clone(self), Arc::downgrade(seat));
        let held = Arc::clone(subscription);
        socket.on_disconnect(move |_: SocketRef, reason: DisconnectReason| {
            if let Some(seat) = at.upgrade() {
                if reason == DisconnectReason::ClientNSDisconnect {
                    // There is no other namespace that its transport could be for.
                    seat.close(Closed::Client);
                }
                sessions.hub.leave(&seat, closed_by_client(reason));
            }
            drop(held);
            std::future::ready(())
        });
        let (sessions, at) = (Arc::clone(self), Arc::downgrade(seat));
        let limits = Arc::new(self.limits());
        socket.on_fallback(
            move |EventName(name): EventName, TryData(data): TryData<Value>, ack: AckSender| async move {
                let Some(seat) = at.upgrade() else { return };
                let taken = limits.take(&name);
                if taken == Taken::Abused {
                    return seat.close(Closed::Protocol);
                }
                let data = data.unwrap_or_default();
                let answer = sessions.answer(&seat, &name, &data, taken).await;
                // A client that is gone does not hear it.
                let _gone = ack.send(&answer);
            },
        );
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
