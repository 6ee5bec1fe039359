//! Each bound, with a history that is good but for that: too late, too slow, too many, or nothing measured at all.

use faults::check::{Check, Limits};
use faults::history::{Event, Line};

use super::*;

/// The index behind the line at which the fault began.
fn in_the_fault(history: &[Line]) -> usize {
    let begins = |line: &Line| matches!(line.event, Event::FaultStart { .. });
    1 + history.iter().position(begins).unwrap()
}

/// A request to publish that was answered just after the fault began.
fn insert_answer(history: &mut Vec<Line>, user: &str, why: &str, millis: u64) {
    let index = in_the_fault(history);
    let at = history[index].at + 1_000 * millis;
    let event = Event::Info {
        key: "another".to_owned(),
        user: user.to_owned(),
        why: why.to_owned(),
        millis,
    };
    history.push(Line { at, event });
    history.sort_by_key(|line| line.at);
}

#[test]
fn whoever_comes_back_late_is_flagged() {
    let late = |history: &mut Vec<Line>, _: &mut Random| {
        for line in &mut *history {
            if matches!(line.event, Event::Synced { .. }) {
                line.at += 5_000_000;
            }
        }
        history.sort_by_key(|line| line.at);
    };
    let p99 = Limits {
        recovery_p99: Some(4_000),
        ..Limits::NONE
    };
    let max = Limits {
        recovery_max: Some(4_000),
        ..Limits::NONE
    };
    flags_by(&p99, Check::Late, late);
    flags_by(&max, Check::Late, late);
}

#[test]
fn publishes_that_are_slow_or_fail_are_flagged() {
    let slow = Limits {
        publish_p99: Some(300),
        ..Limits::NONE
    };
    flags_by(&slow, Check::Late, |history, _| {
        insert_answer(history, "u0", "connection lost", 301);
    });
    let failed = Limits {
        failed_publishes: Some(0),
        ..Limits::NONE
    };
    flags_by(&failed, Check::Late, |history, _| {
        insert_answer(history, "u0", "connection lost", 2);
    });
    let answered = Limits {
        server_errors: Some(0),
        ..Limits::NONE
    };
    flags_by(&answered, Check::Late, |history, _| {
        insert_answer(history, "u0", "503 storage_unavailable", 2);
    });
    let held = Limits {
        held_publish_p99: Some(1_500),
        ..Limits::NONE
    };
    flags_by(&held, Check::Late, |history, _| {
        let user = "held".to_owned();
        let event = Event::Held { user };
        history.insert(0, Line { at: 0, event });
        insert_answer(history, "held", "503 storage_unavailable", 1_501);
    });
}

#[test]
fn lost_connections_are_flagged_where_none_may_be() {
    let none = Limits {
        lost_connections: Some(0),
        ..Limits::NONE
    };
    flags_by(&none, Check::Late, |_, _| {});
}

#[test]
fn where_nothing_was_measured_nothing_is_shown() {
    flags_by(&Limits::NONE, Check::Acknowledged, |history, _| {
        history.retain(|line| !matches!(line.event, Event::Ok { .. }));
    });
    let held = Limits {
        held_publish_p99: Some(1_500),
        ..Limits::NONE
    };
    flags_by(&held, Check::Late, |_, _| {});
    let deferred = Limits {
        deferred: true,
        ..Limits::NONE
    };
    flags_by(&deferred, Check::Expected, |_, _| {});
}

#[test]
fn descriptors_and_threads_that_stay_are_flagged() {
    let resources = |before, descriptors, threads| Line {
        at: u64::MAX,
        event: Event::Resources {
            node: 0,
            before,
            resident_bytes: 40 << 20,
            peak_bytes: 40 << 20,
            descriptors,
            connections: 2,
            threads,
        },
    };
    for (descriptors, threads) in [(42, 3), (12, 14)] {
        flags_by(&Limits::NONE, Check::Resources, |history, _| {
            history.push(resources(true, 12, 3));
            history.push(resources(false, descriptors, threads));
        });
    }
}
