//! `bellhop check-token`: whether a node with these settings believes a token; if not, which rule refuses it, and what to change.

mod reason;

use std::io::Read as _;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde_json::{Value, json};

use self::reason::Reason;
use super::{Failure, say};
use crate::auth::{Identity, PUBLISH_SCOPE, Verifier, is_api_key};
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
#[command(mut_arg("api_keys", |node| node.hide(true)))]
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
        let hint = reason::unread_scope(&token);
        if self.json {
            say(finding.json(hint))?;
        } else {
            finding.text(hint).into_iter().try_for_each(say)?;
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
        if is_api_key(token) {
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

    /// `hint`: what the token says in vain.
    fn json(&self, hint: Option<&str>) -> Value {
        match self {
            Self::Believed { identity, asked } => json!({
                "believed": true,
                "userId": identity.user,
                "publisher": identity.publisher,
                "hint": hint,
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

    fn text(&self, hint: Option<&str>) -> Vec<String> {
        match self {
            Self::Believed { identity, asked } => believed(identity, *asked, hint),
            Self::Refused(reason) => vec![
                format!("✗ refused ({}): {}", reason.code, reason.rule),
                format!("  decided by: {}", reason.decided_by.join(", ")),
                format!("  what to do: {}", reason.fix),
            ],
        }
    }
}

fn believed(identity: &Identity, asked: bool, hint: Option<&str>) -> Vec<String> {
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
    lines.extend(hint.map(|hint| format!("  ! {hint}")));
    if asked {
        lines.push("  revoked: no".to_owned());
    }
    lines
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
