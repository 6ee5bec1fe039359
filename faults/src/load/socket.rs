//! Socket.IO as little as a device needs, over WebSocket or long polling: Engine.IO 4, Socket.IO 5, namespace `/`, text only.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::polling::Polling;

/// A connection that is not there in this time is given up.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Socket(Wire);

enum Wire {
    WebSocket {
        stream: Box<WebSocketStream<TcpStream>>,
        /// Longer silence means that the server is gone.
        silence: Duration,
    },
    Polling(Polling),
}

/// How a device connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    /// With a receive buffer of so many bytes: a device that is to be slow.
    SmallWebSocket(u32),
    Polling,
}

/// Why there is no connection (any more).
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("not connected: {0}")]
    Unreachable(String),
    #[error("refused on the handshake: {0}")]
    Status(u16),
    /// Official clients take it as final.
    #[error("connect_error {0}")]
    Refused(String),
    /// Official clients stay away after it.
    #[error("io server disconnect")]
    Disconnected,
    #[error("transport closed")]
    Closed,
    #[error("transport error: {0}")]
    Broken(String),
    #[error("silence")]
    Silent,
    #[error("not Socket.IO: {0}")]
    Protocol(String),
}

impl Socket {
    /// Connects to a node, and to its namespace.
    pub(super) async fn connect(
        address: SocketAddr,
        auth: &Value,
        transport: Transport,
    ) -> Result<Self, Lost> {
        let connecting = tokio::time::timeout(DEADLINE, async {
            let wire = match transport {
                Transport::WebSocket => open(address, None).await?,
                Transport::SmallWebSocket(buffer) => open(address, Some(buffer)).await?,
                Transport::Polling => Wire::Polling(Polling::open(address).await?),
            };
            let mut socket = Self(wire);
            socket.send(format!("40{auth}")).await?;
            let answer = socket.packet().await?;
            match answer.split_at_checked(2) {
                Some(("40", _)) => Ok(socket),
                Some(("44", error)) => Err(Lost::Refused(error.to_owned())),
                _ => Err(Lost::Protocol(answer)),
            }
        });
        let unreachable = |_late| Lost::Unreachable("timeout".to_owned());
        connecting.await.map_err(unreachable)?
    }

    /// Polls are sent to this node from the next one on; a WebSocket stays where it is.
    pub(super) fn stray(&mut self, to: SocketAddr) {
        if let Wire::Polling(polling) = &mut self.0 {
            polling.stray(to);
        }
    }

    /// The next event and its payload. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<(String, Value), Lost> {
        loop {
            let packet = self.packet().await?;
            if let Some(("42", event)) = packet.split_at_checked(2) {
                return parse(event);
            }
        }
    }

    async fn packet(&mut self) -> Result<String, Lost> {
        loop {
            let text = self.text().await?;
            match text.as_str() {
                "2" => self.send("3".to_owned()).await?,
                "1" => return Err(Lost::Closed),
                "41" => return Err(Lost::Disconnected),
                _ => return Ok(text),
            }
        }
    }

    async fn text(&mut self) -> Result<String, Lost> {
        let (stream, silence) = match &mut self.0 {
            Wire::WebSocket { stream, silence } => (stream, *silence),
            Wire::Polling(polling) => return polling.text().await,
        };
        text(stream, silence).await
    }

    async fn send(&mut self, packet: String) -> Result<(), Lost> {
        let stream = match &mut self.0 {
            Wire::WebSocket { stream, .. } => stream,
            Wire::Polling(polling) => return polling.send(packet).await,
        };
        let sending = tokio::time::timeout(DEADLINE, stream.send(Message::text(packet)));
        let sent = sending.await.map_err(|_late| Lost::Silent)?;
        sent.map_err(|error| Lost::Broken(error.to_string()))
    }
}

async fn open(address: SocketAddr, buffer: Option<u32>) -> Result<Wire, Lost> {
    let unreachable = |error: std::io::Error| Lost::Unreachable(error.kind().to_string());
    let socket = TcpSocket::new_v4().map_err(unreachable)?;
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer).map_err(unreachable)?;
    }
    let stream = socket.connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let connected = tokio_tungstenite::client_async(url, stream).await;
    let (mut stream, _response) = connected.map_err(|error| {
        if let Error::Http(response) = error {
            return Lost::Status(response.status().as_u16());
        }
        Lost::Unreachable(error.to_string())
    })?;
    let open = text(&mut stream, DEADLINE).await?;
    let open: Value = parse(open.strip_prefix('0').unwrap_or_default())?;
    let period = |name: &str| open.get(name).and_then(Value::as_u64).unwrap_or_default();
    let silence = Duration::from_millis(period("pingInterval") + period("pingTimeout"));
    let stream = Box::new(stream);
    Ok(Wire::WebSocket { stream, silence })
}

async fn text(stream: &mut WebSocketStream<TcpStream>, silence: Duration) -> Result<String, Lost> {
    loop {
        let message = tokio::time::timeout(silence, stream.next()).await;
        match message.map_err(|_late| Lost::Silent)? {
            Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
            Some(Ok(Message::Close(_))) | None => return Err(Lost::Closed),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Lost::Broken(error.to_string())),
        }
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Lost> {
    serde_json::from_str(text).map_err(|error| Lost::Protocol(error.to_string()))
}
