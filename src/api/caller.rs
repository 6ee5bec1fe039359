//! Who makes a request, and of what: a handler that asks for one of these runs for nobody else.
//!
//! Tokens can be revoked before they expire, and only the store knows. A [`Reader`] yields its user only together
//! with a snapshot that says which tokens are revoked, an [`Actor`] has asked beforehand, and a [`Publisher`] is
//! checked against what this node has known for at most 5 s: so no handler can forget it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use uuid::Uuid;

use super::State;
use super::answer::Acting;
use super::problem::Problem;
use super::query;
use crate::auth::{BearerError, Identity, Lifetime, Refusal, bearer, presented};
use crate::store::{Found, Missed, Page, Standing, ValidAfter};
use crate::user::UserId;

/// Whoever has a token and reads their own inbox.
pub(super) struct Reader(Identity);

/// Whoever has a token and changes their own inbox. Costs one more key look-up than a [`Reader`].
pub(super) struct Actor(pub(super) UserId);

/// Whoever may publish for any user, by a token or by an API key.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The owner of idempotency keys and limits: those of different publishers never meet.
    pub(super) name: String,
}

/// A request may carry one credential: which of two is meant cannot be known.
enum Credential<'s> {
    Token(Identity),
    /// An API key, by its name.
    Key(&'s str),
}

/// What the store answers about one user, with what it says about that user's tokens at that moment.
pub(super) trait Snapshot {
    fn valid_after(&self) -> ValidAfter;
}

impl Snapshot for Standing {
    fn valid_after(&self) -> ValidAfter {
        self.valid_after
    }
}

impl Snapshot for Page {
    fn valid_after(&self) -> ValidAfter {
        self.valid_after
    }
}

impl Snapshot for Found {
    fn valid_after(&self) -> ValidAfter {
        self.valid_after
    }
}

impl Snapshot for Missed {
    fn valid_after(&self) -> ValidAfter {
        self.valid_after
    }
}

impl Reader {
    /// Reads what `read` asks for, and answers it with whose it is, unless the token is revoked by then.
    pub(super) async fn read<T: Snapshot>(
        self,
        read: impl AsyncFnOnce(UserId) -> Result<T, Problem>,
    ) -> Result<(UserId, T), Problem> {
        let Identity { user, lifetime, .. } = self.0;
        let snapshot = read(user.clone()).await?;
        refuse_revoked(lifetime, snapshot.valid_after())?;
        Ok((user, snapshot))
    }
}

/// A new token is what cures it, so a revoked one counts as expired.
pub(super) fn refuse_revoked(lifetime: Lifetime, valid_after: ValidAfter) -> Result<(), Problem> {
    if valid_after.is_some_and(|valid_after| lifetime.is_revoked(valid_after)) {
        return Err(Refusal::Revoked.into());
    }
    Ok(())
}

impl FromRequestParts<Arc<State>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        user(parts, state).map(Self)
    }
}

impl FromRequestParts<Arc<State>> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let Identity { user, lifetime, .. } = user(parts, state)?;
        refuse_revoked(lifetime, state.store.standing(&user).await?.valid_after)?;
        Ok(Self(user))
    }
}

fn user(parts: &Parts, state: &State) -> Result<Identity, Problem> {
    match credential(parts, state)? {
        Credential::Token(identity) => {
            query::refuse_unknown(parts)?;
            Ok(identity)
        }
        Credential::Key(_) => Err(Problem::Forbidden(
            "An API key is no user: this needs a user's token.",
        )),
    }
}

impl FromRequestParts<Arc<State>> for Publisher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let (name, shown) = match credential(parts, state)? {
            Credential::Key(name) => (format!("key:{name}"), format!("key:{name}")),
            Credential::Token(identity) => {
                let shown = format!("token:{}", state.user_ids.show(&identity.user));
                Acting::is(parts, &shown);
                if !identity.publisher {
                    return Err(Problem::Forbidden(
                        "This needs a token with the scope notifications:publish, or an API key.",
                    ));
                }
                state.revocations.check(&state.store, &identity).await?;
                (identity.publisher_name(), shown)
            }
        };
        Acting::is(parts, &shown);
        query::refuse_unknown(parts)?;
        Ok(Self { name })
    }
}

fn credential<'s>(parts: &Parts, state: &'s State) -> Result<Credential<'s>, Problem> {
    let token = bearer(&parts.headers);
    let key = presented(&parts.headers)?;
    match (token, key) {
        // Another scheme is as good as no header: a proxy may have asked for one of its own.
        (Err(BearerError::Refused(Refusal::Missing)), Some(key)) => {
            Ok(Credential::Key(state.api_keys.name_of(key)?))
        }
        (Err(error), _) => Err(error.into()),
        (Ok(_), Some(_)) => Err(Problem::malformed(
            "credentials_ambiguous",
            "Send Authorization: Bearer or X-API-Key, not both.",
        )),
        (Ok(token), None) => Ok(Credential::Token(state.verifier.verify(token)?)),
    }
}

/// The `{userId}` of a path, percent-decoded once: whom a publisher asks about or acts upon.
pub(super) struct Addressee(pub(super) UserId);

impl FromRequestParts<Arc<State>> for Addressee {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let Ok(params) = RawPathParams::from_request_parts(parts, state).await else {
            return Err(not_a_user_id());
        };
        let mut values = params.iter().filter(|(name, _)| *name == "userId");
        let user = values.next().map(|(_, value)| UserId::try_from(value));
        user.and_then(Result::ok)
            .map(Self)
            .ok_or_else(not_a_user_id)
    }
}

fn not_a_user_id() -> Problem {
    Problem::malformed(
        "user_id_invalid",
        "A userId is 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -",
    )
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
    use http::{HeaderMap, HeaderValue, StatusCode};

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
