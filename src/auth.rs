//! Who is asking: a token goes in, and a user or the rule that refuses it comes out.

mod api_key;
mod believed;
mod claims;
mod header;
mod key;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize as _;
use serde_json::{Value, json};

pub use self::api_key::{API_KEY_PREFIX, ApiKeyError, ApiKeys, is_api_key, presented};
use self::believed::Believed;
use self::claims::{Claims, has_critical_header, numeric_date};
pub use self::header::{BearerError, bearer};
use self::key::read_public_key;
use crate::config::{self, Secret};
use crate::user::UserId;

/// The scope of those who may publish for others.
pub const PUBLISH_SCOPE: &str = "notifications:publish";

/// How far the clocks of the issuer and of this node may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 30;

/// Longer ones are not looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The end of the year 9999: later expiries count as this one, so that adding to it cannot overflow.
const LATEST_EXPIRY: u64 = 253_402_300_799;

/// Shorter HS256 secrets can be guessed (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Who asks, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    /// May publish for any user.
    pub publisher: bool,
    pub lifetime: Lifetime,
}

/// From when until when a token asks to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its `iat`, in seconds since 1970.
    pub issued_at: Option<u64>,
    /// Its `exp`, in seconds since 1970. It is believed for [`LEEWAY_SECONDS`] longer.
    pub expires_at: u64,
}

impl Lifetime {
    /// Whether tokens issued at or before `valid_after`, in milliseconds since 1970, being revoked, this
    /// one is. One that does not say when it was issued counts as older.
    #[must_use]
    pub fn is_revoked(self, valid_after: u64) -> bool {
        self.issued_at
            .is_none_or(|issued_at| issued_at.saturating_mul(1_000) <= valid_after)
    }
}

impl Identity {
    /// The owner of idempotency keys: those of different publishers never meet.
    #[must_use]
    pub fn publisher_name(&self) -> String {
        format!("token:{}", self.user)
    }
}

/// Why nobody is believed to be asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no token")]
    Missing,
    /// Which rule refused it: for the log. The caller learns only that one did.
    #[error("the token is refused: {0}")]
    Invalid(&'static str),
    #[error("the token has expired")]
    Expired,
    /// To the caller as good as expired: a new one cures it.
    #[error(
        "tokens of this user that were issued until a time were revoked, and this one was, or has no iat"
    )]
    Revoked,
}

impl Refusal {
    /// As REST and `connect_error` spell it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Invalid(_) => "token_invalid",
            Self::Expired | Self::Revoked => "token_expired",
        }
    }
}

/// Why tokens cannot be verified with these settings; the text names the one to change.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    #[error("no key: set JWT_SECRET or JWT_PUBLIC_KEY_FILE")]
    NoKey,
    #[error("JWT_SECRET needs 32 bytes or more: openssl rand -hex 32 makes one")]
    SecretTooShort,
    #[error("JWT_PUBLIC_KEY_FILE {path} cannot be read")]
    KeyFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("JWT_PUBLIC_KEY_FILE {path}: {reason}")]
    UnusableKey { path: PathBuf, reason: &'static str },
}

/// Believes tokens that one key signed, by the one algorithm that this key is for (RFC 8725 section 3.1).
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    key: DecodingKey,
    validation: Validation,
    user_claim: String,
    /// In seconds; 0: any.
    max_lifetime: u64,
    believed: Believed,
}

impl Verifier {
    /// Tokens are signed with the private half of `JWT_PUBLIC_KEY_FILE` if that is set, else with `secret`.
    pub fn new(auth: &config::Auth, secret: Option<&Secret>) -> Result<Self, AuthSetupError> {
        let (key, algorithm) = match (&auth.jwt_public_key_file, secret) {
            (Some(path), _) => read_public_key(path.clone())?,
            (None, Some(secret)) if secret.expose().len() < MIN_SECRET_BYTES => {
                return Err(AuthSetupError::SecretTooShort);
            }
            (None, Some(secret)) => (
                DecodingKey::from_secret(secret.expose().as_bytes()),
                Algorithm::HS256,
            ),
            (None, None) => return Err(AuthSetupError::NoKey),
        };

        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        // jsonwebtoken refuses every token that has an audience when none is configured.
        validation.validate_aud = auth.jwt_audience.is_some();
        let mut required = vec!["exp"];
        if let Some(issuer) = &auth.jwt_issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &auth.jwt_audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);

        Ok(Self(Arc::new(Rules {
            key,
            validation,
            user_claim: auth.jwt_user_claim.clone(),
            max_lifetime: auth.token_max_lifetime_seconds,
            believed: Believed::default(),
        })))
    }

    /// Who the token says is asking, if every rule allows it to say so.
    pub fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        if token.is_empty() {
            return Err(Refusal::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Invalid("it is longer than 16 KiB"));
        }
        if is_api_key(token) {
            return Err(Refusal::Invalid(
                "it is an API key, which belongs into the header X-API-Key",
            ));
        }
        if has_critical_header(token) {
            return Err(Refusal::Invalid(
                "its header names extensions that must be understood (crit)",
            ));
        }
        let rules = &*self.0;
        let now = jsonwebtoken::get_current_timestamp();
        if let Some(identity) = rules.believed.recall(token, now) {
            return Ok(identity);
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &rules.key, &rules.validation);
        let claims = decoded.map_err(|error| refusal(&error))?.claims;
        let identity = rules.identity(&claims)?;
        rules.believed.note(token, &identity, now);
        Ok(identity)
    }
}

impl Rules {
    /// What jsonwebtoken does not check, or checks less strictly than RFC 7519 section 4.1 asks.
    fn identity(&self, claims: &Claims) -> Result<Identity, Refusal> {
        if self.validation.iss.is_some() && !claims.get("iss").is_some_and(Value::is_string) {
            return Err(Refusal::Invalid("iss is not a string"));
        }
        let expires_at = claims.get("exp").and_then(numeric_date);
        let expires_at = expires_at.ok_or(Refusal::Invalid("exp is not a number"))?;
        let issued_at = match claims.get("iat") {
            None => None,
            Some(value) => {
                Some(numeric_date(value).ok_or(Refusal::Invalid("iat is not a number"))?)
            }
        };
        // Else a token from the future would outlive a revocation of all that were issued until now.
        if issued_at.is_some_and(|at| at > jsonwebtoken::get_current_timestamp() + LEEWAY_SECONDS) {
            return Err(Refusal::Invalid("iat is in the future"));
        }
        self.limit_lifetime(issued_at, expires_at)?;
        let user = claims.get(&self.user_claim);
        let user = user.ok_or(Refusal::Invalid(
            "the claim that JWT_USER_CLAIM names is missing",
        ))?;
        let user = UserId::deserialize(user);
        // The cause would repeat what the token says.
        let Ok(user) = user else {
            return Err(Refusal::Invalid(
                "the claim that JWT_USER_CLAIM names is not a user id",
            ));
        };
        let scope = claims
            .get("scope")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let publisher = scope.split(' ').any(|scope| scope == PUBLISH_SCOPE);
        Ok(Identity {
            user,
            publisher,
            lifetime: Lifetime {
                issued_at,
                expires_at: expires_at.min(LATEST_EXPIRY),
            },
        })
    }
}

impl Rules {
    fn limit_lifetime(&self, issued_at: Option<u64>, expires_at: u64) -> Result<(), Refusal> {
        if self.max_lifetime == 0 {
            return Ok(());
        }
        let issued_at = issued_at.ok_or(Refusal::Invalid(
            "iat is missing, and BELLHOP_TOKEN_MAX_LIFETIME_SECONDS is set",
        ))?;
        if expires_at.saturating_sub(issued_at) > self.max_lifetime {
            return Err(Refusal::Invalid(
                "exp is later after iat than BELLHOP_TOKEN_MAX_LIFETIME_SECONDS allows",
            ));
        }
        Ok(())
    }
}

/// The rule that jsonwebtoken applied, in our words: its own may repeat the token.
fn refusal(error: &Error) -> Refusal {
    Refusal::Invalid(match error.kind() {
        ErrorKind::ExpiredSignature => return Refusal::Expired,
        ErrorKind::InvalidSignature => {
            "the signature does not match JWT_SECRET or JWT_PUBLIC_KEY_FILE"
        }
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "its algorithm is not the one of the configured key"
        }
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            match name.as_str() {
                "exp" => "exp is missing or not a number",
                "nbf" => "nbf is not a number",
                "iss" => "iss is missing, and JWT_ISSUER is set",
                "aud" => "aud is missing or malformed, and JWT_AUDIENCE is set",
                _ => "a claim is missing or malformed",
            }
        }
        ErrorKind::InvalidIssuer => "iss is not JWT_ISSUER",
        ErrorKind::InvalidAudience => "aud is not JWT_AUDIENCE",
        ErrorKind::ImmatureSignature => "nbf is in the future",
        ErrorKind::Json(_) => {
            "its header or claims are not objects of the right form, or name one twice"
        }
        ErrorKind::Base64(_) | ErrorKind::Utf8(_) => "it is not base64url",
        ErrorKind::InvalidToken => "it has not three parts",
        ErrorKind::InvalidSubject
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_)
        | ErrorKind::RsaFailedSigning
        | ErrorKind::Signing(_)
        | ErrorKind::UnsupportedAlgorithm
        | ErrorKind::InvalidKeyFormat
        | ErrorKind::MissingAlgorithm
        | ErrorKind::Provider(_)
        | _ => "it cannot be verified",
    })
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SigningError(#[source] Error);

/// A token for `user` that a node with the same settings believes for the time `ttl`.
///
/// Carries the configured issuer and audience, and names the user by the configured claim.
pub fn sign_hs256(
    auth: &config::Auth,
    secret: &Secret,
    user: &UserId,
    scope: Option<&str>,
    ttl: Duration,
) -> Result<String, SigningError> {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = BTreeMap::from([
        ("iat", json!(now)),
        (
            "exp",
            json!(now.saturating_add(ttl.as_secs()).min(LATEST_EXPIRY)),
        ),
        (auth.jwt_user_claim.as_str(), json!(user)),
    ]);
    let optional = [
        ("scope", scope),
        ("iss", auth.jwt_issuer.as_deref()),
        ("aud", auth.jwt_audience.as_deref()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            claims.insert(name, json!(value));
        }
    }
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(SigningError)
}

#[cfg(test)]
mod tests;
