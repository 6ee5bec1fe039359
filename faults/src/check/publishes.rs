//! What publishers were told: order in real time (C6), uncertain ones whole (C7), one row a key (C8), stored (C9).

use std::collections::BTreeMap;

use super::facts::{Facts, Publish, Row};
use super::{Check, Found};
use crate::history::Event;

/// The rows of each key, with their ids.
type Rows<'f> = BTreeMap<&'f str, Vec<(&'f str, &'f Row<'f>)>>;

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    let mut rows = Rows::new();
    for (id, row) in &facts.rows {
        match row.key {
            Some(key) => rows.entry(key).or_default().push((id, row)),
            None => {
                let what = format!("{id} was stored, and nobody published it");
                found.add(Check::Acknowledged, what, &[row.line]);
            }
        }
    }

    real_time_order(facts, &rows, found);
    for (key, publish) in &facts.publishes {
        let rows = rows.get(key).map_or(&[][..], Vec::as_slice);
        one_row(key, publish, rows, found);
        acknowledged_is_stored(key, publish, facts, found);
        if publish.answers.is_empty() {
            outcome_without_answer(key, publish, rows, facts, found);
        }
    }
    for (key, rows) in rows {
        if !facts.publishes.contains_key(key) {
            let lines: Vec<_> = rows.iter().map(|(_, row)| row.line).collect();
            let what = format!("key {key} was stored, and nobody published it");
            found.add(Check::Acknowledged, what, &lines);
        }
    }
}

/// Walks through time: what is invoked now must come above all that was acknowledged before.
fn real_time_order(facts: &Facts<'_>, rows: &Rows<'_>, found: &mut Found) {
    let mut acknowledged: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for (index, line) in facts.history.iter().enumerate() {
        let number = index + 1;
        if matches!(line.event, Event::Restored {}) {
            acknowledged.clear();
        }
        if let Event::Ok { user, seq, .. } = &line.event {
            let highest = acknowledged.entry(user).or_default();
            *highest = (*highest).max((*seq, number));
        }
        let Event::Invoke { key, user } = &line.event else {
            continue;
        };
        let Some(publish) = facts.publishes.get(key.as_str()) else {
            continue;
        };
        if publish.invoked != number {
            continue; // a repeat
        }
        // Begun in one history and answered by another, it has its place in neither.
        let later = |line: usize| facts.restored.is_some_and(|(restored, _)| line > restored);
        let answer = publish.answers.first();
        if answer.is_some_and(|answer| later(answer.line) != later(number)) {
            continue;
        }
        let answered = publish.answers.first().map(|answer| answer.seq);
        let stored = || Some(rows.get(key.as_str())?.first()?.1.created_seq);
        let before = acknowledged.get(user.as_str());
        if let (Some(seq), Some((highest, at))) = (answered.or_else(stored), before)
            && seq <= *highest
        {
            let what = format!("key {key} got seq {seq}, begun after {highest} was acknowledged");
            found.add(Check::RealTime, what, &[*at, number]);
        }
    }
}

fn one_row(key: &str, publish: &Publish<'_>, rows: &[(&str, &Row<'_>)], found: &mut Found) {
    if rows.len() > 1 {
        let lines: Vec<_> = rows.iter().map(|(_, row)| row.line).collect();
        found.add(
            Check::OneRow,
            format!("key {key} made {} rows", rows.len()),
            &lines,
        );
    }
    let Some((first, others)) = publish.answers.split_first() else {
        return;
    };
    for other in others {
        if (other.id, other.seq) != (first.id, first.seq) {
            let what = format!("key {key} was answered {} and {}", first.id, other.id);
            found.add(Check::OneRow, what, &[first.line, other.line]);
        }
    }
}

fn acknowledged_is_stored(key: &str, publish: &Publish<'_>, facts: &Facts<'_>, found: &mut Found) {
    for answer in &publish.answers {
        let Some(row) = facts.rows.get(answer.id) else {
            let what = format!(
                "key {key} was acknowledged as {}, which is not stored",
                answer.id
            );
            found.add(Check::Acknowledged, what, &[answer.line]);
            continue;
        };
        if (row.created_seq, row.user) != (answer.seq, publish.user) {
            let what = format!(
                "{} was acknowledged with seq {} and is stored with {}",
                answer.id, answer.seq, row.created_seq
            );
            found.add(Check::Acknowledged, what, &[answer.line, row.line]);
        }
    }
}

/// Without an acknowledgement: refused is nowhere; unknown is on every device or on none.
fn outcome_without_answer(
    key: &str,
    publish: &Publish<'_>,
    rows: &[(&str, &Row<'_>)],
    facts: &Facts<'_>,
    found: &mut Found,
) {
    if let (Some((id, row)), Some(refused)) = (rows.first(), publish.refused.first())
        && publish.unknown.is_empty()
    {
        let what = format!("key {key} was refused, and is stored as {id}");
        found.add(Check::Acknowledged, what, &[*refused, row.line]);
    }
    let (mut seen, mut unseen) = (Vec::new(), Vec::new());
    for (name, device) in facts.devices_of(publish.user) {
        let sight = device.sights.iter().find(|sight| sight.key == Some(key));
        let shown = match rows {
            [] => sight.is_some(),
            rows => rows.iter().any(|(id, _)| device.shown.contains_key(id)),
        };
        match shown {
            true => seen.push(sight.map_or(publish.invoked, |sight| sight.line)),
            false => unseen.push(name),
        }
    }
    let deleted = rows.iter().any(|(_, row)| row.deleted);
    let partly = !seen.is_empty() && !unseen.is_empty();
    let stored_unseen = !rows.is_empty() && !unseen.is_empty();
    let seen_unstored = rows.is_empty() && !seen.is_empty();
    if (partly || stored_unseen || seen_unstored) && !deleted {
        let mut lines = vec![publish.invoked];
        lines.extend(publish.unknown.first());
        lines.extend(seen.first());
        let what = format!(
            "key {key}, of unknown outcome, has {} rows, was seen by {} devices and not by {unseen:?}",
            rows.len(),
            seen.len()
        );
        found.add(Check::AllOrNone, what, &lines);
    }
}
