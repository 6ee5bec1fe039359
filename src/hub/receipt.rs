//! How far one socket's client says that it has received, and how long that took.

use std::collections::VecDeque;

use crate::announce::now_ms;

/// Changes whose time is remembered until the client confirms them; of a client that confirms more
/// rarely, the earlier ones are not measured.
const MEASURED: usize = 32;

/// Empty for a client that confirms nothing, which most do not.
#[derive(Debug)]
pub(super) struct Receipt {
    /// Up to here it was confirmed; `u64::MAX`: not known yet where it starts.
    confirmed: u64,
    /// When changes that were sent since were published, in milliseconds since 1970, by their seqs. `None` until
    /// the client confirms for the first time.
    sent: Option<VecDeque<(u64, u64)>>,
}

impl From<u64> for Receipt {
    /// A client that has everything up to `seq`, or of which that is not known yet: `u64::MAX`.
    fn from(seq: u64) -> Self {
        Self {
            confirmed: seq,
            sent: None,
        }
    }
}

impl Receipt {
    /// The client begins with what comes after `seq`: it has no other beginning.
    pub(super) fn starts_at(&mut self, seq: u64) {
        if self.confirmed > seq {
            self.confirmed = seq;
        }
    }

    pub(super) fn sent(&mut self, seq: u64, published_at: u64) {
        if let Some(sent) = self.sent.as_mut().filter(|_| seq > 0) {
            if sent.len() == MEASURED {
                sent.pop_front();
            }
            sent.push_back((seq, published_at));
        }
    }

    /// Confirms up to `seq`. Answers what of it is news, above the one and up to the other, and how many
    /// seconds each of the measured changes took.
    pub(super) fn take(&mut self, seq: u64) -> (u64, u64, Vec<f64>) {
        let above = self.confirmed.min(seq);
        if self.confirmed < seq {
            self.confirmed = seq;
        }
        let sent = self.sent.get_or_insert_default();
        let known = sent.iter().take_while(|(sent, _)| *sent <= seq).count();
        let waits = sent.drain(..known);
        let waits = waits.map(|(_, published_at)| seconds_since(published_at));
        (above, seq, waits.collect())
    }
}

/// By this node's wall clock: 0 if that is behind.
pub(super) fn seconds_since(published_at: u64) -> f64 {
    let milliseconds = u32::try_from(now_ms().saturating_sub(published_at)).unwrap_or(u32::MAX);
    f64::from(milliseconds) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_confirmed_once() {
        let mut receipt = Receipt::from(u64::MAX);
        receipt.starts_at(5);
        assert_eq!(receipt.take(7).0, 5);
        receipt.sent(8, now_ms());
        receipt.sent(9, now_ms());
        let (above, seq, waits) = receipt.take(8);
        assert_eq!((above, seq, waits.len()), (7, 8, 1));
        assert_eq!(receipt.take(8).0, 8);
        assert_eq!(receipt.take(3).0, 3);
        assert_eq!(receipt.take(9).2.len(), 1);
    }

    #[test]
    fn a_client_that_never_confirms_costs_nothing() {
        let mut receipt = Receipt::from(0);
        receipt.sent(1, 1);
        assert!(receipt.sent.is_none());
        receipt.take(1);
        for seq in 2..1_000 {
            receipt.sent(seq, 1);
        }
        assert_eq!(receipt.sent.unwrap().len(), MEASURED);
    }

    #[test]
    fn a_history_that_was_replaced_starts_lower() {
        let mut receipt = Receipt::from(900);
        receipt.starts_at(3);
        assert_eq!(receipt.take(4).0, 3);
    }
}
