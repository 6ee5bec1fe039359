//! The program: `faults run` breaks a cluster scenario by scenario, `faults check` reads a history again, `faults list` names the scenarios.

mod shrink;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use faults::check::check;
use faults::load::Size;
use faults::rig::Trouble;
use faults::scenario::{ALL, Fault, Options, Outcome, Scenario, run};
use tokio::signal::unix::{SignalKind, signal};

use table::say;

#[derive(Parser)]
#[command(
    about = "Breaks a running Bellhop cluster on purpose, and checks that nothing acknowledged was lost."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs scenarios, prints a line of the table for each, and fails when one does.
    Run(Run),
    /// Checks a history that was written before, with the bounds of its scenario.
    Check { history: PathBuf },
    /// Names the scenarios.
    List,
}

#[derive(clap::Args)]
struct Run {
    /// Scenarios, as in "F1 F3"; unset: all.
    #[arg(long, env = "FAULTS", default_value = "")]
    faults: String,
    /// Only the short set.
    #[arg(long)]
    short: bool,
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long a fault lasts, instead of the scenario's own.
    #[arg(long)]
    seconds: Option<u64>,
    /// The program under test.
    #[arg(long, env = "CARGO_BIN", default_value = "target/debug/bellhop")]
    bellhop: PathBuf,
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    #[arg(long, default_value_t = 200)]
    users: usize,
    #[arg(long, default_value_t = 2)]
    devices: usize,
    /// Notifications a second.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Percent of users and of rate, for a machine that copes with less.
    #[arg(long, env = "SCALE", default_value_t = 100)]
    scale: u64,
    /// Where histories are written.
    #[arg(long, default_value = "target/faults")]
    folder: PathBuf,
    /// Keeps logs and data of each run.
    #[arg(long)]
    keep: bool,
    /// A cocktail that fails is run again and again, with fewer of its faults, to the fewest that still fail.
    #[arg(long)]
    shrink: bool,
    /// Of a cocktail: the numbers of the faults that are left out, as in 0,3,5.
    #[arg(long, value_delimiter = ',')]
    without: Vec<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(until_interrupted(arguments.command)),
        Err(error) => Err(Trouble::Late(format!("no runtime: {error}"))),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            say(&format!("the rig failed: {trouble}"));
            ExitCode::from(2)
        }
    }
}

/// Ctrl-C and SIGTERM drop what runs, and with it every process.
async fn until_interrupted(command: Command) -> Result<bool, Trouble> {
    let no_signals = |error| Trouble::Late(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    tokio::select! {
        done = perform(command) => done,
        _ = terminate.recv() => Err(Trouble::Late("told to end".to_owned())),
        _ = interrupt.recv() => Err(Trouble::Late("interrupted".to_owned())),
    }
}

async fn perform(command: Command) -> Result<bool, Trouble> {
    match command {
        Command::List => {
            for scenario in ALL {
                say(&format!(
                    "{:5} {} ({} s)",
                    scenario.id, scenario.what, scenario.seconds
                ));
            }
            Ok(true)
        }
        Command::Check { history } => again(&history),
        Command::Run(arguments) => all(&arguments).await,
    }
}

/// The scenario is told by the history's name.
fn again(history: &std::path::Path) -> Result<bool, Trouble> {
    let name = history.file_stem().unwrap_or_default().to_string_lossy();
    let id = name.split('-').next().unwrap_or_default();
    let scenario =
        Scenario::find(id).ok_or_else(|| Trouble::Late(format!("{id} is no scenario")))?;
    let file = std::fs::File::open(history).map_err(|error| Trouble::Late(error.to_string()))?;
    let lines = faults::history::read(std::io::BufReader::new(file));
    let lines = lines.map_err(|error| Trouble::Late(error.to_string()))?;
    let report = check(&lines, &scenario.limits);
    table::head();
    table::line(scenario, &report);
    table::violations(&report, history);
    Ok(report.violations.is_empty())
}

async fn all(arguments: &Run) -> Result<bool, Trouble> {
    let (mut passed, mut failed, mut broken, mut unplayed) = (0, 0, false, None);
    table::head();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        for scenario in chosen(arguments)? {
            let options = options(arguments, seed);
            if scenario.needs_root && !faults::rig::is_root() {
                say(&format!("{}: left out, it needs root", scenario.id));
                continue;
            }
            // A rig that failed says nothing about the others.
            match run(scenario, &options).await {
                Ok(outcome) => {
                    let fine = verdict(arguments, scenario, seed, &outcome);
                    if !fine && arguments.shrink && scenario.fault == Fault::Cocktail {
                        let fewest = shrink::shrink(scenario, &options).await?;
                        say(&format!(
                            "      fewest: {}",
                            command(arguments, scenario, seed, &fewest)
                        ));
                    }
                    *(if fine { &mut passed } else { &mut failed }) += 1;
                    broken |= !fine;
                }
                Err(trouble) => {
                    failed += 1;
                    say(&format!("{}: the rig failed: {trouble}", scenario.id));
                    unplayed = Some(trouble);
                }
            }
        }
    }
    say(&format!("# faults: {passed} passed, {failed} failed"));
    match unplayed {
        // Unless there is worse.
        Some(trouble) if !broken => Err(trouble),
        _ => Ok(failed == 0),
    }
}

fn chosen(arguments: &Run) -> Result<Vec<&'static Scenario>, Trouble> {
    if arguments.faults.trim().is_empty() {
        let is_wanted = |one: &&Scenario| !arguments.short || one.short > 0;
        return Ok(ALL.iter().filter(is_wanted).collect());
    }
    let ids = arguments
        .faults
        .split([' ', ','])
        .filter(|id| !id.is_empty());
    ids.map(|id| Scenario::find(id).ok_or_else(|| Trouble::Late(format!("{id} is no scenario"))))
        .collect()
}

fn options(arguments: &Run, seed: u64) -> Options {
    let scale = |number: u64| (number * arguments.scale / 100).max(1);
    let users = u64::try_from(arguments.users).unwrap_or(u64::MAX);
    Options {
        program: arguments.bellhop.clone(),
        seed,
        nodes: arguments.nodes,
        size: Size {
            users: usize::try_from(scale(users)).unwrap_or(usize::MAX),
            devices_per_user: arguments.devices,
            rate: scale(arguments.rate),
        },
        seconds: arguments.seconds,
        short: arguments.short,
        folder: arguments.folder.clone(),
        keep: arguments.keep,
        without: arguments.without.clone(),
    }
}

fn verdict(arguments: &Run, scenario: &Scenario, seed: u64, outcome: &Outcome) -> bool {
    table::line(scenario, &outcome.report);
    if let Some(kept) = &outcome.kept {
        say(&format!("      kept: {}", kept.display()));
    }
    let fine = outcome.report.violations.is_empty();
    if !fine {
        table::violations(&outcome.report, &outcome.history);
        say(&format!(
            "      again: {}",
            command(arguments, scenario, seed, &arguments.without)
        ));
    }
    fine
}

/// The one command that runs it again.
fn command(arguments: &Run, scenario: &Scenario, seed: u64, without: &[usize]) -> String {
    let Run {
        bellhop,
        nodes,
        users,
        devices,
        rate,
        scale,
        ..
    } = arguments;
    let mut command = format!(
        "cargo run -p faults -- run --faults {} --seed {seed} --nodes {nodes} --users {users} --devices {devices} --rate {rate} --scale {scale} --bellhop {}",
        scenario.id,
        bellhop.display()
    );
    if let Some(seconds) = arguments.seconds {
        command += &format!(" --seconds {seconds}");
    }
    if arguments.short {
        command += " --short";
    }
    if !without.is_empty() {
        let without: Vec<_> = without.iter().map(usize::to_string).collect();
        command += &format!(" --without {}", without.join(","));
    }
    command
}
