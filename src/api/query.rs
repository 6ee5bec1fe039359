//! The parameters of a query, and the cursor that leads from one page to the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::problem::{FieldError, Problem};
use crate::notification::Kind;
use crate::user::UserId;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// The largest seq that a database can hold.
const MAX_SEQ: u64 = i64::MAX.unsigned_abs();

/// The parameters of a request; those that nobody takes are ignored.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self {
            pairs: pairs.collect(),
            errors: Vec::new(),
        }
    }

    /// The value of a parameter that is there once.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.pairs.iter().filter(|(found, _)| found == name);
        let value = values.next().map(|(_, value)| value.clone());
        if values.next().is_some() {
            self.refuse(name, "repeated", "one value");
        }
        value
    }

    pub(super) fn limit(&mut self) -> u32 {
        let limit = self.number("limit", "1 to 200", |limit| {
            (1..=u64::from(MAX_LIMIT)).contains(&limit)
        });
        limit
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(DEFAULT_LIMIT)
    }

    /// The seq that the caller has; without one it has nothing.
    pub(super) fn since(&mut self) -> u64 {
        self.number("since", "a seq: 0 or more", |since| since <= MAX_SEQ)
            .unwrap_or(0)
    }

    pub(super) fn unread(&mut self) -> Option<bool> {
        let text = self.text("unread")?;
        let unread = text.parse().ok();
        if unread.is_none() {
            self.refuse("unread", "type_mismatch", "true or false");
        }
        unread
    }

    pub(super) fn kind(&mut self) -> Option<Kind> {
        let text = self.text("type")?;
        let kind = Kind::parse(&text);
        if kind.is_none() {
            self.refuse("type", "pattern_mismatch", "[A-Z][A-Z0-9_]{0,63}");
        }
        kind
    }

    /// Succeeds if no parameter that was taken broke a rule.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let detail = "Each entry of errors names a parameter and what is expected of it.".into();
        Err(Problem::Malformed {
            code: "query_invalid",
            detail,
            errors: self.errors,
        })
    }

    fn number(
        &mut self,
        name: &str,
        expected: &'static str,
        allowed: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let text = self.text(name)?;
        // `parse` alone would take a plus sign too.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text
            .parse()
            .ok()
            .filter(|number| digits && allowed(*number));
        if number.is_none() {
            self.refuse(name, "out_of_range", expected);
        }
        number
    }

    fn refuse(&mut self, name: &str, code: &'static str, expected: &'static str) {
        let pointer = format!("/{name}");
        self.errors.push(FieldError {
            pointer,
            code,
            expected,
        });
    }
}

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

    fn query(text: &str) -> Query {
        Query::of(&format!("/path?{text}").parse().unwrap())
    }

    fn errors(query: Query) -> Vec<String> {
        match query.finish() {
            Err(Problem::Malformed { errors, .. }) => errors
                .iter()
                .map(|error| format!("{} {}", error.pointer, error.code))
                .collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_limit_is_between_1_and_200() {
        for (text, limit) in [
            ("", 50),
            ("limit=1", 1),
            ("limit=200&other=x&other=y", 200),
            ("Limit=x", 50),
        ] {
            let mut query = query(text);
            assert_eq!(query.limit(), limit, "{text}");
            assert!(query.finish().is_ok(), "{text}");
        }
        for value in [
            "",
            "0",
            "-1",
            "201",
            "1001",
            "abc",
            "1e3",
            "1.0",
            "%2B5",
            "18446744073709551616",
            "%FF",
        ] {
            let mut query = query(&format!("limit={value}"));
            query.limit();
            assert_eq!(errors(query), ["/limit out_of_range"], "{value}");
        }
        let mut query = query("limit=5&limit=5");
        query.limit();
        assert_eq!(errors(query), ["/limit repeated"]);
    }

    #[test]
    fn every_parameter_that_breaks_a_rule_is_named() {
        let mut query = query("since=-1&unread=1&type=general&limit=x");
        let (since, unread, kind) = (query.since(), query.unread(), query.kind());
        assert_eq!((since, unread, kind, query.limit()), (0, None, None, 50));
        let expected = [
            "/since out_of_range",
            "/unread type_mismatch",
            "/type pattern_mismatch",
            "/limit out_of_range",
        ];
        assert_eq!(errors(query), expected);
    }

    #[test]
    fn a_seq_is_what_a_database_can_hold() {
        assert_eq!(query("").since(), 0);
        assert_eq!(
            query("since=9223372036854775807").since(),
            9_223_372_036_854_775_807
        );
        for value in ["9223372036854775808", "1.5", "", " 1"] {
            let mut query = query(&format!("since={}", value.replace(' ', "%20")));
            query.since();
            assert_eq!(errors(query), ["/since out_of_range"], "{value}");
        }
    }

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
