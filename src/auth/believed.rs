//! Publishers' tokens that were verified before: a backend sends the same one with every request.

use std::collections::HashMap;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{Identity, LEEWAY_SECONDS};

/// How many are remembered. Beyond it those that have expired are forgotten, and if none has, all.
const MAX_TOKENS: usize = 1_024;

/// Digests, for whoever reads the memory of a node shall find no token in it.
type Digest = [u8; 32];

/// What verified tokens said. Only publishers' are remembered: they are few, and come often.
///
/// Of the rules that a token has passed, only its expiry can refuse it later: it is asked each time.
#[derive(Debug, Default)]
pub(super) struct Believed(Mutex<HashMap<Digest, Identity>>);

impl Believed {
    /// What the token said when it was verified; `None`: it was not, or has expired.
    pub(super) fn recall(&self, token: &str, now: u64) -> Option<Identity> {
        let digest = digest(token);
        let believed = self.0.lock();
        let identity = believed.get(&digest)?;
        is_current(identity, now).then(|| identity.clone())
    }

    /// Remembers a token that has just passed every rule.
    pub(super) fn note(&self, token: &str, identity: &Identity, now: u64) {
        if !identity.publisher {
            return;
        }
        let mut believed = self.0.lock();
        if believed.len() >= MAX_TOKENS {
            believed.retain(|_, identity| is_current(identity, now));
        }
        if believed.len() >= MAX_TOKENS {
            believed.clear();
        }
        believed.insert(digest(token), identity.clone());
    }
}

/// As the verifier judges it: a token is believed up to the leeway's last second.
fn is_current(identity: &Identity, now: u64) -> bool {
    now <= identity.lifetime.expires_at.saturating_add(LEEWAY_SECONDS)
}

fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Lifetime;
    use crate::user::UserId;

    fn identity(publisher: bool, expires_at: u64) -> Identity {
        Identity {
            user: UserId::try_from("backend").unwrap(),
            publisher,
            lifetime: Lifetime {
                issued_at: None,
                expires_at,
            },
        }
    }

    #[test]
    fn a_token_is_believed_until_it_expires_and_a_users_is_not_remembered() {
        let believed = Believed::default();
        believed.note("a.b.c", &identity(true, 100), 0);
        believed.note("d.e.f", &identity(false, 100), 0);
        assert_eq!(believed.recall("a.b.c", 130), Some(identity(true, 100)));
        assert_eq!(believed.recall("a.b.c", 131), None);
        assert_eq!(believed.recall("a.b.C", 0), None);
        assert_eq!(believed.recall("d.e.f", 0), None);
    }

    #[test]
    fn no_more_are_remembered_than_so_many() {
        let believed = Believed::default();
        for number in 0..MAX_TOKENS {
            let expires_at = if number == 7 { 100 } else { 10 };
            believed.note(&number.to_string(), &identity(true, expires_at), 0);
        }
        believed.note("next", &identity(true, 100), 50);
        assert_eq!(believed.0.lock().len(), 2, "those that have expired went");
        assert!(believed.recall("7", 50).is_some());
        for number in 0..MAX_TOKENS {
            believed.note(&number.to_string(), &identity(true, 100), 50);
        }
        assert!(believed.0.lock().len() <= MAX_TOKENS);
        assert!(believed.recall(&(MAX_TOKENS - 1).to_string(), 50).is_some());
    }
}
