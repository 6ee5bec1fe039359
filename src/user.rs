//! The user whose sockets are reached: an id as the application spells it, and the room named after it.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A user as the application names them: 1 to 128 of the characters `A-Z a-z 0-9 . _ ~ @ : -`.
///
/// Never normalised: two different strings are two users. The character set is closed because ids
/// become room names, Redis channels and URL paths; nothing in it has a meaning there.
///
/// In JSON an integer from 0 to 2⁵³−1 is the user of its decimal spelling, because that is how many
/// applications number their users; `7.0` and `-1` are refused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// Why a string is not a user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -")]
pub struct NotAUserId;

impl UserId {
    /// The longest id, in characters (and bytes: the set is ASCII).
    pub const MAX_LENGTH: usize = 128;

    /// The largest integer that JavaScript, and so most JSON writers, can spell exactly.
    const MAX_INTEGER: u64 = (1 << 53) - 1;

    /// The room that holds this user's sockets, on every node.
    ///
    /// The only place where the room name is spelled: who joins and who emits cannot disagree.
    #[must_use]
    pub fn room(&self) -> String {
        format!("user:{}", self.0)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for UserId {
    type Error = NotAUserId;

    fn try_from(text: &str) -> Result<Self, NotAUserId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@:-".contains(&byte);
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        if !fits || !text.bytes().all(allowed) {
            return Err(NotAUserId);
        }
        Ok(Self(text.into()))
    }
}

impl std::str::FromStr for UserId {
    type Err = NotAUserId;

    fn from_str(text: &str) -> Result<Self, NotAUserId> {
        Self::try_from(text)
    }
}

impl TryFrom<u64> for UserId {
    type Error = NotAUserId;

    fn try_from(number: u64) -> Result<Self, NotAUserId> {
        if number > Self::MAX_INTEGER {
            return Err(NotAUserId);
        }
        Ok(Self(number.to_string().into()))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UserId({})", self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrInteger)
    }
}

struct StringOrInteger;

impl Visitor<'_> for StringOrInteger {
    type Value = UserId;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("a user id: 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -, or an integer")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<UserId, E> {
        UserId::try_from(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<UserId, E> {
        UserId::try_from(number).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_as_it_is_spelled() {
        for text in [
            "42",
            "a",
            "A",
            "user.name_1~x@example-host:tenant",
            &"x".repeat(128),
        ] {
            assert_eq!(UserId::try_from(text).unwrap().as_str(), text);
        }
        assert_ne!(
            UserId::try_from("a").unwrap(),
            UserId::try_from("A").unwrap()
        );
    }

    #[test]
    fn what_could_mean_something_elsewhere_is_refused() {
        let too_long = "x".repeat(129);
        for text in [
            "", " ", "a b", "a/b", "..\\", "*", "?", "[a]", "{a}", "#", ",", "é", "\u{212A}",
            "a\n", "a\0", &too_long,
        ] {
            assert_eq!(UserId::try_from(text), Err(NotAUserId), "{text:?}");
        }
    }

    #[test]
    fn an_integer_is_the_user_of_its_decimal_spelling() {
        let parse = |json: &str| serde_json::from_str::<UserId>(json);
        assert_eq!(parse("7").unwrap().as_str(), "7");
        assert_eq!(
            parse("9007199254740991").unwrap().as_str(),
            "9007199254740991"
        );
        for json in [
            "9007199254740992",
            "-1",
            "7.0",
            "7e0",
            "null",
            "true",
            "[7]",
            "{}",
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_room_is_named_after_the_user() {
        assert_eq!(UserId::try_from("123").unwrap().room(), "user:123");
    }
}
