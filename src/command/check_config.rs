//! `bellhop check-config`: the settings, checked without starting anything.

use tracing_subscriber::EnvFilter;

use super::{Failure, say};
use crate::auth::Verifier;
use crate::config::{Auth, Config, SecretError};

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let mut findings = config.contradictions();
    if findings.is_empty()
        && let Err(error) = keys(&config.auth)
    {
        findings.push(error.0);
    }
    if let Err(error) = EnvFilter::try_new(&config.logs.log) {
        findings.push(format!("RUST_LOG: {error}"));
    }
    for finding in &findings {
        say(format_args!("✗ {finding}"))?;
    }
    if !findings.is_empty() {
        return Err(Failure::new(format!(
            "{} of the settings cannot be used",
            findings.len()
        )));
    }
    summary(config)
        .into_iter()
        .try_for_each(|line| say(format_args!("✓ {line}")))?;
    if config.listen.admin_listen.ip().is_loopback() {
        return Ok(());
    }
    say(
        "! BELLHOP_ADMIN_LISTEN is not loopback: whoever reaches it reads the metrics, so never expose it to the internet",
    )
}

/// Whether tokens can be verified with what is configured. A secret that is still to be generated is fine.
fn keys(auth: &Auth) -> Result<(), Failure> {
    let secret = match auth.secret(false) {
        Ok(secret) => secret,
        Err(SecretError::Missing) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    Verifier::new(auth, secret.as_ref())?;
    Ok(())
}

fn summary(config: &Config) -> Vec<String> {
    let tokens = match (&config.auth.jwt_secret, &config.auth.jwt_public_key_file) {
        (Some(_), _) => "HS256 with JWT_SECRET".to_owned(),
        (None, Some(file)) => format!("by the public key in {}", file.display()),
        (None, None) => format!(
            "HS256 with a development secret in ./{} (embedded default)",
            Auth::SECRET_FILE
        ),
    };
    let origins = match config.listen.cors_origins.as_slice() {
        [] if config.auth.is_embedded() => "its own, and every origin on this machine".to_owned(),
        [] => "its own only; set CORS_ORIGINS for pages served elsewhere".to_owned(),
        origins => origins.join(", "),
    };
    let store = if config.backends.is_sqlite() {
        "SQLite (one node)".to_owned()
    } else {
        format!("PostgreSQL at {}", config.backends.database_url.place())
    };
    let bus = match &config.backends.redis_url {
        Some(url) => format!("Redis at {}", url.place()),
        None => "none (one node)".to_owned(),
    };
    vec![
        format!(
            "listens on {}, admin on {}",
            config.listen.listen, config.listen.admin_listen
        ),
        format!("store: {store}"),
        format!("bus: {bus}"),
        format!("tokens: {tokens}"),
        format!("origins: {origins}"),
    ]
}
