//! Which Redis a user's messages go by, when there are several: the same on every node that has the same list.

use super::BusError;
use super::connection::Dialer;
use crate::user::UserId;

/// The list of them, each by a number that its address gives it, in the order of the setting.
///
/// Rendezvous hashing: a user belongs to the Redis for which the two together give the highest number. So one more, or
/// one less, moves only the users that are its own.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<u64>);

impl Places {
    /// By the places of the dialers: `host:port/database`, without credentials. No two may be the same.
    pub(super) fn of(dialers: &[Dialer]) -> Result<Self, BusError> {
        let numbers: Vec<_> = dialers
            .iter()
            .map(|dialer| hash(0, &dialer.place()))
            .collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < numbers.len() {
            return Err(BusError::Twice);
        }
        Ok(Self(numbers))
    }

    /// The index of the user's own.
    pub(super) fn index(&self, user: &UserId) -> usize {
        if self.0.len() == 1 {
            return 0;
        }
        let weights = self.0.iter().map(|place| hash(*place, user.as_str()));
        let heaviest = weights.enumerate().max_by_key(|(_, weight)| *weight);
        heaviest.map_or(0, |(index, _)| index)
    }

    /// The same for lists of the same places, in whatever order: nodes whose lists differ do not hear each other.
    pub(super) fn number(&self) -> u64 {
        let mixed = self.0.iter().map(|place| mix(*place));
        mixed.fold(self.0.len() as u64, u64::wrapping_add)
    }
}

/// Nodes of other releases, and of other compilers, have to agree: so it is spelled out. FNV-1a, and a finalizer, for
/// FNV alone leaves its high bits to the first letters.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(start, step))
}

/// The finalizer of `SplitMix64`.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(urls: &[&str]) -> Places {
        let dialers: Result<Vec<_>, _> = urls.iter().map(|url| Dialer::new(url)).collect();
        Places::of(&dialers.unwrap()).unwrap()
    }

    fn users() -> impl Iterator<Item = UserId> {
        (0..3_000_u64).map(|number| UserId::try_from(number).unwrap())
    }

    const URLS: [&str; 3] = ["redis://a:1", "redis://b:1/2", "redis://c:1"];

    #[test]
    fn users_are_spread_and_stay_where_they_are_when_one_more_comes() {
        let (two, three) = (places(&URLS[..2]), places(&URLS));
        let mut count = [0; 3];
        for user in users() {
            let (before, after) = (two.index(&user), three.index(&user));
            assert!(after == before || after == 2);
            count[after] += 1;
        }
        assert!(
            count.iter().all(|users| (850..1_150).contains(users)),
            "{count:?}"
        );
    }

    #[test]
    fn nodes_agree_whatever_the_order_and_the_credentials() {
        let (one, other) = (
            places(&URLS),
            places(&["redis://u:p@c:1/0", URLS[0], URLS[1]]),
        );
        assert_eq!(one.number(), other.number());
        assert!(users().all(|user| (one.index(&user) + 1) % 3 == other.index(&user)));
        assert_ne!(one.number(), places(&URLS[..2]).number());
        // Of every release: a node of another one would look elsewhere.
        let fixed: Vec<_> = users().take(12).map(|user| one.index(&user)).collect();
        assert_eq!(fixed, [0, 0, 1, 1, 1, 2, 2, 1, 1, 0, 2, 0]);
    }

    #[test]
    fn the_same_place_twice_is_refused() {
        let dialers = ["redis://a:1", "redis://x@a:1/0"].map(|url| Dialer::new(url).unwrap());
        assert!(matches!(Places::of(&dialers), Err(BusError::Twice)));
    }
}
