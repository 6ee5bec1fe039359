//! Who makes a request, and of what: a handler that asks for a [`Caller`] or a [`Publisher`] runs for nobody else.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::HeaderMap;
use http::request::Parts;
use uuid::Uuid;

use super::State;
use super::problem::Problem;
use crate::auth::{Identity, bearer};
use crate::user::UserId;

/// Whoever has a token: acts on the inbox of its own user, and on no other.
pub(super) struct Caller(pub(super) UserId);

/// Whoever may publish for any user.
pub(super) struct Publisher(pub(super) Identity);

impl FromRequestParts<Arc<State>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        identify(&parts.headers, state).map(|identity| Self(identity.user))
    }
}

impl FromRequestParts<Arc<State>> for Publisher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let identity = identify(&parts.headers, state)?;
        if !identity.publisher {
            return Err(Problem::Forbidden);
        }
        Ok(Self(identity))
    }
}

fn identify(headers: &HeaderMap, state: &State) -> Result<Identity, Problem> {
    Ok(state.verifier.verify(bearer(headers)?)?)
}

/// The `{id}` of a path. What is not an id is as unknown as an id that does not exist.
pub(super) struct Id(pub(super) Uuid);

impl FromRequestParts<Arc<State>> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let Ok(params) = RawPathParams::from_request_parts(parts, state).await else {
            return Err(Problem::NotFound);
        };
        let id = params
            .iter()
            .find_map(|(name, value)| (name == "id").then(|| uuid(value)));
        id.flatten().map(Self).ok_or(Problem::NotFound)
    }
}

/// In the one spelling that we answer with (RFC 9562 section 4), in either case.
fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use http::{HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn a_repeated_header_is_a_malformed_request_and_a_missing_one_a_refusal() {
        let mut headers = HeaderMap::new();
        let problem = Problem::from(bearer(&headers).unwrap_err());
        assert_eq!(
            (problem.status(), problem.code()),
            (StatusCode::UNAUTHORIZED, "token_missing")
        );

        for _ in 0..2 {
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        }
        let problem = Problem::from(bearer(&headers).unwrap_err());
        assert_eq!(
            (problem.status(), problem.code()),
            (StatusCode::BAD_REQUEST, "authorization_repeated")
        );
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = "0198f1c2-0000-7000-8000-000000000001";
        assert_eq!(uuid(id).unwrap().to_string(), id);
        assert!(uuid(&id.to_uppercase()).is_some());
        for text in [
            "",
            "7",
            "0198f1c2000070008000000000000001",
            "{0198f1c2-0000-7000-8000-000000000001}",
            "%00",
        ] {
            assert_eq!(uuid(text), None, "{text}");
        }
    }
}
