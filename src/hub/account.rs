//! What a socket has been handed and has not yet written: the measure of a slow consumer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Packets handed over and not yet written at which a WebSocket is stalled. Its queue holds more
/// (`FRAMES` of our own, `SOCKET_QUEUE` of the library's), so that pings and acks still find room.
pub(super) const WEBSOCKET_PACKETS: u64 = 256;

/// The same while a socket is on polling, where nothing is written until the client asks again.
pub(super) const POLLING_PACKETS: u64 = 64;

/// Bytes handed over and not yet written at which a socket is stalled.
pub(super) const BYTES: u64 = 256 * 1024;

/// One socket's account. Counts events only: pings, acks and CONNECT are few and small.
#[derive(Debug, Default)]
pub struct Account {
    packets_handed: AtomicU64,
    packets_written: AtomicU64,
    bytes_handed: AtomicU64,
    bytes_written: AtomicU64,
    ended: AtomicBool,
    progress: Notify,
}

/// What is between the hub and the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    pub packets: u64,
    pub bytes: u64,
}

impl Account {
    /// A packet was handed to the socket's queue.
    pub fn handed(&self, bytes: u64) {
        self.packets_handed.fetch_add(1, Ordering::Relaxed);
        self.bytes_handed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Packets went out on the wire.
    pub fn written(&self, packets: u64, bytes: u64) {
        self.packets_written.fetch_add(packets, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.progress.notify_waiters();
    }

    /// What is outstanding now. Never negative: the two sides are counted apart, and may be read apart.
    #[must_use]
    pub fn outstanding(&self) -> Outstanding {
        let between = |handed: &AtomicU64, written: &AtomicU64| {
            handed
                .load(Ordering::Relaxed)
                .saturating_sub(written.load(Ordering::Relaxed))
        };
        let packets = between(&self.packets_handed, &self.packets_written);
        // Bytes are an estimate from the encoded event; with no packet left, none of its error is.
        let bytes = if packets == 0 {
            0
        } else {
            between(&self.bytes_handed, &self.bytes_written)
        };
        Outstanding { packets, bytes }
    }

    /// Whether one more change may be handed over.
    #[must_use]
    pub fn has_room(&self, packets: u64) -> bool {
        let outstanding = self.outstanding();
        outstanding.packets < packets && outstanding.bytes < BYTES
    }

    /// The socket has ended: nobody needs to wait for it any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.progress.notify_waiters();
    }

    /// Returns when less than half of what stalls the socket is outstanding, or the socket has ended.
    /// Waits for as long as the client does not read; the caller sets the deadline.
    pub async fn drained(&self, packets: u64) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let outstanding = self.outstanding();
            let has_drained = outstanding.packets <= packets / 2 && outstanding.bytes <= BYTES / 2;
            if has_drained || self.ended.load(Ordering::Acquire) {
                return;
            }
            progress.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_socket_is_stalled_by_packets_or_by_bytes() {
        let account = Account::default();
        account.handed(BYTES - 1);
        assert!(account.has_room(2));
        account.handed(1);
        assert!(!account.has_room(2), "two packets are outstanding");
        assert!(!account.has_room(3), "too many bytes are outstanding");

        account.written(1, BYTES);
        assert!(account.has_room(2));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_socket_that_has_ended() {
        let account = Account::default();
        (0..4).for_each(|_| account.handed(10));
        tokio::join!(account.drained(4), async { account.end() });
    }

    #[tokio::test]
    async fn drained_means_below_half() {
        let account = Arc::new(Account::default());
        (0..4).for_each(|_| account.handed(10));

        let waiting = Arc::clone(&account);
        let drained = async move { waiting.drained(4).await };
        let write = async {
            account.written(1, 10);
            account.written(1, 10);
        };
        tokio::join!(drained, write);
        assert_eq!(
            account.outstanding(),
            Outstanding {
                packets: 2,
                bytes: 20
            }
        );
    }
}
