//! Why a token is refused: the rule in the verifier's words, which setting decides, and what to change.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::Utc;
use serde_json::{Map, Value};

use super::{span, spelled, until};
use crate::auth::{LEEWAY_SECONDS, Refusal};
use crate::config::Auth;
use crate::notification::timestamp;
use crate::store::ValidAfter;

/// Why a token is refused, and what to do about it.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) code: &'static str,
    pub(super) rule: String,
    /// The settings that decide, or the clock.
    pub(super) decided_by: Vec<&'static str>,
    pub(super) fix: String,
}

impl Reason {
    /// The rule in the verifier's words, and what the token and the settings say about it.
    pub(super) fn of(refusal: Refusal, token: &str, auth: &Auth) -> Self {
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
    pub(super) fn revoked(until: ValidAfter) -> Self {
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

/// Why a scope that the token has counts for nothing; `None` where it is read, or where there is none.
pub(super) fn unread_scope(token: &str) -> Option<&'static str> {
    let is_text = claims(token).get("scope")?.is_string();
    (!is_text).then_some(
        "scope is not a string, so it counts for nothing: it has to be one string, with spaces between the scopes",
    )
}

/// What the token says, believed or not; nothing where it cannot be read.
fn claims(token: &str) -> Map<String, Value> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
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
