//! What a cursor, its driver, its socket and the store say to each other.

#[cfg(doc)]
use super::Cursor;

/// Where a cursor hands over what its socket is to be sent.
pub trait Outlet<E> {
    /// Takes `item`, to be sent after all that were taken before; or has no room, takes nothing and
    /// returns `false`.
    fn emit(&mut self, item: Item<'_, E>) -> bool;
}

/// What a cursor hands to its socket. `E` is a change, encoded for the wire, with its own seq in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a, E> {
    /// A change of the inbox. On one socket their seqs rise, except after a [`Reason::Reset`].
    Change(&'a E),
    /// How many notifications are unread at `seq`.
    Count { unread: u64, seq: u64 },
    /// Continuity up to `seq` cannot be proved: the client must fetch the list.
    Refresh { reason: Reason, seq: u64 },
    /// The socket has everything up to `seq` and is live. Once in the life of a cursor.
    Synced { seq: u64, replayed: u64 },
}

/// Why a cursor tells its client to fetch the list. Other refreshes are changes, or transient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client named no seq to resume from.
    Connect,
    /// More was missed than is remembered, or than is replayed.
    Gap,
    /// The history that the client knows was replaced by another.
    Reset,
}

/// One change of the user's inbox as the bus or this node hands it in: after its commit, never before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Change<E> {
    pub seq: u64,
    /// How many notifications are unread after this change.
    pub unread: u64,
    pub event: E,
}

/// A question to the store. Its answer goes to [`Cursor::caught_up`], its failure to [`Cursor::read_failed`].
///
/// The snapshot must be taken after the cursor asked: a read that was already running for another
/// socket of the same user will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Read {
    /// The changes above this seq are wanted. `None`: no changes at all, [`Missed::head`] and
    /// [`Missed::unread`] are enough, because the client will be told to fetch the list.
    pub since: Option<u64>,
    pub(super) number: u32,
}

/// The answer of the store to a [`Read`]: one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed<E> {
    /// The user's last change in this snapshot.
    pub head: u64,
    /// Changes up to this one are no longer known in full.
    pub floor: u64,
    /// How many notifications are unread at `head`.
    pub unread: u64,
    /// The present state of all that changed above [`Read::since`], with its seq, in rising order.
    pub changes: Vec<(u64, E)>,
    /// More changed than is replayed, and `changes` is not used.
    pub too_many: bool,
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a cursor whose step is not taken stands still"]
pub enum Step {
    /// Nothing until something happens.
    Nothing,
    /// Have the user's bus subscription confirmed, then call [`Cursor::subscribed`].
    Subscribe,
    /// Call [`Cursor::hold_expired`] in 50 ms. Calling it early costs a read, calling it in vain nothing.
    Hold,
    /// Read the store, in place of any read that this cursor asked for before.
    Read(Read),
    /// The socket has no room: call [`Cursor::drained`] when it has, or close its transport after 10 s.
    Stalled,
}

/// Whether a transient emit, which promises nothing, may be passed on to the socket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transient {
    Emit,
    /// The client does not yet know its own state.
    DropSyncing,
    /// The socket has no room for what matters more.
    DropStalled,
}
