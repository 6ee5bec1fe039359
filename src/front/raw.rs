//! WebSocket handshakes that are answered without the HTTP stack: the same rules, a smaller connection.

use std::io;
use std::sync::Arc;

use http::{HeaderMap, Request, Uri, header};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::Gate;
use super::first::Handshake;
use crate::hub::line::{Line, Watched};
use crate::hub::porch::Guest;

/// What the library reads in the request's target, and keeps as long as the session: of every handshake that comes here it
/// is the same.
const TARGET: &str = "/?EIO=4&transport=websocket";

/// A connection as the socket library gets it. Boxed, for the library's future would hold several places for it.
pub type Stream = Box<Watched<TcpStream, OwnedSemaphorePermit>>;

/// The socket library's way in for connections that have shaken hands.
pub type Library = BoxCloneSyncService<(Stream, Request<()>), (), tower::BoxError>;

/// Admits and answers handshakes.
#[derive(Clone)]
pub struct Raw {
    pub gate: Gate,
    pub library: Library,
}

impl Raw {
    /// Whether the handshake may go on here. Who is refused is left to the HTTP stack, which says why.
    pub(super) fn admit(&self, handshake: &Handshake) -> Option<Arc<Guest>> {
        self.gate.admit(&handshake.request).ok().flatten()
    }

    /// Answers the handshake, and gives the connection to the library.
    pub(super) async fn serve(
        &self,
        handshake: Box<Handshake>,
        guest: Arc<Guest>,
        mut stream: Stream,
        line: Arc<Line>,
    ) {
        line.upgrade();
        let (mut request, accept) = handshake.into_parts();
        if let Err(error) = answer(&mut stream, accept).await {
            return tracing::debug!(%error, "a connection ended early");
        }
        *request.headers_mut() = credentials(request.headers());
        *request.uri_mut() = Uri::from_static(TARGET);
        request.extensions_mut().insert(line);
        request.extensions_mut().insert(guest);
        // Apart from the await, which lasts as long as the session: nothing is to be held for it that it does not need.
        let session = self.library.clone().call((stream, request));
        if let Err(error) = session.await {
            // Another protocol version, most likely: a client of the HTTP stack would have been told so.
            tracing::debug!(error, "a handshake was refused by the library");
        }
    }
}

/// RFC 6455 section 4.2.2.
async fn answer(stream: &mut Stream, accept: String) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}

/// What is still looked at: the library keeps it as long as the session, and a map that is empty takes no memory.
fn credentials(headers: &HeaderMap) -> HeaderMap {
    let values = headers.get_all(header::AUTHORIZATION).iter().cloned();
    let mut kept = HeaderMap::new();
    for value in values {
        kept.append(header::AUTHORIZATION, value);
    }
    kept
}
