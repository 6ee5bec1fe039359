//! How long it took (C11): from acknowledgement to device, from lost connection to synced, and publishing itself.

use super::facts::{Device, Facts, Step};
use super::figures::{Figures, Percentiles};
use super::{Check, Found, Limits};
use crate::history::{Event, Line};

/// Microseconds after a fault that still count as its time.
const AFTERMATH: u64 = 10_000_000;
/// Microseconds after a fault until nothing of it is felt any more.
const SETTLED: u64 = 3_000_000;

/// Which of the percentiles is bounded.
type Of = fn(Percentiles) -> u64;

pub(super) fn check(facts: &Facts<'_>, limits: &Limits, figures: &mut Figures, found: &mut Found) {
    let faults = Faults::of(facts);
    lag(facts, &faults, figures);
    recovery(facts, &faults, figures, found);
    publishing(facts, &faults, figures);

    let line = faults.0.first().map_or(1, |(_, _, line)| *line);
    durations(limits, figures, line, found);
    if limits.deferred && figures.deferred == 0 {
        let what = "nobody was told that delivery was deferred".to_owned();
        found.add(Check::Expected, what, &[line]);
    }
    numbers(limits, figures, line, found);
}

fn durations(limits: &Limits, figures: &Figures, line: usize, found: &mut Found) {
    let (p99, max): (Of, Of) = (|is| is.p99, |is| is.max);
    for (what, is, of, limit) in [
        ("lag p99", figures.lag, p99, limits.lag_p99),
        ("lag max", figures.lag, max, limits.lag_max),
        (
            "lag p99 from 3 s after the fault on",
            figures.lag_after,
            p99,
            limits.lag_after_p99,
        ),
        ("recovery p99", figures.recovery, p99, limits.recovery_p99),
        ("recovery max", figures.recovery, max, limits.recovery_max),
        ("publish p99", figures.publish, p99, limits.publish_p99),
        (
            "publish p99 to users whose row is held",
            figures.held_publish,
            p99,
            limits.held_publish_p99,
        ),
    ] {
        let Some(limit) = limit else { continue };
        let millis = of(is);
        // Without one, nothing is shown.
        let found_out = match is.samples {
            0 => format!("{what} is bounded, and nothing was measured"),
            _ if millis > limit => format!("{what} was {millis} ms and may be {limit}"),
            _ => continue,
        };
        found.add(Check::Late, found_out, &[line]);
    }
}

fn numbers(limits: &Limits, figures: &Figures, line: usize, found: &mut Found) {
    for (what, is, may) in [
        (
            "failed publishing requests",
            figures.failed_publishes,
            limits.failed_publishes,
        ),
        (
            "answers 5xx to publishes",
            figures.server_errors,
            limits.server_errors,
        ),
        (
            "lost connections of devices",
            figures.recovery.samples,
            limits.lost_connections,
        ),
    ] {
        if let Some(may) = may
            && is > may
        {
            let what = format!("the number of {what} was {is} and may be {may}");
            found.add(Check::Late, what, &[line]);
        }
    }
}

/// When faults were: begin, end, line.
struct Faults(Vec<(u64, u64, usize)>);

impl Faults {
    fn of(facts: &Facts<'_>) -> Self {
        let end = facts.history.last().map_or(0, |line| line.at);
        let mut faults = Vec::new();
        for (index, line) in facts.history.iter().enumerate() {
            let Event::FaultStart { fault } = &line.event else {
                continue;
            };
            let mut later = facts.history.iter().skip(index);
            let is_its_end =
                |line: &&Line| matches!(&line.event, Event::FaultStop { fault: it } if it == fault);
            let stop = later.find(is_its_end).map_or(end, |line| line.at);
            faults.push((line.at, stop, index + 1));
        }
        Self(faults)
    }

    /// Long enough after the last one for all to be as it was.
    fn are_over(&self, at: u64) -> bool {
        let last = self.0.iter().map(|(_, end, _)| *end).max();
        last.is_some_and(|end| at > end.saturating_add(SETTLED))
    }

    fn has(&self, at: u64) -> bool {
        self.0
            .iter()
            .any(|(begin, end, _)| (*begin..=end.saturating_add(AFTERMATH)).contains(&at))
    }
}

fn lag(facts: &Facts<'_>, faults: &Faults, figures: &mut Figures) {
    let (mut at_rest, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let end = facts.history.last().map_or(0, |line| line.at);
    for publish in facts.publishes.values() {
        let Some(answer) = publish.answers.first() else {
            continue;
        };
        for (_, device) in facts.devices_of(publish.user) {
            // What never came is lost, and late until the end at least.
            let shown = device.shown.get(answer.id).copied().unwrap_or(end);
            if device.slow || !device.was_connected(answer.at, shown) {
                continue;
            }
            let millis = shown.saturating_sub(answer.at) / 1_000;
            if faults.are_over(answer.at) {
                after.push(millis);
            }
            match faults.has(answer.at) {
                true => during.push(millis),
                false => at_rest.push(millis),
            }
        }
    }
    figures.lag = Percentiles::of(during);
    figures.lag_after = Percentiles::of(after);
    figures.lag_at_rest = Percentiles::of(at_rest);
}

impl Device<'_> {
    /// Whether its connection lasted from the one time to the other.
    fn was_connected(&self, from: u64, to: u64) -> bool {
        let is_end = |step: &Step<'_>| matches!(step, Step::Connected | Step::Disconnected);
        let next = self.steps.partition_point(|(_, at, _)| *at <= from);
        let (before, after) = self.steps.split_at(next);
        let synced = before
            .iter()
            .rev()
            .take_while(|(_, _, step)| !is_end(step))
            .any(|(_, _, step)| matches!(step, Step::Synced));
        let mut meanwhile = after.iter().take_while(|(_, at, _)| *at < to);
        synced && !meanwhile.any(|(_, _, step)| is_end(step))
    }
}

fn recovery(facts: &Facts<'_>, faults: &Faults, figures: &mut Figures, found: &mut Found) {
    let mut millis = Vec::new();
    for (name, device) in &facts.devices {
        let mut lost: Option<(u64, usize)> = None;
        for (line, at, step) in &device.steps {
            match step {
                Step::Disconnected => {
                    lost.get_or_insert((*at, *line));
                }
                Step::Synced => {
                    if let Some((since, _)) = lost.take()
                        && faults.has(since)
                    {
                        millis.push((at - since) / 1_000);
                    }
                }
                Step::Connected
                | Step::Reset
                | Step::Listed(_)
                | Step::Heard(..)
                | Step::Applied(..) => {}
            }
        }
        if let Some((_, line)) = lost {
            found.add(Check::Late, format!("{name} never came back"), &[line]);
        }
    }
    figures.recovery = Percentiles::of(millis);
}

fn publishing(facts: &Facts<'_>, faults: &Faults, figures: &mut Figures) {
    let (mut took, mut held) = (Vec::new(), Vec::new());
    for line in facts.history {
        let (user, millis, failed, answered) = match &line.event {
            Event::Ok {
                user,
                millis,
                deferred,
                ..
            } => {
                figures.deferred += usize::from(*deferred && faults.has(line.at));
                (user, *millis, false, false)
            }
            Event::Fail {
                user, millis, why, ..
            } => (user, *millis, why != crate::load::REFUSED, false),
            Event::Info {
                user, millis, why, ..
            } => (user, *millis, true, why.starts_with('5')),
            Event::Run { .. }
            | Event::Invoke { .. }
            | Event::Recv { .. }
            | Event::Apply { .. }
            | Event::Slow { .. }
            | Event::Held { .. }
            | Event::Count { .. }
            | Event::Connect { .. }
            | Event::Synced { .. }
            | Event::Refresh { .. }
            | Event::Disconnect { .. }
            | Event::List { .. }
            | Event::FaultStart { .. }
            | Event::FaultStop { .. }
            | Event::Expect { .. }
            | Event::Remark { .. }
            | Event::Restored {}
            | Event::Resources { .. }
            | Event::Log { .. }
            | Event::DeviceEnd { .. }
            | Event::DatabaseUser { .. }
            | Event::DatabaseRow { .. } => continue,
        };
        // By when it began: what hangs on to the end of a fault belongs to it.
        if !faults.has(line.at.saturating_sub(millis * 1_000)) {
            continue;
        }
        if facts.held.contains(user.as_str()) {
            held.push(millis);
        } else {
            figures.failed_publishes += usize::from(failed);
            figures.server_errors += usize::from(answered);
            took.push(millis);
        }
    }
    figures.publish = Percentiles::of(took);
    figures.held_publish = Percentiles::of(held);
}
