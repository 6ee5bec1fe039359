//! What devices saw: all of it (C1), only it (C2), only their own (C3), once (C4), in order (C5).

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Device, Facts, Sight, Step};
use super::{Check, Found};

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    nothing_is_lost(facts, found);
    for (name, device) in &facts.devices {
        let mut told = BTreeSet::new();
        for sight in &device.sights {
            if told.insert((sight.id, sight.owner, sight.key)) {
                is_expected(facts, name, device, sight, found);
            }
        }
        applied_once_and_in_order(name, device, found);
        heard_in_order(name, device, found);
    }
}

/// A deleted notification counts as seen: who comes after its end is not told of it.
fn nothing_is_lost(facts: &Facts<'_>, found: &mut Found) {
    for (key, publish) in &facts.publishes {
        let Some(answer) = publish.answers.first() else {
            continue;
        };
        if facts.rows.get(answer.id).is_some_and(|row| row.deleted) {
            continue;
        }
        for (name, device) in facts.devices_of(publish.user) {
            if !device.shown.contains_key(answer.id) {
                let what = format!(
                    "{name} never saw {} (key {key}, seq {})",
                    answer.id, answer.seq
                );
                found.add(Check::Lost, what, &[publish.invoked, answer.line]);
            }
        }
    }
}

fn is_expected(
    facts: &Facts<'_>,
    name: &str,
    device: &Device<'_>,
    sight: &Sight<'_>,
    found: &mut Found,
) {
    let row = facts.rows.get(sight.id);
    let published = sight.key.and_then(|key| facts.publishes.get(key));
    let owners = [
        sight.owner,
        row.map(|row| row.user),
        published.map(|publish| publish.user),
    ];
    if owners.iter().flatten().any(|owner| *owner != device.user) {
        let what = format!(
            "{name} of {} saw {}, which is another's",
            device.user, sight.id
        );
        found.add(Check::WrongUser, what, &[sight.line]);
    }
    if sight.id.is_empty() {
        return; // a change of the whole inbox
    }
    if row.is_none() {
        let what = format!("{name} saw {}, which is not in the database", sight.id);
        found.add(Check::Unexpected, what, &[sight.line]);
    } else if sight.key.is_some() && published.is_none() {
        let what = format!("{name} saw {}, which nobody published", sight.id);
        found.add(Check::Unexpected, what, &[sight.line]);
    }
}

fn applied_once_and_in_order(name: &str, device: &Device<'_>, found: &mut Found) {
    let mut applied = BTreeMap::new();
    let (mut highest, mut highest_line) = (0, 0);
    for (line, _, step) in &device.steps {
        match step {
            Step::Reset => {
                applied.clear();
                highest = 0;
            }
            // Lists may go back: they show the present, and what was shown above them comes again.
            Step::Listed(seq) => (highest, highest_line) = (*seq, *line),
            Step::Applied(id, seq) => {
                if let Some(before) = applied.insert((*seq, *id), *line) {
                    let what = format!("{name} showed seq {seq} ({id}) twice");
                    found.add(Check::Duplicated, what, &[before, *line]);
                } else if *seq <= highest {
                    let what = format!("{name} showed seq {seq} after {highest}");
                    found.add(Check::Misordered, what, &[highest_line, *line]);
                }
                if *seq > highest {
                    (highest, highest_line) = (*seq, *line);
                }
            }
            Step::Connected | Step::Disconnected | Step::Synced | Step::Heard(..) => {}
        }
    }
}

/// On one connection, what was not heard before never comes below what was.
fn heard_in_order(name: &str, device: &Device<'_>, found: &mut Found) {
    let mut heard = BTreeSet::new();
    let (mut highest, mut highest_line) = (0, 0);
    for (line, _, step) in &device.steps {
        match step {
            Step::Connected | Step::Reset => highest = 0,
            Step::Heard(id, seq) => {
                let is_new = heard.insert((*seq, *id));
                if is_new && *seq <= highest {
                    let what = format!("{name} heard seq {seq} after {highest}");
                    found.add(Check::Misordered, what, &[highest_line, *line]);
                }
                if *seq > highest {
                    (highest, highest_line) = (*seq, *line);
                }
            }
            Step::Disconnected | Step::Synced | Step::Listed(_) | Step::Applied(..) => {}
        }
    }
}
