//! The checker: reads what happened, and says where the promise was broken and by which lines.
//!
//! It knows nothing of how the cluster works. All it uses is what publishers were told, what devices heard, and
//! what the database held at the end.

mod deliveries;
mod facts;
mod figures;
mod publishes;
mod state;
mod timing;

use std::fmt;

pub use figures::{Figures, Percentiles};

use crate::history::{Event, Line};
use facts::Facts;

/// What is checked; the numbers are those of the list that the rig was built to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// C1. A device never saw what was acknowledged.
    Lost,
    /// C2. A device saw what nobody published, or what is not in the database.
    Unexpected,
    /// C3. A device saw another user's notification.
    WrongUser,
    /// C4. A device showed the same change twice.
    Duplicated,
    /// C5. A device heard or showed changes in another order than their seqs'.
    Misordered,
    /// C6. A publish that began after another was acknowledged got the lower seq.
    RealTime,
    /// C7. A publish of unknown outcome reached some devices and not others.
    AllOrNone,
    /// C8. One key made two rows, or was answered in two ways.
    OneRow,
    /// C9. What was acknowledged is not in the database, or what was refused is.
    Acknowledged,
    /// C10. A device, or a count, ended in another state than the database.
    Converged,
    /// C11. It took longer than it may.
    Late,
    /// C12. A node used more after the fault than before, or its log tells of a panic.
    Resources,
    /// What the scenario itself expects.
    Expected,
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lost => "C1 lost",
            Self::Unexpected => "C2 unexpected",
            Self::WrongUser => "C3 wrong user",
            Self::Duplicated => "C4 duplicated",
            Self::Misordered => "C5 misordered",
            Self::RealTime => "C6 real-time order",
            Self::AllOrNone => "C7 all or none",
            Self::OneRow => "C8 one row a key",
            Self::Acknowledged => "C9 acknowledged is stored",
            Self::Converged => "C10 devices equal the database",
            Self::Late => "C11 late",
            Self::Resources => "C12 resources",
            Self::Expected => "the scenario's own",
        })
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub check: Check,
    pub what: String,
    /// The lines of the history that show it, counted from 1.
    pub lines: Vec<usize>,
}

/// How long things may take, in milliseconds. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From an acknowledgement to a device whose connection lasted meanwhile, for publishes during the fault: the 99th percentile.
    pub lag_p99: Option<u64>,
    /// The longest.
    pub lag_max: Option<u64>,
    /// The 99th percentile for publishes from 3 s after the fault on: whether all is as it was.
    pub lag_after_p99: Option<u64>,
    /// From a lost connection to being synced again: the 99th percentile, and the longest.
    pub recovery_p99: Option<u64>,
    pub recovery_max: Option<u64>,
    /// A publishing request during the fault, whatever its answer: the 99th percentile.
    pub publish_p99: Option<u64>,
    /// Publishing requests during the fault that may fail in other ways than by a refused connection.
    pub failed_publishes: Option<usize>,
    /// Of these, those that may be answered with a 5xx.
    pub server_errors: Option<usize>,
    /// Connections of devices that may be lost during the fault.
    pub lost_connections: Option<usize>,
    /// A publishing request during the fault to a user whose row somebody holds, whatever its answer: the 99th percentile. Those are in no other bound.
    pub held_publish_p99: Option<u64>,
    /// Whether publishers have to be told, at least once during the fault, that delivery is deferred.
    pub deferred: bool,
    /// MiB that a node may have used more, at any time from the fault on, than just before it.
    pub memory: Option<u64>,
}

impl Limits {
    /// No limit at all, to set some.
    pub const NONE: Self = Self {
        lag_p99: None,
        lag_max: None,
        lag_after_p99: None,
        recovery_p99: None,
        recovery_max: None,
        publish_p99: None,
        failed_publishes: None,
        server_errors: None,
        lost_connections: None,
        held_publish_p99: None,
        deferred: false,
        memory: None,
    };
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub figures: Figures,
    /// Figures of the scenario's own.
    pub remarks: Vec<String>,
}

impl Report {
    #[must_use]
    pub fn of(&self, check: Check) -> usize {
        self.violations
            .iter()
            .filter(|violation| violation.check == check)
            .count()
    }
}

/// Checks a history against the promise, and its times against `limits`.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only remarks are looked for"
)]
pub fn check(history: &[Line], limits: &Limits) -> Report {
    let facts = Facts::gather(history);
    let mut found = Found::default();
    deliveries::check(&facts, &mut found);
    publishes::check(&facts, &mut found);
    let mut figures = figures::count(&facts);
    state::check(&facts, limits, &mut figures, &mut found);
    timing::check(&facts, limits, &mut figures, &mut found);
    if figures.acknowledged == 0 {
        let what = "nothing was acknowledged: nothing is shown".to_owned();
        found.add(Check::Acknowledged, what, &[1]);
    }
    let remarks = history.iter().filter_map(|line| match &line.event {
        Event::Remark { what } => Some(what.clone()),
        _ => None,
    });
    Report {
        violations: found.0,
        figures,
        remarks: remarks.collect(),
    }
}

/// Violations so far.
#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, check: Check, what: String, lines: &[usize]) {
        let lines = lines.to_vec();
        self.0.push(Violation { check, what, lines });
    }
}
