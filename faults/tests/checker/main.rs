//! The checker itself: it is silent on good histories, and flags every corrupted one by the check that it should.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks at the events that it is about"
)]

mod bounds;
mod deliveries;
mod ends;
mod pairs;
mod publishes;
mod world;

use faults::check::{Check, Limits, Report, check};
use faults::history::{Event, Line};
use faults::random::Random;
use world::{good_history, restored_history};

const SEEDS: u64 = 40;

const LIMITS: Limits = Limits {
    lag_p99: Some(2_000),
    lag_max: Some(2_500),
    lag_after_p99: Some(1_000),
    recovery_p99: Some(4_000),
    recovery_max: Some(4_000),
    publish_p99: Some(300),
    memory: Some(50),
    ..Limits::NONE
};

/// Corrupts a copy of each good history, and expects this check to flag all of them.
fn flags(expected: Check, corrupt: impl Fn(&mut Vec<Line>, &mut Random)) {
    flags_by(&LIMITS, expected, corrupt);
}

/// The same, by other bounds.
fn flags_by(limits: &Limits, expected: Check, corrupt: impl Fn(&mut Vec<Line>, &mut Random)) {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut history = good_history(seed);
        corrupt(&mut history, &mut random);
        let report = check(&history, limits);
        assert!(
            report.of(expected) > 0,
            "seed {seed}: {expected} was not flagged, but {:?}",
            report.violations
        );
        assert!(names_lines(&report), "{:?}", report.violations);
    }
}

fn names_lines(report: &Report) -> bool {
    report.violations.iter().all(|one| !one.lines.is_empty())
}

/// The index of a random line that is wanted.
fn pick(history: &[Line], random: &mut Random, wanted: impl Fn(&Event) -> bool) -> usize {
    let indexes = history.iter().enumerate();
    let found: Vec<_> = indexes
        .filter(|(_, line)| wanted(&line.event))
        .map(|(index, _)| index)
        .collect();
    assert!(!found.is_empty(), "the history has no such line");
    found[random.below(found.len())]
}

fn is_apply(event: &Event) -> bool {
    matches!(event, Event::Apply { .. })
}

fn is_recv(event: &Event) -> bool {
    matches!(event, Event::Recv { .. })
}

fn is_row(event: &Event) -> bool {
    matches!(event, Event::DatabaseRow { key: Some(key), .. } if key.starts_with("ok"))
}

/// One device never got what it heard and showed at this line, in no way and at no time.
fn take_delivery(history: &mut Vec<Line>, at: usize) {
    let Event::Apply {
        device: name,
        id: taken,
        ..
    } = history[at].event.clone()
    else {
        panic!("not a delivery")
    };
    history.retain(|line| match &line.event {
        Event::Recv { device, id, .. } | Event::Apply { device, id, .. } => {
            *device != name || *id != taken
        }
        _ => true,
    });
    for line in history {
        if let Event::List { device, items, .. } | Event::DeviceEnd { device, items, .. } =
            &mut line.event
            && *device == name
        {
            items.retain(|item| item.id != taken);
        }
    }
}

#[test]
fn a_good_history_passes() {
    let mut deliveries = 0;
    for seed in 0..SEEDS {
        let report = check(&good_history(seed), &LIMITS);
        assert_eq!(report.violations, [], "seed {seed}");
        assert!(report.figures.acknowledged > 50 && report.figures.uncertain > 0);
        assert!(report.figures.raw_duplicates > 0 && report.figures.recovery.samples > 0);
        assert!(report.figures.lag.samples > 0 && report.figures.lag_at_rest.samples > 0);
        deliveries += report.figures.delivered;
    }
    assert!(deliveries > 4_000, "{deliveries}");
}

#[test]
fn what_another_history_undid_is_not_lost_and_nobody_may_go_on_from_it() {
    let is_reset =
        |line: &Line| matches!(&line.event, Event::Refresh { reason, .. } if reason == "reset");
    for seed in 0..SEEDS {
        let good = restored_history(seed);
        assert_eq!(check(&good, &LIMITS).violations, [], "seed {seed}");

        let told = good.iter().position(is_reset).unwrap();
        let mut untold = good.clone();
        untold.remove(told);
        assert!(
            check(&untold, &LIMITS).of(Check::Converged) > 0,
            "seed {seed}"
        );
        let mut told_twice = good.clone();
        told_twice.insert(told, good[told].clone());
        assert!(
            check(&told_twice, &LIMITS).of(Check::Converged) > 0,
            "seed {seed}"
        );

        let mut told_late = good.clone();
        told_late
            .iter_mut()
            .skip(told)
            .for_each(|line| line.at += 16_000_000);
        assert!(
            check(&told_late, &LIMITS).of(Check::Late) > 0,
            "seed {seed}"
        );

        // What was acknowledged by the new history has to be in it.
        let acknowledged = |line: &Line| matches!(line.event, Event::Ok { .. });
        let last = good.iter().rfind(|line| acknowledged(line)).unwrap();
        let Event::Ok { id: lost, .. } = &last.event else {
            panic!("not an acknowledgement")
        };
        let mut corrupted = good.clone();
        corrupted
            .retain(|line| !matches!(&line.event, Event::DatabaseRow { id, .. } if id == lost));
        assert!(
            check(&corrupted, &LIMITS).of(Check::Acknowledged) > 0,
            "seed {seed}"
        );
    }
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let history = good_history(1);
    let text: Vec<_> = history
        .iter()
        .map(|line| serde_json::to_string(line).unwrap())
        .collect();
    let read = faults::history::read(text.join("\n").as_bytes()).unwrap();
    assert_eq!(read, history);
}
