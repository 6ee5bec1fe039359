//! How the transport of a socket of the library is followed and closed, whichever it is at the moment.
//!
//! A Socket.IO DISCONNECT would make the official clients stay away for good, so it is always the
//! transport that is closed: a WebSocket by ending its stream, long polling by the Engine.IO CLOSE packet
//! that the client itself would send. Both look like a broken connection, from which clients come back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::account::Account;
use super::line::Line;
use crate::tasks::Tasks;

/// How long a refused client has to hear why, before its transport is closed.
pub const DISMISSAL: Duration = Duration::from_secs(1);

/// A body of a request or response, whatever made it.
pub type Body = UnsyncBoxBody<Bytes, tower::BoxError>;

/// The Socket.IO endpoint.
pub type Endpoint = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Answers a request through the endpoint.
pub async fn answer(endpoint: Endpoint, request: Request<Body>) -> Response<Body> {
    answer_by(&Mutex::new(endpoint), request).await
}

/// The same by one that several requests share, for a clone copies all its layers.
pub async fn answer_by(endpoint: &Mutex<Endpoint>, request: Request<Body>) -> Response<Body> {
    let ready = std::future::poll_fn(|context| endpoint.lock().poll_ready(context)).await;
    let answering = endpoint.lock().call(request);
    match ready.and(answering.await) {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The way to one socket, and what is on it.
#[derive(Debug)]
pub struct Transport {
    sid: Sid,
    account: Arc<Account>,
    /// Connections that are its WebSocket, or that asked to become it: each is closed with it, for which
    /// of them is the true one only the library knows.
    lines: Mutex<Vec<Weak<Line>>>,
}

/// The transports that a request can name by their session id: those that began with polling.
#[derive(Debug)]
pub struct Transports {
    sessions: Mutex<Sessions>,
    endpoint: OnceLock<Endpoint>,
    path: String,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Sessions {
    open: HashMap<Sid, Arc<Transport>>,
    /// Lines of sessions that are being upgraded although their CONNECT has not yet come.
    early: HashMap<Sid, Vec<Weak<Line>>>,
}

impl Transports {
    #[must_use]
    pub fn new(path: String, tasks: Tasks) -> Self {
        Self {
            sessions: Mutex::default(),
            endpoint: OnceLock::new(),
            path,
            tasks,
        }
    }

    /// The endpoint through which polling sessions are closed; said once, when it has been built.
    pub fn serve_by(&self, endpoint: Endpoint) {
        // Only the node calls this, once.
        self.endpoint.get_or_init(|| endpoint);
    }

    /// Begins to follow the transport of a socket that has just connected.
    pub fn open(&self, socket: &SocketRef) -> Arc<Transport> {
        let first = socket.req_parts();
        let transport = Arc::new(Transport {
            sid: socket.id,
            account: Arc::default(),
            lines: Mutex::default(),
        });
        if query(&first.uri, "transport") == Some("websocket") {
            if let Some(line) = first.extensions.get::<Arc<Line>>() {
                transport.carry(line);
            }
            return transport;
        }
        let mut sessions = self.sessions.lock();
        let early = sessions.early.remove(&socket.id).unwrap_or_default();
        for line in early.iter().filter_map(Weak::upgrade) {
            transport.carry(&line);
        }
        sessions.open.insert(socket.id, Arc::clone(&transport));
        transport
    }

    /// Closes the transport of a socket that was refused, when it has had time to hear so. Some clients would
    /// keep it until the connect time-out.
    pub fn dismiss(self: &Arc<Self>, socket: SocketRef) {
        let transports = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::time::sleep(DISMISSAL).await;
            let transport = transports.open(&socket);
            transports.close(&transport);
            transports.forget(&transport);
        });
    }

    /// Stops following it: its socket is gone.
    pub fn forget(&self, transport: &Transport) {
        let mut sessions = self.sessions.lock();
        // The session may have entered again by now.
        let is_this = |open: &Arc<Transport>| std::ptr::eq(&raw const **open, transport);
        if sessions.open.get(&transport.sid).is_some_and(is_this) {
            sessions.open.remove(&transport.sid);
        }
    }

    /// The account that a poll's response is to be credited to.
    #[must_use]
    pub fn account(&self, sid: &str) -> Option<Arc<Account>> {
        let sid = sid.parse().ok()?;
        self.sessions
            .lock()
            .open
            .get(&sid)
            .map(|transport| Arc::clone(&transport.account))
    }

    /// A polling session is being upgraded to a WebSocket on this line.
    pub fn upgrade(&self, sid: &str, line: &Arc<Line>) {
        let Ok(sid) = sid.parse() else { return };
        let mut sessions = self.sessions.lock();
        match sessions.open.get(&sid) {
            Some(transport) => transport.carry(line),
            None => {
                let lines = sessions.early.entry(sid).or_default();
                lines.retain(|line| line.strong_count() > 0);
                lines.push(Arc::downgrade(line));
            }
        }
    }

    /// Forgets early upgrades whose connections have ended: their sessions never came to a CONNECT.
    pub fn sweep(&self) {
        self.sessions.lock().early.retain(|_, lines| {
            lines.retain(|line| line.strong_count() > 0);
            !lines.is_empty()
        });
    }

    /// Closes the transport beneath a socket. The socket's end is then reported as any other.
    pub fn close(&self, transport: &Transport) {
        for line in transport.lines.lock().iter().filter_map(Weak::upgrade) {
            line.close();
        }
        let is_polling = self.sessions.lock().open.contains_key(&transport.sid);
        if is_polling && let Some(endpoint) = self.endpoint.get().cloned() {
            let request = self.close_packet(transport.sid);
            self.tasks.spawn(async move {
                // An upgraded session refuses it; the end of its line has closed that one.
                let _refused = answer(endpoint, request).await;
            });
        }
    }

    /// The request by which a polling client closes its own session: one Engine.IO CLOSE packet.
    fn close_packet(&self, sid: Sid) -> Request<Body> {
        let body = Full::new(Bytes::from_static(b"1"))
            .map_err(|never| match never {})
            .boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let target = format!("{}?EIO=4&transport=polling&sid={sid}", self.path);
        *request.uri_mut() = target.parse().unwrap_or_default();
        request
    }
}

impl Transport {
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    fn carry(&self, line: &Arc<Line>) {
        line.attach(Arc::clone(&self.account));
        let mut lines = self.lines.lock();
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(line));
    }
}

/// The value of a parameter in the query, as the library finds it: the first of that name, undecoded.
#[must_use]
pub fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    let named = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    named
        .map(|value| value.split('=').next().unwrap_or(value))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_the_library_reads_it() {
        let uri = |query: &str| format!("/socket.io/?{query}").parse::<Uri>().unwrap();
        let transport = |text: &str| query(&uri(text), "transport").map(str::to_owned);
        assert_eq!(
            transport("EIO=4&transport=polling").as_deref(),
            Some("polling")
        );
        assert_eq!(
            transport("transport=polling&x=transport=websocket").as_deref(),
            Some("polling")
        );
        assert_eq!(
            transport("transport=polling&transport=websocket").as_deref(),
            Some("polling")
        );
        assert_eq!(transport("xtransport=websocket"), None);
        assert_eq!(transport("transport"), None);
    }
}
