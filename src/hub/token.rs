//! What a socket's client last proved itself with, and whether that still counts.

use crate::auth::Lifetime;

/// Of the last token that was accepted.
#[derive(Debug)]
pub(super) struct Token {
    lifetime: Lifetime,
    /// The store has said of it that it was not revoked; else it is believed for as long as the store is silent.
    proven: bool,
    /// The latest revocation that this socket heard of, in milliseconds since 1970; 0: of none.
    valid_after: u64,
}

impl Token {
    pub(super) fn new(lifetime: Lifetime) -> Self {
        Self {
            lifetime,
            proven: true,
            valid_after: 0,
        }
    }

    pub(super) fn expires_at(&self) -> u64 {
        self.lifetime.expires_at
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// The store was away when it was asked.
    pub(super) fn doubt(&mut self) {
        self.proven = false;
    }

    /// Tokens issued at or before `valid_after` are revoked. Answers whether this one is.
    pub(super) fn revoke(&mut self, valid_after: u64) -> bool {
        self.valid_after = self.valid_after.max(valid_after);
        self.is_revoked(self.lifetime)
    }

    /// The same, as the store says; `None`: none are.
    pub(super) fn prove(&mut self, valid_after: Option<u64>) -> bool {
        self.proven = true;
        self.revoke(valid_after.unwrap_or(0))
    }

    /// Takes the place of the one before, unless the socket has heard that it is revoked: the store may have
    /// been asked before the revocation, and answer after it.
    pub(super) fn renew(&mut self, lifetime: Lifetime, proven: bool) -> bool {
        if self.is_revoked(lifetime) {
            return false;
        }
        self.lifetime = lifetime;
        self.proven = proven;
        true
    }

    fn is_revoked(&self, lifetime: Lifetime) -> bool {
        self.valid_after > 0 && lifetime.is_revoked(self.valid_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(at: u64) -> Lifetime {
        Lifetime {
            issued_at: Some(at),
            expires_at: 1_000,
        }
    }

    #[test]
    fn an_older_token_cannot_come_in_behind_a_revocation() {
        let mut token = Token::new(issued(100));
        assert!(!token.revoke(70_000));
        assert!(!token.renew(issued(50), true));
        assert!(!token.prove(None), "the one before is still the one");
        assert!(token.renew(issued(71), true));
        assert!(!token.revoke(60_000), "an earlier one that came late");
        assert!(token.revoke(71_000));
    }

    #[test]
    fn a_token_without_an_age_is_revoked_by_any_revocation_and_by_none() {
        let ageless = Lifetime {
            issued_at: None,
            expires_at: 1_000,
        };
        let mut token = Token::new(ageless);
        assert!(!token.prove(None));
        assert!(token.prove(Some(1)));
    }

    #[test]
    fn a_token_that_was_doubted_is_proven_by_the_next_answer() {
        let mut token = Token::new(issued(100));
        token.doubt();
        assert!(!token.is_proven());
        assert!(!token.prove(Some(99_000)));
        assert!(token.is_proven());
        assert!(token.renew(issued(101), false));
        assert!(!token.is_proven());
    }
}
