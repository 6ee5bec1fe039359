//! Sessions that have shaken hands and not yet sent their CONNECT: counted, so that a storm of them is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socketioxide::extract::SocketRef;

/// How many there may be. At the usual limit of handshakes a second, a client has four seconds for its CONNECT.
const ROOM: usize = 4_096;

/// Where sessions wait until their clients say who they are. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Porch {
    waiting: Arc<AtomicUsize>,
}

/// A session's place there.
///
/// The library keeps it with the session's first request, as long as the session; so it is given back when its CONNECT
/// comes or when the session ends, whichever is first.
#[derive(Debug)]
pub struct Guest {
    waiting: Arc<AtomicUsize>,
    gone: AtomicBool,
}

impl Porch {
    /// A place for one more session; `None`: there is none.
    #[must_use]
    pub fn enter(&self) -> Option<Arc<Guest>> {
        let one_more = |waiting| (waiting < ROOM).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()?;
        Some(Arc::new(Guest {
            waiting: Arc::clone(&self.waiting),
            gone: AtomicBool::new(false),
        }))
    }
}

impl Guest {
    /// The CONNECT of this socket of the library has come.
    pub fn connected(socket: &SocketRef) {
        if let Some(guest) = socket.req_parts().extensions.get::<Arc<Self>>() {
            guest.leave();
        }
    }

    /// The CONNECT has come.
    pub fn leave(&self) {
        if !self.gone.swap(true, Ordering::SeqCst) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_once() {
        let porch = Porch::default();
        let mut guests: Vec<_> = (0..ROOM).map(|_| porch.enter().unwrap()).collect();
        assert!(porch.enter().is_none());
        guests[0].leave();
        let next = porch.enter().unwrap();
        drop(guests.remove(0));
        assert!(porch.enter().is_none(), "it had been given back before");
        drop(next);
        assert!(porch.enter().is_some());
    }
}
