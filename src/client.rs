//! A small Socket.IO client over WebSocket: what the commands `listen` and `probe` speak to a node with.
//!
//! Engine.IO protocol 4 and Socket.IO protocol 5, namespace `/`, text packets only.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long the server may take for a handshake or an ack.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connected socket. Dropping it breaks the connection.
pub struct Client {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Events that came while an ack was waited for.
    heard: VecDeque<Heard>,
    next_ack: u64,
    /// Longer silence than this means that the connection is dead: ping interval and timeout of the server.
    silence: Duration,
}

/// An event from the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub event: String,
    pub data: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is not an http:// or https:// address")]
    Address(String),
    #[error("cannot connect")]
    Connect(#[source] Box<tungstenite::Error>),
    /// The server's `connect_error`: a retry does not cure it.
    #[error("the server refuses this client: {0}")]
    Refused(String),
    #[error("the connection was lost")]
    Lost(#[source] Option<Box<tungstenite::Error>>),
    #[error("the server sent what is not Socket.IO")]
    Protocol,
    #[error("the server did not answer in time")]
    Timeout,
}

impl Client {
    /// Connects to the node at `url` (its `http://` address), with the auth payload of the contract.
    pub async fn connect(url: &str, path: &str, auth: &Value) -> Result<Self, ClientError> {
        // In a box: a TLS handshake's state is large, and everything that awaits this would be.
        let handshake = Box::pin(Self::handshake(url, path, auth));
        tokio::time::timeout(DEADLINE, handshake)
            .await
            .map_err(|_late| ClientError::Timeout)?
    }

    async fn handshake(url: &str, path: &str, auth: &Value) -> Result<Self, ClientError> {
        let base = url.trim_end_matches('/');
        let address = base
            .strip_prefix("http")
            .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
        let address = address.ok_or_else(|| ClientError::Address(url.to_owned()))?;
        let target = format!("ws{address}{path}?EIO=4&transport=websocket");
        let connected = tokio_tungstenite::connect_async(target).await;
        let (stream, _response) =
            connected.map_err(|error| ClientError::Connect(Box::new(error)))?;

        let mut client = Self {
            stream,
            heard: VecDeque::new(),
            next_ack: 0,
            silence: DEADLINE,
        };
        let open = client.text().await?;
        let open: Value = parse(open.strip_prefix('0'))?;
        let period = |name: &str| open.get(name).and_then(Value::as_u64).unwrap_or_default();
        client.silence = Duration::from_millis(period("pingInterval") + period("pingTimeout"));
        client.send(format!("40{auth}")).await?;
        match client.packet().await? {
            Packet::Connected => Ok(client),
            Packet::Refused(message) => Err(ClientError::Refused(message)),
            Packet::Event(_) | Packet::Ack(..) => Err(ClientError::Protocol),
        }
    }

    /// The next event. Answers pings meanwhile; a silent server is [`ClientError::Lost`].
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            if let Packet::Event(heard) = self.packet().await? {
                return Ok(heard);
            }
        }
    }

    /// Emits an event and answers its ack.
    pub async fn call(&mut self, event: &str, data: &Value) -> Result<Value, ClientError> {
        let id = self.next_ack;
        self.next_ack += 1;
        self.send(format!("42{id}{}", json!([event, data]))).await?;
        let answered = async {
            loop {
                match self.packet().await? {
                    Packet::Ack(answered, data) if answered == id => return Ok(data),
                    Packet::Event(heard) => self.heard.push_back(heard),
                    Packet::Ack(..) | Packet::Connected | Packet::Refused(_) => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, answered)
            .await
            .map_err(|_late| ClientError::Timeout)?
    }

    /// Sends a packet as it is, for those who test what the server does with it.
    pub async fn send(&mut self, packet: String) -> Result<(), ClientError> {
        self.stream.send(Message::text(packet)).await.map_err(lost)
    }

    async fn packet(&mut self) -> Result<Packet, ClientError> {
        loop {
            let text = self.text().await?;
            match text.as_str() {
                "2" => self.send("3".to_owned()).await?,
                "6" => {}
                "1" | "41" => return Err(ClientError::Lost(None)),
                packet => return Packet::parse(packet),
            }
        }
    }

    async fn text(&mut self) -> Result<String, ClientError> {
        loop {
            let message = tokio::time::timeout(self.silence, self.stream.next()).await;
            match message.map_err(|_silent| ClientError::Lost(None))? {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(_))) | None => return Err(ClientError::Lost(None)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(error)),
            }
        }
    }
}

fn lost(error: tungstenite::Error) -> ClientError {
    ClientError::Lost(Some(Box::new(error)))
}

enum Packet {
    Connected,
    Refused(String),
    Event(Heard),
    Ack(u64, Value),
}

impl Packet {
    fn parse(packet: &str) -> Result<Self, ClientError> {
        let (kind, rest) = packet.split_at_checked(2).ok_or(ClientError::Protocol)?;
        match kind {
            "40" => Ok(Self::Connected),
            "44" => {
                let error: Value = parse(Some(rest))?;
                Ok(Self::Refused(
                    error
                        .get("message")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                ))
            }
            "42" => {
                let (event, data) = parse::<(String, Value)>(Some(rest))?;
                Ok(Self::Event(Heard { event, data }))
            }
            "43" => {
                let start = rest.find('[').ok_or(ClientError::Protocol)?;
                let (id, data) = rest.split_at(start);
                let (data,) = parse::<(Value,)>(Some(data))?;
                Ok(Self::Ack(id.parse().or(Err(ClientError::Protocol))?, data))
            }
            _ => Err(ClientError::Protocol),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Result<T, ClientError> {
    serde_json::from_str(text.ok_or(ClientError::Protocol)?).or(Err(ClientError::Protocol))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}
