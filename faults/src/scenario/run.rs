//! One scenario from start to verdict: a rig, a load, a fault, rest, and the check of what was written meanwhile.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::inject::Scene;
use super::{Fault, Scenario};
use crate::check::{Report, check};
use crate::history::{Event, Recorder, read};
use crate::load::{Load, Size};
use crate::random::Random;
use crate::rig::{Plan, Rig, Trouble, Way};

/// Until all devices are connected before the load begins.
const GATHERING: Duration = Duration::from_secs(40);
/// The load without a fault, before it and after it.
const LEAD: Duration = Duration::from_secs(10);
const SHORT_LEAD: Duration = Duration::from_secs(3);
const TAIL: Duration = Duration::from_secs(5);
/// Until all devices are at the head after the load.
const REST: Duration = Duration::from_secs(20);
/// A scenario that takes longer than its fault and this is stuck.
const LIMIT: Duration = Duration::from_secs(240);

/// How scenarios are run.
#[derive(Clone, Debug)]
pub struct Options {
    pub program: PathBuf,
    pub seed: u64,
    pub nodes: usize,
    pub size: Size,
    /// Instead of the scenario's own.
    pub seconds: Option<u64>,
    /// As in the short set: shorter faults, a shorter load before them, and nodes that leave quickly.
    pub short: bool,
    /// Where histories are written.
    pub folder: PathBuf,
    /// Keeps the rig's folder, logs and data.
    pub keep: bool,
    /// Of a cocktail: which of its faults are left out.
    pub without: Vec<usize>,
}

pub struct Outcome {
    pub report: Report,
    pub history: PathBuf,
    /// Where the rig's folder was kept.
    pub kept: Option<PathBuf>,
}

/// Runs a scenario, and checks it. An error means that the rig failed, not what it tests.
pub async fn run(scenario: &Scenario, options: &Options) -> Result<Outcome, Trouble> {
    let name = format!("{}-{}.ndjson", scenario.id, options.seed);
    let history = options.folder.join(name);
    let recorder = Recorder::create(&history);
    let recorder =
        Arc::new(recorder.map_err(Trouble::io("write", &history.display().to_string()))?);
    let own = match options.short && scenario.short > 0 {
        true => scenario.short,
        false => scenario.seconds,
    };
    let duration = Duration::from_secs(options.seconds.unwrap_or(own));

    let playing = play(scenario, options, duration, Arc::clone(&recorder));
    let played = tokio::time::timeout(LIMIT + duration, playing).await;
    let kept = played.map_err(|_late| Trouble::Late(format!("{} did not end", scenario.id)))??;
    recorder
        .finish()
        .map_err(Trouble::io("write", &history.display().to_string()))?;

    let lines = lines_of(&history)?;
    Ok(Outcome {
        report: check(&lines, &scenario.limits),
        history,
        kept,
    })
}

/// A history as it was written.
pub(super) fn lines_of(history: &Path) -> Result<Vec<crate::history::Line>, Trouble> {
    let name = history.display().to_string();
    let file = File::open(history).map_err(Trouble::io("read", &name))?;
    read(BufReader::new(file)).map_err(|error| Trouble::Late(format!("{name}: {error}")))
}

async fn play(
    scenario: &Scenario,
    options: &Options,
    duration: Duration,
    recorder: Arc<Recorder>,
) -> Result<Option<PathBuf>, Trouble> {
    let random = Random::new(options.seed);
    let mut settings = Vec::new();
    if options.short {
        settings.push(("BELLHOP_DRAIN_SECONDS", "5"));
    }
    if scenario.fault == Fault::Storm {
        settings.push(("BELLHOP_LIMIT_HANDSHAKES_PER_SECOND", "20"));
    }
    let plan = Plan {
        program: &options.program,
        nodes: options.nodes,
        seed: options.seed,
        settings: &settings,
        way: way(scenario.fault),
        clocks: scenario.fault == Fault::ClocksDiffer,
    };
    recorder.add(Event::Run {
        scenario: scenario.id.to_owned(),
        seed: options.seed,
        program: digest(&options.program),
    });
    let rig = Rig::start(&plan, Arc::clone(&recorder)).await?;
    let cluster = rig.cluster()?;
    let mut load = Load::new(cluster, Arc::clone(&recorder), options.size, random.fork(1));
    let _balancer = rig.balance(&load.cluster);
    let slow = super::clients::slow(scenario.fault);
    load.start_devices(slow);
    let late = load
        .settled(&std::collections::BTreeMap::new(), GATHERING)
        .await;
    if !late.is_empty() {
        return Err(Trouble::Late(format!(
            "not connected at the start: {late:?}"
        )));
    }

    load.start_publishing(format!("{}-{}", scenario.id, options.seed));
    let lead = if options.short { SHORT_LEAD } else { LEAD };
    tokio::time::sleep(lead).await;
    rig.measure(true);
    let mut scene = Scene {
        rig: &rig,
        load: &load,
        duration,
        random: random.fork(2),
        without: &options.without,
        alone: scenario.fault != Fault::Cocktail,
    };
    let fault = scenario.id.to_owned();
    recorder.add(Event::FaultStart {
        fault: fault.clone(),
    });
    scene.inject(scenario.fault).await?;
    recorder.add(Event::FaultStop { fault });
    tokio::time::sleep(TAIL).await;

    rest(&rig, &mut load, scenario.fault).await?;
    Ok(options.keep.then(|| rig.keep()))
}

/// How nodes find the Redis that is broken.
fn way(fault: Fault) -> Way {
    if matches!(fault, Fault::Failover(_)) {
        Way::Sentinels
    } else if fault == Fault::ClusterOfRedis {
        Way::Cluster
    } else if fault == Fault::OneOfTwo {
        Way::Two
    } else {
        Way::Alone
    }
}

/// Empty where `sha256sum` is not at hand: nothing depends on it.
fn digest(program: &Path) -> String {
    let output = std::process::Command::new("sha256sum")
        .arg(program)
        .output();
    let digest = output.map_or(Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&digest)
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The end: no more publishes, every device at its head, then what all of them and the database hold.
async fn rest(rig: &Rig, load: &mut Load, fault: Fault) -> Result<(), Trouble> {
    load.stop_publishing().await;
    load.settled(&rig.heads().await?, REST).await;
    if fault == Fault::SlowConsumers || fault == Fault::Storm {
        // What was written off is given back a while later.
        tokio::time::sleep(TAIL).await;
    }
    rig.measure(false);
    load.end().await;
    rig.dump().await
}
