//! WebSocket handshakes that are answered without the HTTP stack: the same rules, a smaller connection.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Gate;
use super::first::Handshake;
use crate::hub::porch::Guest;
use crate::hub::websocket::{Connection, Heart};
use crate::session::Sessions;
use crate::tasks::Tasks;

/// Admits and answers handshakes.
#[derive(Clone)]
pub struct Raw {
    pub gate: Gate,
    pub sessions: Arc<Sessions>,
    pub heart: Arc<Heart>,
}

impl Raw {
    /// Whether the handshake may go on here. Who is refused is left to the HTTP stack, which says why.
    pub(super) fn admit(&self, handshake: &Handshake) -> Option<Arc<Guest>> {
        self.gate.admit(&handshake.request).ok().flatten()
    }

    /// Answers the handshake (RFC 6455 section 4.2.2), and leaves the connection to a task of its own.
    pub(super) fn serve(
        &self,
        handshake: Box<Handshake>,
        guest: Arc<Guest>,
        (stream, early): (TcpStream, Vec<u8>),
        place: OwnedSemaphorePermit,
        tasks: &Tasks,
    ) {
        let (request, accept) = handshake.into_parts();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        let (connection, reader) =
            Connection::open(stream, early, answer.into_bytes(), &self.heart, place);
        let headers = request.into_parts().0.headers;
        let sessions = Arc::clone(&self.sessions);
        let stop = tasks.stopping();
        tasks.spawn(sessions.attend(connection, reader, headers, guest, stop));
    }
}
