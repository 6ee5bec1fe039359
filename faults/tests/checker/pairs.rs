//! Lines of a history that belong together, for corruptions that need two.

use std::collections::BTreeMap;

use faults::history::{Event, Line};

/// Pairs of lines, of one kind, that follow each other on one connection of a device.
pub(crate) fn neighbours(history: &[Line], what: fn(&Event) -> bool) -> Vec<(usize, usize)> {
    let mut last: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (index, line) in history.iter().enumerate() {
        match &line.event {
            Event::Recv { device, seq, .. } | Event::Apply { device, seq, .. }
                if what(&line.event) =>
            {
                let is_new = *seq > highest.get(device.as_str()).copied().unwrap_or_default();
                if let (Some((before, lower)), true) = (last.get(device.as_str()), is_new)
                    && lower < seq
                {
                    pairs.push((*before, index));
                }
                if is_new {
                    last.insert(device, (index, *seq));
                    highest.insert(device, *seq);
                }
            }
            Event::Connect { device, .. } | Event::List { device, .. } => {
                last.remove(device.as_str());
            }
            _ => {}
        }
    }
    pairs
}

type Numbered = (String, u64);

/// Pairs of acknowledged publishes to one user, of which the second began after the first had ended: keys and seqs.
pub(crate) fn successive_publishes(history: &[Line]) -> Vec<(Numbered, Numbered)> {
    let mut last: BTreeMap<&str, Numbered> = BTreeMap::new();
    let mut pairs = Vec::new();
    for line in history {
        if let Event::Ok { key, user, seq, .. } = &line.event {
            let this = (key.clone(), *seq);
            if let Some(before) = last.insert(user, this.clone()) {
                pairs.push((before, this));
            }
        }
    }
    pairs
}

/// Everything that devices hear and show happens this much later, in the fault's time.
pub(crate) fn delay_deliveries(history: &mut Vec<Line>, micros: u64) {
    for line in &mut *history {
        if matches!(line.event, Event::Recv { .. } | Event::Apply { .. }) {
            line.at += micros;
        }
    }
    // Connections last meanwhile: what lag is about.
    history.retain(|line| !matches!(line.event, Event::Disconnect { .. }));
    let mut connected = std::collections::BTreeSet::new();
    history.retain(|line| match &line.event {
        Event::Connect { device, .. } => connected.insert(device.clone()),
        _ => true,
    });
    history.sort_by_key(|line| line.at);
}
