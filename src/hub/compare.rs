//! Comparing this node's sockets with what the store says of their users.

use std::collections::HashMap;
use std::sync::Arc;

use super::cursor::Step;
use super::{Hub, Resume, SHARDS, Seat};
use crate::metrics::{Closed, Repair};
use crate::user::UserId;

/// What the store says of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the last change.
    pub seq: u64,
    /// Tokens issued at or before it are revoked, in milliseconds since 1970.
    pub valid_after: Option<u64>,
}

/// How far the sockets of some users had been served, noted before the store was asked.
#[derive(Debug)]
pub struct Served(Vec<(Arc<Seat>, Option<u64>)>);

/// Whom the store contradicts.
#[derive(Debug, Default)]
pub struct Compared {
    /// They have been served more than there is: history went backwards.
    pub ahead: Vec<Arc<Seat>>,
    pub behind: Vec<Behind>,
}

/// A socket that has not been served what the store has; it may be on its way.
#[derive(Debug)]
pub struct Behind {
    seat: Arc<Seat>,
    head: u64,
}

impl Hub {
    /// In how many parts [`Hub::users_in`] tells the users.
    pub const PARTS: usize = SHARDS;

    /// The users of one part who are here now. Each user is always in the same part.
    #[must_use]
    pub fn users_in(&self, part: usize) -> Vec<UserId> {
        let shard = self.shards.get(part);
        shard.map_or_else(Vec::new, |shard| shard.read().keys().cloned().collect())
    }

    /// How many users are here.
    #[must_use]
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// To be called before the store is asked for the heads of `users`.
    #[must_use]
    pub fn served(&self, users: &[UserId]) -> Served {
        let mut served = Vec::with_capacity(users.len());
        for user in users {
            if let Some(seats) = self.shard(user).read().get(user) {
                served.extend(seats.iter().map(|seat| (Arc::clone(seat), seat.served())));
            }
        }
        Served(served)
    }

    /// Compares with what the store said after that, and closes sockets whose tokens are revoked.
    #[must_use]
    pub fn compare(&self, served: Served, users: &[UserId], heads: &[Head]) -> Compared {
        let heads: HashMap<_, _> = users.iter().zip(heads).collect();
        let mut compared = Compared::default();
        for (seat, before) in served.0 {
            let Some(Head { seq, valid_after }) = heads.get(&seat.user) else {
                continue;
            };
            let is_revoked = seat.prove(*valid_after);
            if is_revoked {
                seat.close(Closed::Kicked);
            } else if before.is_some_and(|before| before > *seq) {
                compared.ahead.push(seat);
            } else if seat.is_behind(*seq) {
                compared.behind.push(Behind { seat, head: *seq });
            }
        }
        compared
    }

    /// Has sockets ask the store, whatever they have been served.
    pub fn recheck(&self, seats: &[Arc<Seat>], why: Repair) {
        for seat in seats {
            self.proceed(seat, seat.recheck(), Some(why));
        }
    }

    /// Has a socket ask the store, unless what it had not been served has come meanwhile.
    pub fn catch_up(&self, Behind { seat, head }: &Behind, why: Repair) {
        self.proceed(seat, seat.reached(*head), Some(why));
    }

    /// History was replaced: each socket is told so, and begins anew. The epoch has been replaced already.
    pub fn epoch_changed(&self) {
        self.for_each(|seat| self.proceed(seat, seat.epoch_changed(), None));
    }

    /// What the client brought was judged by an epoch; if that was replaced before the socket was registered,
    /// nobody has told the socket.
    pub(super) fn mind_epoch(&self, seat: &Seat, resume: Resume, step: Step) -> Step {
        if resume.generation == self.shared.epoch.generation() {
            return step;
        }
        let anew = seat.epoch_changed();
        if anew == Step::Nothing { step } else { anew }
    }
}
