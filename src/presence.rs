//! Whether a user is connected: this node looks, and the others are asked when somebody asks.

use crate::bus::{Bus, Elsewhere};
use crate::hub::Hub;
use crate::user::UserId;

/// Answers from what nodes know at this moment: no count is kept or shared.
#[derive(Clone, Debug)]
pub struct Presence {
    hub: Hub,
    bus: Bus,
}

/// A user's sockets on all nodes that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    pub count: u64,
    /// `false`: there may be more, on nodes that were not heard.
    pub complete: bool,
}

impl Presence {
    #[must_use]
    pub fn new(hub: Hub, bus: Bus) -> Self {
        Self { hub, bus }
    }

    /// Takes as long as the slowest node, 300 ms at most.
    pub async fn of(&self, user: &UserId) -> Sockets {
        let Elsewhere { sockets, complete } = self.bus.sockets_elsewhere(user).await;
        Sockets {
            count: sockets.saturating_add(self.hub.sockets_of(user)),
            complete,
        }
    }
}
