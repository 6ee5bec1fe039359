//! Sockets that were a WebSocket from the start, which this program speaks itself.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Admitted, Limits, Sessions};
use crate::bus::Subscription;
use crate::hub::porch::Guest;
use crate::hub::transport::DISMISSAL;
use crate::hub::websocket::{Connection, Packet, Reader};
use crate::hub::{Hub, Seat, Socket};
use crate::metrics::Closed;
use crate::rate::Taken;

/// A socket that is in. However its task ends, it is taken out again.
struct Seated {
    hub: Hub,
    seat: Arc<Seat>,
    _subscription: Arc<Subscription>,
    reason: Closed,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.hub.leave(&self.seat, self.reason);
    }
}

impl Sessions {
    /// One such socket's life. Its `headers` are those of the handshake. When `stop` fires, it is not let in any more; one
    /// that is in, the hub closes.
    pub async fn attend(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut reader: Reader,
        headers: HeaderMap,
        guest: Arc<Guest>,
        stop: CancellationToken,
    ) {
        // Boxed, for what is over soon is not to take its place in a task that lasts.
        let entering = self.enter_direct(&connection, &mut reader, headers, guest);
        let entering = Box::pin(stop.run_until_cancelled_owned(entering));
        if let Some(mut seated) = entering.await.flatten() {
            seated.reason = self.listen_to(&connection, &mut reader, &seated.seat).await;
        }
        Box::pin(reader.finish()).await;
    }

    /// Waits for the CONNECT, answers it, and brings the socket live.
    async fn enter_direct(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        reader: &mut Reader,
        headers: HeaderMap,
        guest: Arc<Guest>,
    ) -> Option<Seated> {
        let auth = tokio::time::timeout(self.connect_timeout, connect_of(reader));
        let auth = auth.await.ok()??;
        guest.leave();
        let admitted = match self.admit(&headers, &auth).await {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.report(connection.id(), refused);
                connection.refuse(&refused.to_string());
                let _late = tokio::time::timeout(DISMISSAL, silence_of(reader)).await;
                return None;
            }
        };
        // Before anything else that it is sent.
        connection.welcome();
        self.seat_direct(connection, admitted)
    }

    fn seat_direct(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        admitted: Admitted,
    ) -> Option<Seated> {
        let socket = Socket::Direct(Arc::clone(connection));
        let (seat, step, subscription) = self.seat(socket, admitted)?;
        let seated = Seated {
            hub: self.hub.clone(),
            seat: Arc::clone(&seat),
            _subscription: Arc::clone(&subscription),
            reason: Closed::TransportError,
        };
        let sessions = Arc::clone(self);
        self.tasks.spawn(async move {
            sessions.go_live(seat, step, &subscription).await;
        });
        Some(seated)
    }

    /// Does what the client asks for, until one side ends; answers why.
    async fn listen_to(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        reader: &mut Reader,
        seat: &Arc<Seat>,
    ) -> Closed {
        let limits = self.limits();
        loop {
            match reader.next().await {
                Ok(Packet::Event { name, data, ack }) => {
                    if let Err(reason) = self.hear(connection, seat, &limits, name, data, ack) {
                        return reason;
                    }
                }
                // There is no other namespace that its transport could be for.
                Ok(Packet::Disconnect) => return Closed::Client,
                // It is connected.
                Ok(Packet::Connect(_)) => {}
                Err(reason) => return reason,
            }
        }
    }

    /// Has an event answered beside those that come after it; how many there are at a time, their limit says.
    fn hear(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        seat: &Arc<Seat>,
        limits: &Limits,
        name: String,
        data: Value,
        ack: Option<u64>,
    ) -> Result<(), Closed> {
        let taken = limits.take(&name);
        if taken == Taken::Abused {
            return Err(Closed::Protocol);
        }
        let (sessions, seat) = (Arc::clone(self), Arc::clone(seat));
        let connection = Arc::clone(connection);
        self.tasks.spawn(async move {
            let answer = sessions.answer(&seat, &name, &data, taken).await;
            if let Some(number) = ack {
                connection.ack(number, &answer);
            }
        });
        Ok(())
    }
}

/// What the client brings with its CONNECT; `None`: it ends without one, or sends something else before.
async fn connect_of(reader: &mut Reader) -> Option<Value> {
    match reader.next().await {
        Ok(Packet::Connect(auth)) => Some(auth),
        Ok(Packet::Event { .. } | Packet::Disconnect) | Err(_) => None,
    }
}

/// Returns when the connection has ended.
async fn silence_of(reader: &mut Reader) {
    while reader.next().await.is_ok() {}
}
