//! The figures of a run, for its line of the table.

use super::facts::{Facts, Step};
use std::collections::BTreeSet;

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub samples: usize,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Percentiles {
    pub(super) fn of(mut millis: Vec<u64>) -> Self {
        millis.sort_unstable();
        let at = |percent: usize| {
            let rank = (millis.len() * percent).div_ceil(100).saturating_sub(1);
            millis.get(rank).copied().unwrap_or_default()
        };
        Self {
            samples: millis.len(),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Keys that were acknowledged; that never were, and may have been carried out; that were refused.
    pub acknowledged: usize,
    pub uncertain: usize,
    pub refused: usize,
    /// Pairs of an acknowledged publish and a device that showed it.
    pub delivered: usize,
    /// Changes that came again over the wire.
    pub raw_duplicates: usize,
    /// Acknowledgement to device, where the connection lasted: at rest, and for publishes during the fault.
    pub lag_at_rest: Percentiles,
    pub lag: Percentiles,
    /// The same for publishes from 3 s after the last fault on.
    pub lag_after: Percentiles,
    /// Lost connection to synced again.
    pub recovery: Percentiles,
    /// Publishing requests during the fault.
    pub publish: Percentiles,
    /// Of these, those that failed other than by a refused connection.
    pub failed_publishes: usize,
    /// Of these, those that were answered with a 5xx.
    pub server_errors: usize,
    /// Publishing requests during the fault to users whose row was held; the others leave them out.
    pub held_publish: Percentiles,
    /// Acknowledgements during the fault that say so.
    pub deferred: usize,
    /// MiB that the node that grew most used more than just before the fault.
    pub memory: u64,
}

pub(super) fn count(facts: &Facts<'_>) -> Figures {
    let mut figures = Figures::default();
    for publish in facts.publishes.values() {
        let Some(answer) = publish.answers.first() else {
            match publish.unknown.is_empty() {
                true => figures.refused += 1,
                false => figures.uncertain += 1,
            }
            continue;
        };
        figures.acknowledged += 1;
        let devices = facts.devices_of(publish.user);
        figures.delivered += devices
            .filter(|(_, device)| device.shown.contains_key(answer.id))
            .count();
    }
    for device in facts.devices.values() {
        let mut heard = BTreeSet::new();
        for (_, _, step) in &device.steps {
            if let Step::Heard(id, seq) = step
                && !heard.insert((*seq, *id))
            {
                figures.raw_duplicates += 1;
            }
        }
    }
    figures
}
