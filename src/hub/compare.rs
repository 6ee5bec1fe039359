//! Comparing this node's sockets with what the store says of their users.

use std::sync::Arc;
use std::time::Instant;

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

/// How far the sockets of a user had been served, noted before the store was asked.
#[derive(Debug)]
pub struct Served {
    pub user: UserId,
    noted: Instant,
    /// The furthest of them; `None`: all are owed a new beginning.
    most: Option<u64>,
    /// So far have all of them, and the store has said of each that its token is not revoked.
    is_settled: bool,
}

impl Served {
    fn of(user: UserId, seats: &[Arc<Seat>], noted: Instant) -> Self {
        let seats = seats.iter().map(|seat| (seat.served(), seat.is_proven()));
        let (most, is_settled) = summed_up(seats);
        Self {
            user,
            noted,
            most,
            is_settled,
        }
    }

    /// The head that contradicts none of them, unless tokens of the user are revoked; `None`: no head does.
    #[must_use]
    pub fn settled(&self) -> Option<u64> {
        self.most.filter(|_| self.is_settled)
    }
}

/// Of sockets that were served so far, with a token that is proven or not: the furthest, and whether all are where it is and
/// are proven.
fn summed_up(seats: impl Iterator<Item = (Option<u64>, bool)>) -> (Option<u64>, bool) {
    let mut sum = None;
    for (served, is_proven) in seats {
        let (most, is_settled) = sum.unwrap_or((served, true));
        sum = Some((most.max(served), is_settled && is_proven && served == most));
    }
    sum.unwrap_or((None, false))
}

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
    /// In how many parts [`Hub::served_in`] tells the users.
    pub const PARTS: usize = SHARDS;

    /// How far those of one part have been served who are here now. Each user is always in the same part.
    #[must_use]
    pub fn served_in(&self, part: usize) -> Vec<Served> {
        let now = Instant::now();
        let served =
            |(user, seats): (&UserId, &Vec<Arc<Seat>>)| Served::of(user.clone(), seats, now);
        let shard = self.shards.get(part);
        shard.map_or_else(Vec::new, |shard| shard.read().iter().map(served).collect())
    }

    /// How many users are here.
    #[must_use]
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Of those of `users` who are here. To be called before the store is asked for their heads.
    #[must_use]
    pub fn served(&self, users: impl IntoIterator<Item = UserId>) -> Vec<Served> {
        let now = Instant::now();
        let served = |user: UserId| {
            let shard = self.shard(&user).read();
            let seats = shard.get(&user)?;
            Some(Served::of(user, seats, now))
        };
        users.into_iter().filter_map(served).collect()
    }

    /// Compares the sockets of a user with what the store said after that, and closes those whose tokens are revoked.
    pub fn compare(&self, before: &Served, head: Head, compared: &mut Compared) {
        // Else they may have been served more meanwhile.
        let is_ahead = before.most.is_some_and(|most| most > head.seq);
        let seats = self.seats_of(&before.user).into_iter();
        // Who came later asks the store by itself, and knows better than this answer.
        for seat in seats.filter(|seat| seat.opened <= before.noted) {
            if seat.prove(head.valid_after) {
                seat.close(Closed::Kicked);
            } else if is_ahead && seat.served().is_some_and(|served| served > head.seq) {
                compared.ahead.push(seat);
            } else if seat.is_behind(head.seq) {
                let head = head.seq;
                compared.behind.push(Behind { seat, head });
            }
        }
    }

    /// Not to be worked on under the lock.
    fn seats_of(&self, user: &UserId) -> Vec<Arc<Seat>> {
        let shard = self.shard(user).read();
        shard.get(user).cloned().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_settled_that_are_equally_far_and_proven() {
        let of = |seats: &[(Option<u64>, bool)]| summed_up(seats.iter().copied());
        assert_eq!(of(&[(Some(5), true)]), (Some(5), true));
        assert_eq!(of(&[(Some(5), true), (Some(5), true)]), (Some(5), true));
        assert_eq!(of(&[(Some(5), false)]), (Some(5), false));
        assert_eq!(of(&[(Some(5), true), (Some(5), false)]), (Some(5), false));
        assert_eq!(of(&[(Some(5), true), (Some(7), true)]), (Some(7), false));
        assert_eq!(of(&[(Some(7), true), (Some(5), true)]), (Some(7), false));
        assert_eq!(of(&[(None, true), (Some(5), true)]), (Some(5), false));
        assert_eq!(of(&[(Some(5), true), (None, true)]), (Some(5), false));
        assert_eq!(of(&[]), (None, false));
    }
}
