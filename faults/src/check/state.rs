//! How it ended: devices and counts equal the database (C10), nodes use what they used before (C12), and what a scenario expects.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Account, Device, End, Facts, Step};
use super::figures::Figures;
use super::{Check, Found, Limits};
use crate::history::Event;

/// Descriptors and threads that a process may have gained, beside a tenth.
const SLACK: [u64; 2] = [16, 8];
/// Microseconds from another history to the word of it.
const TOLD: u64 = 10_000_000;

pub(super) fn check(facts: &Facts<'_>, limits: &Limits, figures: &mut Figures, found: &mut Found) {
    for (user, account) in &facts.accounts {
        count_is_true(facts, user, account, found);
    }
    for (name, device) in &facts.devices {
        let Some(end) = &device.end else {
            let last = device.steps.last().map_or(0, |(line, ..)| *line);
            found.add(Check::Converged, format!("{name} has no end"), &[last]);
            continue;
        };
        // Nobody ever sent anything to a user without a row.
        let nothing = Account {
            line: end.line,
            head: 0,
            unread: 0,
        };
        let account = facts.accounts.get(device.user).unwrap_or(&nothing);
        ends_at_the_head(name, end, account, found);
        shows_what_is_stored(facts, name, device, end, found);
    }
    told_of_another_history(facts, found);
    resources(facts, limits, figures, found);
}

/// Every device is told so once, and in time.
fn told_of_another_history(facts: &Facts<'_>, found: &mut Found) {
    let Some((line, since)) = facts.restored else {
        return;
    };
    for (name, device) in &facts.devices {
        let is_reset =
            |step: &&(usize, u64, Step<'_>)| matches!(step.2, Step::Reset) && step.0 > line;
        let resets: Vec<_> = device.steps.iter().filter(is_reset).collect();
        if resets.len() != 1 {
            let what = format!(
                "{name} was told {} times that the history is another",
                resets.len()
            );
            found.add(Check::Converged, what, &[line]);
        }
        if let Some((told, at, _)) = resets.first()
            && at.saturating_sub(since) > TOLD
        {
            let what = format!(
                "{name} was told after {} ms that the history is another",
                (at - since) / 1_000
            );
            found.add(Check::Late, what, &[line, *told]);
        }
    }
}

fn count_is_true(facts: &Facts<'_>, user: &str, account: &Account, found: &mut Found) {
    let unread = facts
        .rows
        .values()
        .filter(|row| row.user == user && !row.deleted && !row.read)
        .count();
    if u64::try_from(unread) != Ok(account.unread) {
        let what = format!(
            "{user} has {unread} unread rows and counts {}",
            account.unread
        );
        found.add(Check::Converged, what, &[account.line]);
    }
}

fn ends_at_the_head(name: &str, end: &End<'_>, account: &Account, found: &mut Found) {
    let lines = [end.line, account.line];
    if end.last_seq.unwrap_or_default() != account.head {
        let what = format!(
            "{name} ended at {:?}, and the head is {}",
            end.last_seq, account.head
        );
        found.add(Check::Converged, what, &lines);
    }
    if end.count != Some(account.unread) {
        let what = format!(
            "{name} ended with the count {:?}, and {} are unread",
            end.count, account.unread
        );
        found.add(Check::Converged, what, &lines);
    }
}

fn shows_what_is_stored(
    facts: &Facts<'_>,
    name: &str,
    device: &Device<'_>,
    end: &End<'_>,
    found: &mut Found,
) {
    let rows = facts.rows.iter();
    let stored: BTreeSet<_> = rows
        .filter(|(_, row)| row.user == device.user && !row.deleted)
        .map(|(id, row)| (*id, row.seq, row.read))
        .collect();
    let items = end.items.iter();
    let shown: BTreeSet<_> = items
        .map(|item| (item.id.as_str(), item.seq, item.read))
        .collect();
    if stored != shown {
        let missing: Vec<_> = stored.difference(&shown).take(3).collect();
        let extra: Vec<_> = shown.difference(&stored).take(3).collect();
        let mut lines = vec![end.line];
        let differing = missing.iter().chain(&extra);
        lines.extend(differing.filter_map(|(id, ..)| Some(facts.rows.get(id)?.line)));
        let what = format!(
            "{name} shows {} and {} are stored; missing {missing:?}, too many {extra:?}",
            shown.len(),
            stored.len()
        );
        found.add(Check::Converged, what, &lines);
    }
}

fn resources(facts: &Facts<'_>, limits: &Limits, figures: &mut Figures, found: &mut Found) {
    let mut before = BTreeMap::new();
    for (index, line) in facts.history.iter().enumerate() {
        let number = index + 1;
        if let Event::Expect { what, fine: false } = &line.event {
            found.add(Check::Expected, what.clone(), &[number]);
        }
        if let Event::Log { node, panics } = line.event
            && panics > 0
        {
            let what = format!("the log of node {node} tells of {panics} panics");
            found.add(Check::Resources, what, &[number]);
        }
        let Event::Resources {
            node,
            before: is_before,
            resident_bytes,
            peak_bytes,
            descriptors,
            connections,
            threads,
        } = line.event
        else {
            continue;
        };
        let own = descriptors.saturating_sub(connections);
        if is_before {
            before.insert(node, (number, resident_bytes, [own, threads]));
        } else if let Some((then, resident, was)) = before.get(&node) {
            let gained = peak_bytes.saturating_sub(*resident) >> 20;
            figures.memory = figures.memory.max(gained);
            if let Some(limit) = limits.memory
                && gained > limit
            {
                let what = format!("node {node} used {gained} MiB more and may {limit}");
                found.add(Check::Resources, what, &[*then, number]);
            }
            let names = ["descriptors of its own", "threads"];
            for ((name, slack), (was, now)) in
                names.iter().zip(SLACK).zip(was.iter().zip([own, threads]))
            {
                if now > was + was / 10 + slack {
                    let what = format!("node {node} has {now} {name}, {was} before");
                    found.add(Check::Resources, what, &[*then, number]);
                }
            }
        }
    }
}
