//! What devices say that they have received: gathered, and noted in the store a second after the first of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{Confirmation, Store};
use crate::user::UserId;

/// For how long they are gathered.
const GATHERING: Duration = Duration::from_secs(1);

/// Users that one statement is about, and notifications that it notes, more or less: so long it holds their
/// inboxes. Many devices that come back together have much to confirm.
const AT_ONCE: usize = 500;
const NOTED_AT_ONCE: u64 = 10_000;

/// Users whose receipts wait while the store is away; those of others are dropped. A receipt promises
/// nothing: it tells support and dashboards what arrived.
const WAITING: usize = 20_000;

/// The receipts of this node's users that are not noted yet. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Receipts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<UserId, Span>>,
    came: Notify,
}

/// Seqs above the one and up to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    above: u64,
    seq: u64,
}

impl Receipts {
    /// A device of the user has received what is above `above`, up to `seq`.
    pub fn add(&self, user: &UserId, above: u64, seq: u64) {
        self.0.came.notify_one();
        let mut waiting = self.0.waiting.lock();
        if let Some(span) = waiting.get_mut(user) {
            span.above = span.above.min(above);
            span.seq = span.seq.max(seq);
        } else if waiting.len() < WAITING {
            waiting.insert(user.clone(), Span { above, seq });
        }
    }

    /// Notes in the store what comes, for the life of the node, and what is there when it ends.
    pub async fn keep(self, store: Store, metrics: Arc<Metrics>, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = self.gathered() => false,
                () = stop.cancelled() => true,
            };
            self.note(&store, &metrics).await;
            if stopping {
                return;
            }
        }
    }

    /// Some have come, and others had time to come too.
    async fn gathered(&self) {
        self.0.came.notified().await;
        tokio::time::sleep(GATHERING).await;
    }

    /// Everything that waits now, once; what could not be noted waits for the next time.
    async fn note(&self, store: &Store, metrics: &Metrics) {
        let mut rest = self.take();
        while !rest.is_empty() {
            let some = rest.split_off(rest.len() - at_once(&rest));
            let (held, failed) = match store.confirm(&some).await {
                Ok(held) => (held, false),
                Err(error) => {
                    metrics.store_errors.of((&error).into()).increment(1);
                    tracing::debug!(error = &error as &dyn std::error::Error, "receipts wait");
                    (some, true)
                }
            };
            self.put_back(held);
            if failed {
                return self.put_back(rest);
            }
        }
    }

    fn take(&self) -> Vec<Confirmation> {
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        let confirmation = |(user, Span { above, seq })| Confirmation { user, above, seq };
        waiting.into_iter().map(confirmation).collect()
    }

    fn put_back(&self, confirmations: Vec<Confirmation>) {
        for Confirmation { user, above, seq } in confirmations {
            self.add(&user, above, seq);
        }
    }
}

/// How many of them, from the end, one statement takes: one at least.
fn at_once(confirmations: &[Confirmation]) -> usize {
    let noted = |said: &Confirmation| said.seq.saturating_sub(said.above);
    let last = confirmations.iter().rev().take(AT_ONCE);
    let sums = last.scan(0_u64, |sum, said| {
        *sum = sum.saturating_add(noted(said));
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= NOTED_AT_ONCE).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_of_several_devices_are_one_span() {
        let (receipts, user) = (Receipts::default(), UserId::try_from("42").unwrap());
        for (above, seq) in [(5, 9), (3, 7), (9, 9)] {
            receipts.add(&user, above, seq);
        }
        let spans = receipts.take();
        let expected = Confirmation {
            user,
            above: 3,
            seq: 9,
        };
        assert_eq!(spans, [expected]);
        receipts.put_back(spans.clone());
        assert_eq!(receipts.take(), spans);
        assert_eq!(receipts.take(), []);
    }

    #[test]
    fn what_waits_is_bounded() {
        let receipts = Receipts::default();
        for number in 0..WAITING + 10 {
            receipts.add(
                &UserId::try_from(number.to_string().as_str()).unwrap(),
                0,
                1,
            );
        }
        assert_eq!(receipts.take().len(), WAITING);
    }

    #[test]
    fn one_statement_takes_few_users_or_users_with_little() {
        let said = |above, seq| Confirmation {
            user: UserId::try_from("42").unwrap(),
            above,
            seq,
        };
        assert_eq!(at_once(&vec![said(7, 8); 3]), 3);
        assert_eq!(at_once(&vec![said(7, 8); AT_ONCE + 1]), AT_ONCE);
        assert_eq!(at_once(&vec![said(0, 500); 100]), 20);
        assert_eq!(at_once(&[said(7, 8), said(0, u64::MAX)]), 1);
    }
}
