//! How it ended, corrupted: another state, too late, too much.

use faults::check::Check;
use faults::history::{Event, Line};

use super::*;

#[test]
fn a_device_or_a_count_that_differs_from_the_database_is_flagged() {
    flags(Check::Converged, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::DeviceEnd { .. })
        });
        if let Event::DeviceEnd { count, .. } = &mut history[at].event {
            *count = count.map(|count| count + 1);
        }
    });
    flags(Check::Converged, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::DeviceEnd { .. })
        });
        if let Event::DeviceEnd { last_seq, .. } = &mut history[at].event {
            *last_seq = last_seq.map(|seq| seq - 1);
        }
    });
    flags(Check::Converged, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::DeviceEnd { .. })
        });
        if let Event::DeviceEnd { items, .. } = &mut history[at].event {
            items[0].read = true;
        }
    });
    flags(Check::Converged, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::DatabaseUser { .. })
        });
        if let Event::DatabaseUser { unread, .. } = &mut history[at].event {
            *unread += 1;
        }
    });
    flags(Check::Converged, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::DeviceEnd { .. })
        });
        history.remove(at);
    });
}

#[test]
fn what_comes_late_is_flagged() {
    // The bus fell silent in the fault: nothing that was acknowledged then comes before its end.
    flags(Check::Late, |history, _| {
        pairs::delay_deliveries(history, 3_000_000);
    });
    // In the fault that would do, but not when it has long been over.
    flags(Check::Late, |history, _| {
        pairs::delay_deliveries(history, 1_500_000);
    });
    flags(Check::Late, |history, random| {
        let at = pick(history, random, |event| {
            matches!(event, Event::Disconnect { .. })
        });
        let Event::Disconnect { device: gone, .. } = history[at].event.clone() else {
            panic!("not an end")
        };
        let mut index = 0;
        history.retain(|line| {
            index += 1;
            !(index > at && matches!(&line.event, Event::Synced { device, .. } if *device == gone))
        });
    });
}

#[test]
fn a_node_that_grew_or_panicked_is_flagged() {
    flags(Check::Resources, |history, _| {
        let resources = |before, peak_bytes| Line {
            at: u64::MAX,
            event: Event::Resources {
                node: 0,
                before,
                resident_bytes: 40 << 20,
                peak_bytes,
                descriptors: 10,
                connections: 2,
                threads: 3,
            },
        };
        history.push(resources(true, 40 << 20));
        history.push(resources(false, 91 << 20));
    });
    flags(Check::Resources, |history, _| {
        let event = Event::Log { node: 1, panics: 1 };
        history.push(Line {
            at: u64::MAX,
            event,
        });
    });
    flags(Check::Expected, |history, _| {
        let what = "the node should have exited with 0".to_owned();
        let event = Event::Expect { what, fine: false };
        history.push(Line {
            at: u64::MAX,
            event,
        });
    });
}
