//! The parameters of a query: each once, each by its rule, and none that nobody takes.

use axum::extract::{FromRequestParts, MatchedPath};
use http::request::Parts;
use http::{Method, Uri};
use url::form_urlencoded;

use super::problem::{FieldError, MAX_ERRORS, Problem};
use crate::notification::Kind;

pub(super) const DEFAULT_LIMIT: u32 = 50;
pub(super) const MAX_LIMIT: u32 = 200;

/// The largest seq that a database can hold.
pub(super) const MAX_SEQ: u64 = i64::MAX.unsigned_abs();

/// What takes parameters, each by a [`Query`] that is asked for all that there are.
const WITH_PARAMETERS: [&str; 3] = [
    "/api/notifications",
    "/api/notifications/changes",
    "/api/users/{userId}",
];

/// The parameters of a request. One that nobody takes is an error: whoever sent it meant something by it.
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
        let mut values = self.pairs.extract_if(.., |(found, _)| found == name);
        let value = values.next().map(|(_, value)| value);
        if values.count() > 0 {
            self.refuse(name, "repeated", "one value");
        }
        value
    }

    /// How many at most: 1 to 200, and `default` where nothing is said.
    pub(super) fn limit(&mut self, default: u32) -> u32 {
        let limit = self.number("limit", "1 to 200", |limit| {
            (1..=u64::from(MAX_LIMIT)).contains(&limit)
        });
        limit
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(default)
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

    /// Succeeds if no parameter broke a rule and none is left.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        self.pairs.sort_unstable();
        self.pairs.dedup_by(|one, other| one.0 == other.0);
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.refuse(
                &FieldError::token(&name),
                "unknown_parameter",
                "a parameter that this request has",
            );
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.truncate(MAX_ERRORS);
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

/// Refuses parameters where a request has none. Requests that have some take them by a [`Query`].
pub(super) fn refuse_unknown(parts: &Parts) -> Result<(), Problem> {
    let route = parts.extensions.get::<MatchedPath>();
    let has_some = route.is_some_and(|route| WITH_PARAMETERS.contains(&route.as_str()));
    if has_some && matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Query::of(&parts.uri).finish()
}

/// A request that anyone may make, and that has no parameters.
pub(super) struct NoParameters;

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        refuse_unknown(parts).map(|()| Self)
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
        for (text, limit) in [("", 50), ("limit=1", 1), ("limit=200", 200)] {
            let mut query = query(text);
            assert_eq!(query.limit(50), limit, "{text}");
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
            query.limit(50);
            assert_eq!(errors(query), ["/limit out_of_range"], "{value}");
        }
        let mut query = query("limit=5&limit=5");
        query.limit(50);
        assert_eq!(errors(query), ["/limit repeated"]);
    }

    #[test]
    fn a_parameter_that_nobody_takes_is_an_error() {
        let mut query = query("limit=7&unraed=true&a/b~c=1&unraed=x&Limit=3&");
        assert_eq!(query.limit(50), 7);
        assert_eq!(
            errors(query),
            [
                "/Limit unknown_parameter",
                "/a~1b~0c unknown_parameter",
                "/unraed unknown_parameter"
            ]
        );
        let many: String = (0..1_000).map(|number| format!("&n{number}=1")).collect();
        assert_eq!(errors(super::tests::query(&many)).len(), MAX_ERRORS);
    }

    #[test]
    fn every_parameter_that_breaks_a_rule_is_named() {
        let mut query = query("since=-1&unread=1&type=general&limit=x");
        let (since, unread, kind) = (query.since(), query.unread(), query.kind());
        assert_eq!((since, unread, kind, query.limit(50)), (0, None, None, 50));
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
}
