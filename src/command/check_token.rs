//! `bellhop check-token`: whether a node with these settings believes a token; if not, which rule refuses it, and what to change.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde_json::{Map, Value, json};

use super::key::PREFIX;
use super::{Failure, say};
use crate::auth::{Identity, LEEWAY_SECONDS, PUBLISH_SCOPE, Refusal, Verifier};
use crate::config::{Auth, Backends};
use crate::notification::timestamp;
use crate::store::{Store, ValidAfter};
use crate::user::UserId;

/// More of standard input is not read: no token is as long.
const MAX_INPUT: u64 = 64 * 1024;

#[derive(Debug, Args)]
#[expect(
    clippy::doc_markdown,
    reason = "the comments of fields are help text, in which backticks would show"
)]
pub(super) struct CheckToken {
    /// The token; - reads it from standard input, where no other user of this machine sees it.
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Also ask the database (DATABASE_URL) whether the token was revoked.
    #[arg(long)]
    database: bool,

    /// Print the finding as one JSON object.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    auth: Auth,

    #[command(flatten)]
    backends: Backends,
}

impl CheckToken {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let token = self.token()?;
        let secret = self.auth.secret(false)?;
        let verifier = Verifier::new(&self.auth, secret.as_ref())?;
        let finding = match verifier.verify(&token) {
            Err(refusal) => Finding::Refused(Reason::of(refusal, &token, &self.auth)),
            Ok(identity) if self.database => {
                let revoked = self.valid_after(&identity.user).await?;
                Finding::of(identity, Some(revoked))
            }
            Ok(identity) => Finding::of(identity, None),
        };
        if self.json {
            say(finding.json())?;
        } else {
            finding.text().into_iter().try_for_each(say)?;
        }
        match finding {
            Finding::Believed { .. } => Ok(()),
            Finding::Refused(_) => {
                Err(Failure::new("a node with these settings refuses the token"))
            }
        }
    }

    /// The token, without what people copy along with it.
    fn token(&self) -> Result<String, Failure> {
        let mut text = self.token.clone();
        if text == "-" {
            text.clear();
            std::io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
        }
        let text = text.trim();
        let token = text.strip_prefix("Bearer ").unwrap_or(text).trim_start();
        if token.starts_with(PREFIX) && !token.contains('.') {
            return Err(Failure::new(
                "this is an API key, not a token: it goes into the header X-API-Key, and its SHA-256 into BELLHOP_API_KEYS",
            ));
        }
        Ok(token.to_owned())
    }

    /// Up to when the user's tokens are revoked.
    async fn valid_after(&self, user: &UserId) -> Result<ValidAfter, Failure> {
        let url = self.backends.database_url.expose();
        if let Some(file) = missing_file(url) {
            return Err(Failure(format!(
                "there is no database {file}: set DATABASE_URL to the nodes', or leave out --database"
            )));
        }
        let asked = async {
            let store = Store::open(url, 1).await?;
            let standing = store.standing(user).await;
            store.close().await;
            standing
        };
        let standing = asked.await.map_err(|error| {
            let Failure(cause) = error.into();
            Failure(format!(
                "the token is well, but whether it was revoked cannot be asked: {cause}; leave out --database, or try a running node: bellhop listen --token …"
            ))
        })?;
        Ok(standing.valid_after)
    }
}

/// The SQLite file that is not there; opening it would make it.
fn missing_file(url: &str) -> Option<&str> {
    let file = url.strip_prefix("sqlite:")?;
    let file = file.strip_prefix("//").unwrap_or(file);
    let file = file.split('?').next().unwrap_or(file);
    (!Path::new(file).exists()).then_some(file)
}

/// What a node makes of the token.
#[derive(Debug)]
enum Finding {
    Believed {
        identity: Identity,
        /// Whether the database was asked: then nothing in it speaks against the token.
        asked: bool,
    },
    Refused(Reason),
}

/// Why a token is refused, and what to do about it.
#[derive(Debug)]
struct Reason {
    code: &'static str,
    rule: String,
    /// The settings that decide, or the clock.
    decided_by: Vec<&'static str>,
    fix: String,
}

impl Finding {
    fn of(identity: Identity, revoked: Option<ValidAfter>) -> Self {
        let asked = revoked.is_some();
        match revoked.flatten() {
            Some(until) if identity.lifetime.is_revoked(until) => {
                Self::Refused(Reason::revoked(Some(until)))
            }
            Some(_) | None => Self::Believed { identity, asked },
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Believed { identity, asked } => json!({
                "believed": true,
                "userId": identity.user,
                "publisher": identity.publisher,
                "issuedAt": identity.lifetime.issued_at.map(spelled),
                "expiresAt": spelled(identity.lifetime.expires_at),
                "revoked": asked.then_some(false),
            }),
            Self::Refused(reason) => json!({
                "believed": false,
                "code": reason.code,
                "rule": reason.rule,
                "decidedBy": reason.decided_by,
                "fix": reason.fix,
            }),
        }
    }

    fn text(&self) -> Vec<String> {
        match self {
            Self::Believed { identity, asked } => believed(identity, *asked),
            Self::Refused(reason) => vec![
                format!("✗ refused ({}): {}", reason.code, reason.rule),
                format!("  decided by: {}", reason.decided_by.join(", ")),
                format!("  what to do: {}", reason.fix),
            ],
        }
    }
}

fn believed(identity: &Identity, asked: bool) -> Vec<String> {
    let publisher = if identity.publisher {
        "yes".to_owned()
    } else {
        format!("no; the scope {PUBLISH_SCOPE} would make it one")
    };
    let issued = identity.lifetime.issued_at.map_or_else(
        || "not said (iat); it counts as older than any revocation".to_owned(),
        spelled,
    );
    let ends = identity.lifetime.expires_at;
    let mut lines = vec![
        format!("✓ believed: user {}", identity.user),
        format!("  publisher: {publisher}"),
        format!("  issued: {issued}"),
        format!("  ends: {} (in {})", spelled(ends), span(until(ends))),
    ];
    if asked {
        lines.push("  revoked: no".to_owned());
    }
    lines
}

impl Reason {
    /// The rule in the verifier's words, and what the token and the settings say about it.
    fn of(refusal: Refusal, token: &str, auth: &Auth) -> Self {
        let code = refusal.code();
        let claims = claims(token);
        match refusal {
            Refusal::Missing => Self {
                code,
                rule: refusal.to_string(),
                decided_by: vec!["the caller"],
                fix: "give a token: bellhop token --user ID makes one".to_owned(),
            },
            Refusal::Expired => Self::expired(code, &claims),
            Refusal::Revoked => Self::revoked(None),
            Refusal::Invalid(rule) => {
                let decided_by = decided_by(rule);
                let fix = fix(&decided_by, &claims, auth);
                let rule = rule.to_owned();
                Self {
                    code,
                    rule,
                    decided_by,
                    fix,
                }
            }
        }
    }

    fn expired(code: &'static str, claims: &Map<String, Value>) -> Self {
        let ended = claims.get("exp").and_then(Value::as_f64);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is only shown"
        )]
        let when = ended.map_or_else(String::new, |ended| {
            let ended = ended as u64;
            format!(" at {}, {} ago", spelled(ended), span(-until(ended)))
        });
        Self {
            code,
            rule: format!("it has ended{when} (exp; {LEEWAY_SECONDS} s of leeway are over too)"),
            decided_by: vec![EXPIRY, CLOCK],
            fix: format!(
                "get a new one; if it should still be good, compare this machine's clock ({}) with the issuer's",
                timestamp(Utc::now())
            ),
        }
    }

    /// `until` is in milliseconds since 1970, where it is known.
    fn revoked(until: ValidAfter) -> Self {
        let until = until.map_or_else(|| "some time".to_owned(), |until| spelled(until / 1_000));
        Self {
            code: Refusal::Revoked.code(),
            rule: format!("it was revoked: the user's tokens that were issued until {until} are"),
            decided_by: vec!["POST /api/users/{userId}/disconnect", CLOCK],
            fix: "get a new one, with an iat".to_owned(),
        }
    }
}

const EXPIRY: &str = "the token's exp";
const CLOCK: &str = "the clock";

/// The settings that a rule is about: those that it names, else those that it means.
fn decided_by(rule: &str) -> Vec<&'static str> {
    const SETTINGS: [&str; 6] = [
        "JWT_SECRET",
        "JWT_PUBLIC_KEY_FILE",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "JWT_USER_CLAIM",
        "BELLHOP_TOKEN_MAX_LIFETIME_SECONDS",
    ];
    let mut found: Vec<_> = SETTINGS
        .into_iter()
        .filter(|setting| rule.contains(setting))
        .collect();
    if rule.contains("algorithm") {
        found.extend(["JWT_SECRET", "JWT_PUBLIC_KEY_FILE"]);
    }
    if rule.contains("in the future") {
        found.push(CLOCK);
    }
    if found.is_empty() && rule.starts_with("iss ") {
        found.push("JWT_ISSUER");
    }
    if found.is_empty() {
        found.push("the token's form");
    }
    found
}

/// What to change: the deciding setting beside what the token says. It is the caller's own token, and nothing
/// secret of the node's is repeated.
fn fix(decided_by: &[&'static str], claims: &Map<String, Value>, auth: &Auth) -> String {
    let says = |name: &str| {
        claims
            .get(name)
            .map_or_else(|| "absent".to_owned(), Value::to_string)
    };
    let set =
        |value: Option<&str>| value.map_or_else(|| "unset".to_owned(), |text| format!("{text:?}"));
    match decided_by.first().copied().unwrap_or_default() {
        "JWT_SECRET" | "JWT_PUBLIC_KEY_FILE" => key_fix(auth),
        "JWT_ISSUER" => format!(
            "iss is {}, JWT_ISSUER is {}: make them the same",
            says("iss"),
            set(auth.jwt_issuer.as_deref())
        ),
        "JWT_AUDIENCE" => format!(
            "aud is {}, JWT_AUDIENCE is {}: make them the same",
            says("aud"),
            set(auth.jwt_audience.as_deref())
        ),
        "JWT_USER_CLAIM" => {
            let claim = &auth.jwt_user_claim;
            format!(
                "the claim {claim:?} is {}: let it be a user id (1 to 128 of A-Z a-z 0-9 . _ ~ @ : -, or an integer), or set JWT_USER_CLAIM to the claim that is one",
                says(claim)
            )
        }
        "BELLHOP_TOKEN_MAX_LIFETIME_SECONDS" => format!(
            "exp is {}, iat is {}, and at most {} s may be between them: sign shorter ones, with an iat, or raise BELLHOP_TOKEN_MAX_LIFETIME_SECONDS",
            says("exp"),
            says("iat"),
            auth.token_max_lifetime_seconds
        ),
        CLOCK => format!(
            "compare this machine's clock ({}) with the issuer's: {LEEWAY_SECONDS} s may be between them",
            timestamp(Utc::now())
        ),
        _ => "sign it anew with a JWT library, with sub and exp as in: bellhop token --user ID"
            .to_owned(),
    }
}

fn key_fix(auth: &Auth) -> String {
    match (&auth.jwt_secret, &auth.jwt_public_key_file) {
        (_, Some(file)) => format!(
            "sign with the private half of {} (JWT_PUBLIC_KEY_FILE), by RS256, ES256 or EdDSA as that key is",
            file.display()
        ),
        (Some(_), None) => "sign by HS256 with the secret that JWT_SECRET has here, or set JWT_SECRET to the issuer's; look for spaces, quotes and base64 around it".to_owned(),
        (None, None) => format!(
            "JWT_SECRET is not set, so ./{} decides: set JWT_SECRET to the issuer's, or sign with bellhop token",
            Auth::SECRET_FILE
        ),
    }
}

/// What the token says, believed or not; nothing where it cannot be read.
fn claims(token: &str) -> Map<String, Value> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

/// Seconds since 1970, as people read them.
fn spelled(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| seconds.to_string(), timestamp)
}

/// From now until then; negative when it is over.
fn until(seconds: u64) -> TimeDelta {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 1_000);
    TimeDelta::try_seconds(seconds.saturating_sub(Utc::now().timestamp())).unwrap_or(TimeDelta::MAX)
}

/// A length of time in its largest unit.
fn span(time: TimeDelta) -> String {
    match time.num_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        auth: Auth,
    }

    #[test]
    fn a_rule_names_what_decides() {
        for (rule, expected) in [
            (
                "the signature does not match JWT_SECRET or JWT_PUBLIC_KEY_FILE",
                "JWT_SECRET",
            ),
            (
                "its algorithm is not the one of the configured key",
                "JWT_SECRET",
            ),
            ("iss is not JWT_ISSUER", "JWT_ISSUER"),
            ("iss is not a string", "JWT_ISSUER"),
            ("nbf is in the future", CLOCK),
            ("it has not three parts", "the token's form"),
        ] {
            assert_eq!(decided_by(rule)[0], expected, "{rule}");
        }
    }

    #[test]
    fn the_fix_sets_token_and_setting_side_by_side() {
        let auth = Arguments::parse_from(["bellhop", "--jwt-issuer=shop"]).auth;
        let claims: Map<String, Value> = serde_json::from_str(r#"{"iss":"store"}"#).unwrap();
        let says = fix(&["JWT_ISSUER"], &claims, &auth);
        assert_eq!(
            says,
            r#"iss is "store", JWT_ISSUER is "shop": make them the same"#
        );
    }
}
