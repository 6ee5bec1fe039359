//! `bellhop serve`: runs a node until it is told to stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Ended, Failure, say};
use crate::config::{self, Auth, Config};
use crate::node::{Listeners, Node, Shared, StartError};
use crate::telemetry;

/// `command` is the whole program's: which variables it reads.
pub(super) async fn run(
    config: Config,
    program: &str,
    command: &clap::Command,
) -> Result<(), Ended> {
    telemetry::start(&config.logs).map_err(|reason| Ended::unusable(Failure(reason)))?;
    for misspelt in config::misspelt(command) {
        tracing::warn!("{misspelt}");
    }
    raise_descriptor_limit();
    let mut signals = Signals::new()?;

    // Before the ports: a taken one would hide what is wrong with the settings.
    let contradictions = config.contradictions();
    if !contradictions.is_empty() {
        return Err(unstarted(StartError::Contradictions(contradictions)));
    }
    let listeners = Listeners::bind(&config).await?;
    let interrupted = CancellationToken::new();
    let node = tokio::select! {
        node = Node::start(&config, listeners, Shared::default(), &interrupted) => node.map_err(unstarted)?,
        _ = signals.next() => return Ok(()),
    };
    announce(&config, &node, program)?;

    let why = tokio::select! {
        asked = signals.next() => Some(asked),
        () = node.failed() => None,
    };
    let drain = match why {
        Some(Asked::Terminate) => config.sockets.drain(),
        // Somebody sits and waits, or there is nothing left to wait for.
        Some(Asked::Interrupt) | None => Duration::ZERO,
    };
    tracing::info!(seconds = drain.as_secs(), "leaving");
    let clean = tokio::select! {
        clean = node.leave(drain) => clean,
        // Whoever asks twice does not want to wait.
        _ = signals.next() => return Err(Failure::new("ended at once, by a second signal").into()),
    };
    match (why, clean) {
        (Some(_), true) => {
            tracing::info!("left");
            Ok(())
        }
        (None, _) => Err(Failure::new("a part of the node ended by itself; see the log").into()),
        (Some(_), false) => {
            Err(Failure::new("the node did not come to a clean end in time").into())
        }
    }
}

/// Why there is no node: what the settings say makes no sense, or could not be done.
fn unstarted(error: StartError) -> Ended {
    match error {
        StartError::Contradictions(_) | StartError::Secret(_) | StartError::Auth(_) => {
            Ended::unusable(error)
        }
        StartError::Listen { .. }
        | StartError::Store(_)
        | StartError::Bus(_)
        | StartError::Stopped => error.into(),
    }
}

fn announce(config: &Config, node: &Node, program: &str) -> Result<(), Failure> {
    tracing::info!(listen = %node.address(), admin = %node.admin_address(), "serving");
    if !config.listen.enable_websocket {
        tracing::info!("ENABLE_WEBSOCKET=false: there are no sockets, and clients poll");
    }
    if !config.auth.is_embedded() {
        return Ok(());
    }
    if !config.backends.is_sqlite() {
        tracing::warn!(
            "JWT_SECRET is not set: this node has a secret of its own, ./{}, and tokens of other nodes are not valid here",
            Auth::SECRET_FILE
        );
    }
    say(banner(config, node, program))
}

/// What to try first on a node that signs with its own development secret.
fn banner(config: &Config, node: &Node, program: &str) -> String {
    let address = format!("http://{}", node.address());
    let at = if node.address().port() == 3000 {
        String::new()
    } else {
        format!(" --url {address}")
    };
    let (kind, docs) = if config.auth.allows_dev_sign_in() {
        (
            "embedded default",
            format!("The API, to read and to try: {address}/api/docs"),
        )
    } else {
        (
            "no JWT key",
            "Off, for BELLHOP_API_KEYS is set: /api/docs and the sign-in /api/dev/token".to_owned(),
        )
    };
    let listen = if config.listen.enable_websocket {
        format!("Listen, in a second terminal in this folder:\n    {program} listen --user 42{at}")
    } else {
        "No sockets (ENABLE_WEBSOCKET=false): clients poll GET /api/notifications/changes"
            .to_owned()
    };
    format!(
        "
  Bellhop serves at {address}  ({kind}: this machine only, {store})

  {listen}
  Send, in another terminal:
    {program} send --user 42 --title Hello{at}
  Or with curl:
    curl -X POST {address}/api/notifications/test \\
      -H \"Authorization: Bearer $({program} token --user 42)\" \\
      -H 'Content-Type: application/json' -d '{{\"title\": \"Hello\"}}'

  {docs}
  Health and metrics: http://{admin}/metrics     Stop: Ctrl-C
",
        store = config.backends.database_url.place(),
        admin = node.admin_address(),
    )
}

/// Raises the soft limit of open files to the hard one: each socket takes a descriptor.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// How the node was asked to leave.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Terminate,
    /// By Ctrl-C.
    Interrupt,
}

/// SIGTERM and SIGINT: both ask the node to leave.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
        }
    }
}
