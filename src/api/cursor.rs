//! The cursor that leads from one page of a list to the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::query::MAX_SEQ;
use crate::user::UserId;

/// Where a page ends: all that comes after it was created before this `created_seq`.
///
/// Opaque to clients. It carries a digest that only its own user's requests reproduce, so that a cursor
/// that was cut, changed or lent is refused instead of leading somewhere; it is no secret, and reads
/// nobody else's inbox.
pub(super) struct Cursor(pub(super) u64);

impl Cursor {
    const DIGEST_BYTES: usize = 8;

    pub(super) fn encode(&self, user: &UserId) -> String {
        let bytes = [&self.0.to_be_bytes()[..], &self.digest(user)].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn decode(text: &str, user: &UserId) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let cursor = bytes
            .first_chunk()
            .map(|seq| Self(u64::from_be_bytes(*seq)));
        let genuine = cursor.filter(|cursor| cursor.0 <= MAX_SEQ && cursor.encode(user) == text);
        genuine.ok_or_else(|| {
            Problem::malformed(
                "cursor_invalid",
                "The cursor is not one that this user was given; start at the first page.",
            )
        })
    }

    fn digest(&self, user: &UserId) -> [u8; Self::DIGEST_BYTES] {
        let digest = Sha256::new()
            .chain_update(b"cursor")
            .chain_update(self.0.to_be_bytes());
        let digest = digest.chain_update(user.as_str()).finalize();
        std::array::from_fn(|index| digest[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_users_own_and_whole() {
        let (user, other) = (
            UserId::try_from("42").unwrap(),
            UserId::try_from("43").unwrap(),
        );
        let text = Cursor(1_234).encode(&user);
        assert_eq!(Cursor::decode(&text, &user).unwrap().0, 1_234);

        let cut = &text[1..];
        let padded = format!("{text}=");
        let changed = text.replacen('A', "B", 1);
        for text in [
            "",
            "!",
            "AAAA",
            cut,
            &padded,
            &changed,
            &Cursor(u64::MAX).encode(&user),
        ] {
            assert!(Cursor::decode(text, &user).is_err(), "{text}");
        }
        assert!(Cursor::decode(&text, &other).is_err());
    }
}
