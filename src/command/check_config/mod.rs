//! `bellhop check-config`: the settings, checked without starting anything.

mod production;
mod sticky;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Ended, Failure, say};
use crate::auth::Verifier;
use crate::config::{self, Auth, Config, SecretError};

/// What an admin address that others reach means.
const EXPOSED: &str = "whoever reaches it reads the metrics, so never expose it to the internet";

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Also go through the checklist of production, point by point, and try what can be tried from here.
    #[arg(long)]
    production: bool,

    /// How many nodes there are, or are to be; 1 needs no Redis.
    #[arg(long, requires = "production", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Production")]
    nodes: Option<u32>,

    /// Seconds after which the proxy in front of the nodes gives up a silent connection.
    #[arg(
        long,
        requires = "production",
        default_value_t = 60,
        value_name = "SECONDS",
        help_heading = "Production"
    )]
    proxy_timeout: u64,

    #[command(flatten)]
    config: Config,
}

impl CheckConfig {
    /// `command` is the whole program's: which variables it reads.
    pub(super) async fn run(&self, command: &clap::Command) -> Result<(), Ended> {
        warn_of_misspelt(command)?;
        settings(&self.config)?;
        if !self.production {
            warn_of_public_metrics(&self.config)?;
            return Ok(say(
                "The settings fit together. Nothing was connected to: --production tries what can be tried from here.",
            )?);
        }
        let points = production::points(&self.config, self.nodes, self.proxy_timeout).await;
        let open = points.iter().filter(|point| !point.is_met()).count();
        points.iter().try_for_each(say)?;
        match open {
            0 => Ok(()),
            open => Err(Failure(format!(
                "{open} of the {} points of production are open",
                points.len()
            ))
            .into()),
        }
    }
}

fn warn_of_misspelt(command: &clap::Command) -> Result<(), Failure> {
    config::misspelt(command)
        .iter()
        .try_for_each(|misspelt| say(format_args!("! {misspelt}")))
}

fn settings(config: &Config) -> Result<(), Ended> {
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
        return Err(Ended::unusable(Failure(format!(
            "{} of the settings cannot be used",
            findings.len()
        ))));
    }
    summary(config)
        .into_iter()
        .try_for_each(|line| say(format_args!("✓ {line}")))?;
    Ok(())
}

/// With --production this is part of a point.
fn warn_of_public_metrics(config: &Config) -> Result<(), Failure> {
    if config.listen.admin_listen.ip().is_loopback() {
        return Ok(());
    }
    say(format_args!(
        "! BELLHOP_ADMIN_LISTEN is not loopback: {EXPOSED}"
    ))
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
    let keys = match config.auth.api_keys.as_slice() {
        [] => "none; bellhop key makes one".to_owned(),
        keys => {
            let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
            names.join(", ")
        }
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
        Some(urls) => {
            let places: Vec<_> = urls.each().map(|url| url.place()).collect();
            format!("Redis at {}", places.join(", "))
        }
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
        format!("API keys: {keys}"),
        format!("origins: {origins}"),
    ]
}
