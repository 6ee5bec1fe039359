//! What went wrong, as the world sees it: one status, one code and one text per failure.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;
use tokio::task::JoinError;

use super::limits::Exceeded;
use crate::auth::{ApiKeyError, BearerError, Refusal};
use crate::inbox::InboxError;
use crate::publish::PublishError;
use crate::store::StoreError;

/// The only type that a handler may fail with.
///
/// The texts are fixed per kind and safe to show: none repeats what the caller wrote, none shows a
/// cause. The causes are for the log.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The request cannot be read: 400.
    #[error("{detail}")]
    Malformed {
        code: &'static str,
        detail: Cow<'static, str>,
        errors: Vec<FieldError>,
    },
    /// The body can be read, and breaks these rules: 422.
    #[error("the body breaks a rule")]
    Invalid(Vec<FieldError>),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Who it is, is known, and this is not for them; what would be is said.
    #[error("this caller may not do that")]
    Forbidden(&'static str),
    #[error("there is nothing here")]
    NotFound,
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    #[error("the body did not come in time")]
    BodyTimeout,
    #[error("the body is too large")]
    TooLarge,
    #[error("{0}")]
    UnsupportedMediaType(&'static str),
    #[error("the idempotency key was used for another body")]
    KeyReused,
    /// Nothing was done; after a while it may be.
    #[error("there was more than the limits allow")]
    RateLimited(Exceeded),
    /// It is more than a limit ever lets pass at once.
    #[error("this is more at once than the limits ever allow")]
    TooManyForLimit,
    /// The store is away; whether a write happened is unknown.
    #[error("the store is away")]
    StoreAway(#[source] StoreError),
    /// This node has more to do than it can; nothing was done.
    #[error("the node is busy")]
    Overloaded,
    /// It took too long; whether a write happened is unknown.
    #[error("the request took too long")]
    TimedOut,
    #[error("the store failed")]
    StoreFailed(#[source] StoreError),
    #[error("the task of the request ended early")]
    Interrupted(#[source] JoinError),
    #[error("the handler panicked")]
    Panicked,
    #[error("the request could not be answered: {0}")]
    Defect(&'static str),
}

/// An answer lists no more errors than this: a body has room for thousands.
pub(super) const MAX_ERRORS: usize = 100;

/// A name that the caller chose is repeated no further than this.
const MAX_NAME: usize = 64;

/// The code of a field with a time that is over.
pub(super) const TIME_PAST: &str = "time_past";

/// One rule that a field breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where, as a JSON pointer (RFC 6901); in a query, `/name`.
    pub pointer: String,
    pub code: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl FieldError {
    /// A name that the caller chose, as one reference token of a JSON pointer (RFC 6901, section 3), cut to
    /// 64 characters.
    pub(super) fn token(name: &str) -> String {
        let short: String = name.chars().take(MAX_NAME).collect();
        short.replace('~', "~0").replace('/', "~1")
    }
}

impl Problem {
    /// A request that cannot be read, for one reason.
    pub(super) fn malformed(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed {
            code,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::Invalid(_) | Self::KeyReused | Self::TooManyForLimit => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::StoreAway(_) | Self::Overloaded | Self::TimedOut => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::StoreFailed(_) | Self::Interrupted(_) | Self::Panicked | Self::Defect(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// What programs decide by. Fixed: clients rely on it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { code, .. } => code,
            Self::Invalid(_) => "body_invalid",
            Self::Refused(refusal) => refusal.code(),
            Self::Forbidden(_) => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::TooLarge => "body_too_large",
            Self::UnsupportedMediaType(_) => "media_type_unsupported",
            Self::KeyReused => "idempotency_key_reused",
            Self::RateLimited(_) => "rate_limited",
            Self::TooManyForLimit => "too_many_for_limit",
            Self::StoreAway(_) => "storage_unavailable",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed_out",
            Self::StoreFailed(_) | Self::Interrupted(_) | Self::Panicked | Self::Defect(_) => {
                "internal_error"
            }
        }
    }

    /// For people: what to do about it.
    pub(super) fn detail(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Malformed { detail, .. } => return detail.clone(),
            Self::Invalid(_) => {
                "Each entry of errors names a field and what is expected of it. Nothing was written."
            }
            Self::Refused(Refusal::Missing) => {
                "Send Authorization: Bearer and a token; a publisher may send X-API-Key and a key instead."
            }
            Self::Refused(Refusal::Invalid(_)) => {
                "The token or API key is not accepted; the log of the node says why."
            }
            Self::Refused(Refusal::Expired) => "The token has expired; get a new one.",
            Self::Refused(Refusal::Revoked) => {
                "The token was issued before this user's tokens were revoked; get a new one."
            }
            Self::Forbidden(detail) => detail,
            Self::NotFound => "There is no such resource, or not for this user.",
            Self::MethodNotAllowed => "The header Allow lists the methods of this resource.",
            Self::BodyTimeout => "The body did not arrive in time.",
            Self::TooLarge => {
                "A body has at most 32 KiB; 256 KiB with userIds; 2 MiB where it is a batch."
            }
            Self::UnsupportedMediaType(detail) => detail,
            Self::KeyReused => "This Idempotency-Key was used within 24 hours for another body.",
            Self::RateLimited(_) => {
                "Nothing was done. Repeat it after the time that Retry-After says."
            }
            Self::TooManyForLimit => {
                "Nothing was done. It is for more recipients at once than BELLHOP_LIMIT_PUBLISHES_PER_KEY or _PER_USER allows; split it."
            }
            Self::StoreAway(_) | Self::TimedOut => {
                "Whether it was done is not known; repeat it, with the same Idempotency-Key if it had one."
            }
            Self::Overloaded => "The node has too much to do; nothing was done. Repeat it.",
            Self::StoreFailed(_) | Self::Interrupted(_) | Self::Panicked | Self::Defect(_) => {
                "The node failed; its log, under the requestId, says why."
            }
        })
    }

    /// Whether a body broke no rule but one of time: it was good once.
    pub(super) fn is_too_late(&self) -> bool {
        let errors = self.errors();
        !errors.is_empty() && errors.iter().all(|error| error.code == TIME_PAST)
    }

    pub(super) fn errors(&self) -> &[FieldError] {
        match self {
            Self::Malformed { errors, .. } | Self::Invalid(errors) => errors,
            Self::Refused(_)
            | Self::Forbidden(_)
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::BodyTimeout
            | Self::TooLarge
            | Self::UnsupportedMediaType(_)
            | Self::KeyReused
            | Self::RateLimited(_)
            | Self::TooManyForLimit
            | Self::StoreAway(_)
            | Self::Overloaded
            | Self::TimedOut
            | Self::StoreFailed(_)
            | Self::Interrupted(_)
            | Self::Panicked
            | Self::Defect(_) => &[],
        }
    }
}

impl From<BearerError> for Problem {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Repeated => Self::malformed(
                "authorization_repeated",
                "There is more than one Authorization header.",
            ),
            BearerError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        match error {
            ApiKeyError::Repeated => Self::malformed(
                "api_key_repeated",
                "There is more than one X-API-Key header.",
            ),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::StoreAway(error),
            StoreError::KeyReused => Self::KeyReused,
            StoreError::Failed(_) | StoreError::Migration(_) | StoreError::Refused(_) => {
                Self::StoreFailed(error)
            }
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(error) => error.into(),
            PublishError::Interrupted(error) => Self::Interrupted(error),
        }
    }
}

impl From<InboxError> for Problem {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Store(error) => error.into(),
            InboxError::NotFound => Self::NotFound,
            InboxError::Interrupted(error) => Self::Interrupted(error),
        }
    }
}
