//! A socket as the hub sees it: hand over an event, how full it is, close its transport; whoever speaks the protocol.

use std::fmt;
use std::sync::Arc;

use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use socketioxide::{SendError, SocketError, TransportType};

use super::account::{Account, POLLING_PACKETS, WEBSOCKET_PACKETS};
use super::transport::{Transport, Transports};
use super::websocket::{self, Connection, Pushed};
use crate::event::Event;
use crate::metrics::{self, Closed};

/// The two ways to a client.
#[derive(Debug)]
pub enum Socket {
    /// A WebSocket from the start.
    Direct(Arc<Connection>),
    /// Long polling, what was upgraded from it, and a WebSocket behind other requests of its connection: spoken by the library.
    Library(SocketRef, Arc<Transport>),
}

/// What a client knows its socket by.
#[derive(Clone, Copy, Debug)]
pub enum Id {
    Direct(websocket::Id),
    Library(Sid),
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(id) => id.fmt(formatter),
            Self::Library(id) => id.fmt(formatter),
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Taken,
    /// There is no room at all: far above what stalls a socket.
    Full,
    /// It has ended. The library may not report that end.
    Lost,
}

impl Socket {
    /// What its client knows it by.
    pub(super) fn id(&self) -> Id {
        match self {
            Self::Direct(connection) => Id::Direct(connection.id()),
            Self::Library(socket, _) => Id::Library(socket.id),
        }
    }

    /// The transport that it has now.
    pub(super) fn transport(&self) -> metrics::Transport {
        match self {
            Self::Direct(_) => metrics::Transport::Websocket,
            Self::Library(socket, _) => match socket.transport_type() {
                TransportType::Websocket => metrics::Transport::Websocket,
                TransportType::Polling => metrics::Transport::Polling,
            },
        }
    }

    pub(super) fn account(&self) -> &Account {
        match self {
            Self::Direct(connection) => connection.account(),
            Self::Library(_, transport) => transport.account(),
        }
    }

    /// How many packets may be outstanding.
    pub(super) fn packet_limit(&self) -> u64 {
        match self.transport() {
            metrics::Transport::Websocket => WEBSOCKET_PACKETS,
            metrics::Transport::Polling => POLLING_PACKETS,
        }
    }

    /// Hands an event over. It leaves with the next flush at the latest.
    pub(super) fn send(&self, event: &Event) -> Sent {
        match self {
            Self::Direct(connection) => match connection.event(event) {
                // The connection's own task reports its end.
                Pushed::Taken | Pushed::Ended => Sent::Taken,
                Pushed::Full => Sent::Full,
            },
            Self::Library(socket, transport) => {
                let length = event.packet_length() as u64;
                transport.account().handed(length);
                match socket.emit(event.name.as_ref(), &event.payload) {
                    Ok(()) => Sent::Taken,
                    Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                        transport.account().written(1, length);
                        Sent::Full
                    }
                    Err(SendError::Socket(SocketError::Closed) | SendError::Serialize(_)) => {
                        Sent::Lost
                    }
                }
            }
        }
    }

    /// Writes what was handed over, here and now.
    pub(super) fn flush(&self) {
        match self {
            Self::Direct(connection) => connection.flush(),
            // The library's own tasks write.
            Self::Library(..) => {}
        }
    }

    /// Has what was handed over written by the socket's own task.
    pub(super) fn flush_soon(&self) {
        match self {
            Self::Direct(connection) => connection.flush_soon(),
            Self::Library(..) => {}
        }
    }

    /// Has a ping leave with what is written next, and not in a write of its own later.
    pub(super) fn ping(&self) {
        match self {
            Self::Direct(connection) => connection.ping(),
            // The library's own tasks ping.
            Self::Library(..) => {}
        }
    }

    /// Closes the transport, as a broken connection would: the client comes back by itself.
    pub(super) fn close(&self, transports: &Transports, reason: Closed) {
        self.account().end();
        match self {
            Self::Direct(connection) => connection.close(reason),
            Self::Library(_, transport) => transports.close(transport),
        }
    }

    /// Its end was reported: nobody follows it any more.
    pub(super) fn forget(&self, transports: &Transports) {
        self.account().end();
        match self {
            Self::Direct(_) => {}
            Self::Library(_, transport) => transports.forget(transport),
        }
    }

    /// Has the library let go of a socket whose end it did not report.
    pub(super) fn abandon(&self) {
        // It cannot be sent anything. The end of any other socket its own task reports.
        if let Self::Library(socket, _) = self {
            let _closed = socket.clone().disconnect();
        }
    }
}
