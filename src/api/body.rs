//! Takes a body in: so much and no more, in so much time, JSON and nothing else.

use std::error::Error;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::State;
use super::fields::Fields;
use super::problem::Problem;

/// What a body may have in bytes.
pub(super) const LIMIT: usize = 32 * 1024;

/// What a body with `userIds` may have in bytes.
pub(super) const LIMIT_WITH_USER_IDS: usize = 256 * 1024;

/// What a body with many notifications may have in bytes, and so any body that nobody reads.
pub(super) const LIMIT_OF_A_BATCH: usize = 2 * 1024 * 1024;

/// The body of a request for one user; empty if there is none.
pub(super) struct Small(pub(super) Bytes);

/// The body of a request that may name many users.
pub(super) struct Large(pub(super) Bytes);

/// The body of a request with many notifications.
pub(super) struct Huge(pub(super) Bytes);

impl FromRequest<Arc<State>> for Huge {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, Problem> {
        read(request, state, LIMIT_OF_A_BATCH).await.map(Self)
    }
}

impl FromRequest<Arc<State>> for Small {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, Problem> {
        read(request, state, LIMIT).await.map(Self)
    }
}

impl FromRequest<Arc<State>> for Large {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, Problem> {
        let body = read(request, state, LIMIT_WITH_USER_IDS).await?;
        let fits =
            body.len() <= LIMIT || Fields::of(&body).is_ok_and(|fields| fields.has("userIds"));
        fits.then_some(Self(body)).ok_or(Problem::TooLarge)
    }
}

async fn read(request: Request, state: &State, limit: usize) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    refuse_encodings(&parts.headers)?;
    // Unread, so that nothing is sent in vain; whoever says nothing finds out while it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::TooLarge);
    }
    let reading = tokio::time::timeout(
        state.options.body_deadline,
        Limited::new(body, limit).collect(),
    );
    let Ok(read) = reading.await else {
        return Err(Problem::BodyTimeout);
    };
    let body = read.map_err(|error| unreadable(&*error))?.to_bytes();
    if !body.is_empty() {
        refuse_other_than_json(&parts.headers)?;
    }
    Ok(body)
}

/// Nothing is decompressed, so that nothing small can become large.
fn refuse_encodings(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(Problem::UnsupportedMediaType(
        "Send the body without a Content-Encoding.",
    ))
}

/// One `Content-Type`, `application/json`, and where it names a charset, UTF-8 (RFC 8259 section 8.1).
fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), Problem> {
    const EXPECTED: Problem =
        Problem::UnsupportedMediaType("Send the body with Content-Type: application/json.");
    let mut values = headers.get_all(header::CONTENT_TYPE).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(EXPECTED);
    };
    let Ok(text) = value.to_str() else {
        return Err(EXPECTED);
    };
    let mut parts = text.split(';').map(str::trim);
    if !parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
    {
        return Err(EXPECTED);
    }
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let is_utf8 = value.trim_matches('"').eq_ignore_ascii_case("utf-8");
        if name.eq_ignore_ascii_case("charset") && !is_utf8 {
            return Err(Problem::malformed(
                "utf8_invalid",
                "JSON is UTF-8: send it so, or name no charset.",
            ));
        }
    }
    Ok(())
}

/// Too long, or cut off by whoever sends it.
fn unreadable(error: &(dyn Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return Problem::TooLarge;
        }
        cause = error.source();
    }
    Problem::malformed("body_incomplete", "The body did not arrive as a whole.")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(name: &header::HeaderName, values: &[&'static str]) -> u16 {
        let values = values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_static(value)));
        let headers: HeaderMap = values.collect();
        let checked = if *name == header::CONTENT_TYPE {
            refuse_other_than_json(&headers)
        } else {
            refuse_encodings(&headers)
        };
        checked.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_body_is_json() {
        for (values, expected) in [
            (&["application/json"][..], 200),
            (&["Application/JSON; charset=UTF-8"], 200),
            (&["application/json;charset=\"utf-8\""], 200),
            (&["application/json; profile=x"], 200),
            (&[], 415),
            (&[""], 415),
            (&["text/plain"], 415),
            (&["application/jsonp"], 415),
            (&["application/x-www-form-urlencoded"], 415),
            (&["application/json", "application/json"], 415),
            (&["application/json; charset=utf-16"], 400),
            (&["application/json; charset"], 400),
        ] {
            assert_eq!(
                status(&header::CONTENT_TYPE, values),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn nothing_is_decompressed() {
        for (values, expected) in [
            (&[][..], 200),
            (&["identity"], 200),
            (&["gzip"], 415),
            (&["identity", "br"], 415),
            (&["identity, gzip"], 415),
        ] {
            assert_eq!(
                status(&header::CONTENT_ENCODING, values),
                expected,
                "{values:?}"
            );
        }
    }
}
