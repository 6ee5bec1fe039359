//! What the program can be told to do.

mod check_config;
mod check_token;
mod import;
mod inspect;
mod key;
mod listen;
mod migrate;
mod probe;
mod send;
mod serve;
mod target;
mod token;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config};
use crate::telemetry::causes;

/// Exit code: what was asked for could not be done.
pub const FAILURE: u8 = 1;
/// Exit code: what was asked for makes no sense; also clap's.
pub const USAGE: u8 = 2;

/// A self-hosted push cluster: what is published for a user on any node reaches that user's sockets on every node.
///
/// Without a command it serves. With nothing set it is the embedded default: one node on loopback, SQLite in
/// ./bellhop.db, a development secret kept in ./bellhop.secret.
#[derive(Debug, Parser)]
#[command(name = "bellhop", version, about, long_about, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (the default command).
    Serve(Box<Config>),
    /// Print a user's events as JSON lines, from now on; comes back by itself when the connection is lost.
    Listen(listen::Listen),
    /// Publish a notification through a running node.
    Send(send::Send),
    /// Print a token for a user, signed with the node's secret.
    Token(token::Token),
    /// Say whether a token is believed; if not, which rule refuses it, and which setting decides.
    CheckToken(check_token::CheckToken),
    /// Print a new API key, once, and the setting that makes nodes believe it.
    Key(key::Key),
    /// Show an inbox through a running node: counters, sockets, the last changes.
    Inspect(inspect::Inspect),
    /// Add the old notifications of an export (NDJSON) to the database; pushes nothing.
    Import(import::Import),
    /// Bring the database schema up to date, and exit.
    Migrate(migrate::Migrate),
    /// Check the settings, and say of each finding what to do.
    CheckConfig(Box<check_config::CheckConfig>),
    /// Try a running node from outside: handshake, publish, receive.
    Probe(probe::Probe),
}

impl Arguments {
    /// The arguments of this process; wrong ones end it with a message and exit code 2.
    #[must_use]
    pub fn of_process() -> Self {
        let mut command = config::ignoring_empty_variables(Self::command());
        let matches = command.clone().get_matches();
        let given =
            |id: &clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        if let Some((name, _)) = matches.subcommand()
            && let Some(id) = matches.ids().find(|id| {
                given(id)
                    && command
                        .get_arguments()
                        .any(|argument| argument.get_id() == *id)
            })
        {
            let flag = id.as_str().replace('_', "-");
            let message = format!("--{flag} belongs after the command: bellhop {name} --{flag} …");
            command.error(ErrorKind::ArgumentConflict, message).exit();
        }
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Why a command failed, in words for the person who gave it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    /// The error and its causes, in one line.
    fn from(error: E) -> Self {
        Self(causes(&error))
    }
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
struct Ended {
    code: u8,
    reason: Failure,
}

impl Ended {
    /// The settings make no sense.
    fn unusable(reason: impl Into<Failure>) -> Self {
        let (code, reason) = (USAGE, reason.into());
        Self { code, reason }
    }
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(reason: E) -> Self {
        let (code, reason) = (FAILURE, reason.into());
        Self { code, reason }
    }
}

/// Carries out what the arguments say. `program` is how the caller spelled the program.
#[must_use]
pub fn run(arguments: Arguments, program: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(FAILURE);
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            None => return serve::run(arguments.config, program, &Arguments::command()).await,
            Some(Command::Serve(config)) => {
                return serve::run(*config, program, &Arguments::command()).await;
            }
            Some(Command::CheckConfig(check)) => return check.run(&Arguments::command()).await,
            Some(Command::Listen(listen)) => listen.run().await,
            Some(Command::Send(send)) => send.run().await,
            Some(Command::Token(token)) => token.run(),
            Some(Command::CheckToken(check)) => check.run().await,
            Some(Command::Key(key)) => key.run(),
            Some(Command::Inspect(inspect)) => inspect.run().await,
            Some(Command::Import(import)) => import.run().await,
            Some(Command::Migrate(migrate)) => migrate.run().await,
            Some(Command::Probe(probe)) => probe.run().await,
        }
        .map_err(Ended::from)
    });
    // Tasks that wait for a dead network do not keep the program from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended {
            code,
            reason: Failure(message),
        }) => {
            complain(&message);
            ExitCode::from(code)
        }
    }
}

/// Says what went wrong, on standard error.
pub fn complain(message: &str) {
    // With standard error closed there is nobody to tell.
    let _closed = writeln!(std::io::stderr(), "bellhop: {message}");
}

/// Prints one line of output, at once. A reader that went away (`| head`) ends the command.
fn say(line: impl Display) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    Ok(writeln!(output, "{line}").and_then(|()| output.flush())?)
}
