//! The header that carries a token: `Authorization: Bearer`, for REST and for the Socket.IO handshake alike.

use http::{HeaderMap, header};

use super::Refusal;

/// Why the headers yield no token to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// Which of them is meant cannot be known, and a proxy may have looked at another one than we would.
    #[error("there is more than one Authorization header")]
    Repeated,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<BearerError> for Refusal {
    /// For callers whose answers have no word for a repeated header.
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Repeated => Self::Invalid("there is more than one Authorization header"),
            BearerError::Refused(refusal) => refusal,
        }
    }
}

/// The token of the one `Authorization` header (RFC 6750 section 2.1), not verified yet.
///
/// The scheme's case does not matter (RFC 9110 section 11.1). Another scheme is as good as no header. Tokens in
/// the query or in a cookie are not looked at.
pub fn bearer(headers: &HeaderMap) -> Result<&str, BearerError> {
    let mut values = headers.get_all(header::AUTHORIZATION).into_iter();
    let Some(value) = values.next() else {
        return Err(Refusal::Missing.into());
    };
    if values.next().is_some() {
        return Err(BearerError::Repeated);
    }
    let Ok(text) = value.to_str() else {
        return Err(Refusal::Invalid("the Authorization header is not ASCII").into());
    };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(token.trim_start_matches(' '))
        }
        Some(_) | None => Err(Refusal::Missing.into()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(values: &[&[u8]]) -> Result<String, BearerError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn a_token_comes_in_one_header() {
        for value in ["Bearer a.b.c", "bearer  a.b.c", "BEARER a.b.c"] {
            assert_eq!(found(&[value.as_bytes()]), Ok("a.b.c".to_owned()));
        }
        for values in [
            &[][..],
            &[&b"Basic YTpi"[..]][..],
            &[b"Bearer"],
            &[b"a.b.c"],
        ] {
            let missing = BearerError::Refused(Refusal::Missing);
            assert_eq!(found(values), Err(missing), "{values:?}");
        }
        let not_ascii = found(&[b"Bearer \xff"]).unwrap_err();
        assert_eq!(Refusal::from(not_ascii).code(), "token_invalid");
    }

    #[test]
    fn two_headers_are_refused_even_if_they_agree() {
        for second in [&b"Bearer a.b.c"[..], b"Basic YTpi"] {
            let found = found(&[b"Bearer a.b.c", second]);
            assert_eq!(found, Err(BearerError::Repeated));
        }
        assert_eq!(Refusal::from(BearerError::Repeated).code(), "token_invalid");
    }
}
