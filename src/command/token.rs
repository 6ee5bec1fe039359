//! `bellhop token`: a token for a user, signed with the node's secret.

use std::time::Duration;

use clap::Args;

use super::{Failure, say, target};
use crate::config::Auth;
use crate::user::UserId;

#[derive(Debug, Args)]
#[command(mut_arg("api_keys", |node| node.hide(true)))]
pub(super) struct Token {
    /// The user that the token is for.
    #[arg(long, value_name = "ID")]
    user: UserId,

    /// Space-separated scopes; notifications:publish lets it publish.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,

    /// How long it is valid: a number with s, m, h or d; a bare number is seconds.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = lifetime)]
    ttl: Duration,

    #[command(flatten)]
    auth: Auth,
}

impl Token {
    pub(super) fn run(&self) -> Result<(), Failure> {
        say(target::sign(
            &self.auth,
            &self.user,
            self.scope.as_deref(),
            self.ttl,
        )?)
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" | "" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let lifetime = seconds
        .zip(digits.parse::<u64>().ok())
        .and_then(|(unit, count)| count.checked_mul(unit));
    match lifetime {
        Some(seconds) if (1..=86_400 * 3_650).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        Some(_) | None => Err("give a time from 1s to 3650d, as in 90s, 15m, 1h or 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_a_unit() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("1h", 3_600),
            ("7d", 604_800),
        ] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "h",
            "0s",
            "1w",
            "-1h",
            "1.5h",
            "99999999999999999999d",
            "3651d",
            "1 h",
        ] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
