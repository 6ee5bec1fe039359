//! Every metric of a node, in one table: its name, its labels, and the help that `/metrics` shows.
//!
//! Labels come from closed enums, so the number of series is fixed when a node starts, and every series
//! is there from the start, at 0. Never a user, a room, a path or anything else that somebody wrote.

use std::marker::PhantomData;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Upper bounds of the latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One series per value of the label set `L`.
#[derive(Debug)]
pub struct Family<M, L> {
    series: Vec<M>,
    labels: PhantomData<L>,
}

impl<M: Instrument, L: Labels> Family<M, L> {
    fn register(recorder: &PrometheusRecorder, name: &'static str, help: &'static str) -> Self {
        M::describe(recorder, name, help);
        let key = |labels: L| Key::from_parts(name, labels.pairs());
        let series = L::all()
            .into_iter()
            .map(|labels| M::register(recorder, &key(labels)))
            .collect();
        Self {
            series,
            labels: PhantomData,
        }
    }

    /// The series of these labels.
    pub fn of(&self, labels: L) -> &M {
        &self.series[labels.index()]
    }
}

/// A set of labels with finitely many values, numbered from 0.
pub trait Labels: Copy {
    fn all() -> Vec<Self>;
    fn index(self) -> usize;
    fn pairs(self) -> Vec<Label>;
}

impl Labels for () {
    fn all() -> Vec<Self> {
        vec![()]
    }
    fn index(self) -> usize {
        0
    }
    fn pairs(self) -> Vec<Label> {
        Vec::new()
    }
}

impl<A: Labels, B: Labels> Labels for (A, B) {
    fn all() -> Vec<Self> {
        A::all()
            .into_iter()
            .flat_map(|a| B::all().into_iter().map(move |b| (a, b)))
            .collect()
    }
    fn index(self) -> usize {
        self.0.index() * B::all().len() + self.1.index()
    }
    fn pairs(self) -> Vec<Label> {
        [self.0.pairs(), self.1.pairs()].concat()
    }
}

/// The three kinds of metric, as the table names them.
pub trait Instrument {
    fn describe(recorder: &PrometheusRecorder, name: &'static str, help: &'static str);
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self;
}

const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

macro_rules! instrument {
    ($kind:ty, $describe:ident, $register:ident) => {
        impl Instrument for $kind {
            fn describe(recorder: &PrometheusRecorder, name: &'static str, help: &'static str) {
                recorder.$describe(KeyName::from_const_str(name), None, help.trim().into());
            }
            fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
                recorder.$register(key, &METADATA)
            }
        }
    };
}
instrument!(Counter, describe_counter, register_counter);
instrument!(Gauge, describe_gauge, register_gauge);
instrument!(Histogram, describe_histogram, register_histogram);

/// Declares a label: an enum whose variants are the label's values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $label:literal: $($variant:ident = $value:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            /// As the label and the log spell it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }

        impl Labels for $name {
            fn all() -> Vec<Self> { vec![$(Self::$variant),+] }
            fn index(self) -> usize { self as usize }
            fn pairs(self) -> Vec<Label> { vec![Label::from_static_parts($label, self.as_str())] }
        }
    };
}

label!(
    /// How a socket is connected.
    Transport, "transport": Websocket = "websocket", Polling = "polling");
label!(
    /// Why a socket is gone.
    Closed, "reason": Client = "client", PingTimeout = "ping_timeout", TransportError = "transport_error",
    Drain = "drain", SlowConsumer = "slow_consumer", AuthExpired = "auth_expired", Kicked = "kicked", Protocol = "protocol");
label!(
    /// Why a handshake was refused.
    Rejected, "reason": Auth = "auth", Limit = "limit", RateLimited = "rate_limited", Draining = "draining",
    Origin = "origin", Protocol = "protocol", Disabled = "disabled");
label!(
    /// What a returning client was given.
    Resumed, "result": Replayed = "replayed", NothingMissed = "nothing_missed", Refresh = "refresh", Fresh = "fresh");
label!(
    /// The priority of a created notification.
    Priority, "priority": Low = "LOW", Normal = "NORMAL", High = "HIGH", Urgent = "URGENT");
label!(
    /// Why a notification is gone.
    Deleted, "reason": Deleted = "deleted", Withdrawn = "withdrawn", Expired = "expired");
label!(
    /// The way of a change from the node that accepted it to the socket.
    Path, "path": Local = "local", Remote = "remote", Repair = "repair");
label!(
    /// Whether other nodes were told of a transient emit.
    Emitted, "result": Live = "live", Local = "local");
label!(
    /// Why a message did not go to a socket, or was not understood.
    Dropped, "reason": TransientFull = "transient_full", TransientSyncing = "transient_syncing",
    UnknownVersion = "unknown_version", BadEnvelope = "bad_envelope");
label!(
    /// What started a read of what was missed.
    Repair, "kind": Gap = "gap", Bus = "bus", Feed = "feed", Stall = "stall");
label!(
    /// What a statement read for sockets.
    SocketRead, "kind": Standing = "standing", Missed = "missed", Feed = "feed");
label!(
    /// The way of a bus message, seen from this node.
    Direction, "direction": Published = "published", Received = "received", Ignored = "ignored");
label!(
    /// What the bus could not do.
    BusError, "kind": Publish = "publish", Subscribe = "subscribe", Timeout = "timeout", Lagged = "lagged", Probe = "probe");
label!(
    /// What the store could not do.
    StoreError, "kind": Unavailable = "unavailable", Failed = "failed");

/// Declares the table: one field per metric; its doc comment is the help text.
macro_rules! metrics {
    ($( #[doc = $help:literal] $field:ident: $kind:ty, $labels:ty = $name:literal; )*) => {
        /// The metrics of one node. Several nodes of one process do not share them.
        pub struct Metrics {
            recorder: PrometheusRecorder,
            handle: PrometheusHandle,
            $( #[doc = $help] pub $field: Family<$kind, $labels>, )*
        }

        impl Metrics {
            /// Every metric's name and help, in the order of the table.
            pub const TABLE: &[(&str, &str)] = &[ $( ($name, $help) ),* ];

            fn with(recorder: PrometheusRecorder) -> Self {
                Self {
                    handle: recorder.handle(),
                    $( $field: Family::register(&recorder, $name, $help), )*
                    recorder,
                }
            }
        }
    };
}

metrics! {
    /// Open sockets by their present transport.
    connections: Gauge, Transport = "bellhop_connections";
    /// Open sockets that this node takes at most.
    connections_limit: Gauge, () = "bellhop_connections_limit";
    /// Users with at least one open socket on this node.
    users_connected: Gauge, () = "bellhop_users_connected";
    /// Sockets that were authenticated and entered their user's room.
    connections_opened: Counter, Transport = "bellhop_connections_opened_total";
    /// Sockets that ended, by transport and reason.
    connections_closed: Counter, (Transport, Closed) = "bellhop_connections_closed_total";
    /// Handshakes and connects that were refused.
    connections_rejected: Counter, Rejected = "bellhop_connections_rejected_total";
    /// Clients that came back: by what they were given.
    reconnections: Counter, Resumed = "bellhop_reconnections_total";
    /// Notifications written to the store.
    created: Counter, Priority = "bellhop_notifications_created_total";
    /// Notifications that their users marked read, one by one or all at once.
    read: Counter, () = "bellhop_notifications_read_total";
    /// Notifications that their users clicked.
    clicked: Counter, () = "bellhop_notifications_clicked_total";
    /// Notifications that are gone: deleted by their users, withdrawn by publishers, or expired.
    deleted: Counter, Deleted = "bellhop_notifications_deleted_total";
    /// Changes that devices said they have received, each device's on its own.
    confirmed: Counter, () = "bellhop_notifications_confirmed_total";
    /// Seconds from the acceptance of a change to a device's word that it has received it; wall clocks of two nodes at times.
    confirm_latency: Histogram, () = "bellhop_confirm_latency_seconds";
    /// Transient emits accepted, by whether other nodes were told.
    emits: Counter, Emitted = "bellhop_emits_total";
    /// Changes and transient emits handed to sockets, by the socket's transport.
    delivered: Counter, Transport = "bellhop_messages_delivered_total";
    /// Messages that were not handed to a socket, or not understood.
    dropped: Counter, Dropped = "bellhop_messages_dropped_total";
    /// Seconds from the acceptance of a change or emit to its hand-over to a socket; wall clocks of two nodes for the path remote.
    delivery_latency: Histogram, Path = "bellhop_delivery_latency_seconds";
    /// Reads of the store because a socket might have missed something.
    repairs: Counter, Repair = "bellhop_repairs_total";
    /// Changes that such a read brought to a socket.
    repaired: Counter, Repair = "bellhop_repaired_changes_total";
    /// Statements that read the store for sockets, each for many of them: as they connect, what they missed, and the feed's comparisons.
    socket_reads: Counter, SocketRead = "bellhop_socket_reads_total";
    /// Seconds in which the feed compares every user of this node with the store once; it stretches rather than load the store.
    feed_period: Gauge, () = "bellhop_feed_period_seconds";
    /// Seconds since the feed last had compared every user of this node with the store.
    feed_lag: Gauge, () = "bellhop_feed_lag_seconds";
    /// Messages published to the bus, received from it, and received but ignored.
    bus_messages: Counter, Direction = "bellhop_bus_messages_total";
    /// What went wrong between this node and Redis.
    bus_errors: Counter, BusError = "bellhop_bus_errors_total";
    /// Times that the link to Redis was established anew.
    bus_reconnections: Counter, () = "bellhop_bus_reconnections_total";
    /// User channels that this node is subscribed to.
    bus_subscriptions: Gauge, () = "bellhop_bus_subscriptions";
    /// Messages waiting to be published.
    bus_queue_length: Gauge, () = "bellhop_bus_queue_length";
    /// 1 while the link to Redis is up and its subscriptions are confirmed; always 1 without Redis.
    redis_up: Gauge, () = "bellhop_redis_up";
    /// 1 while messages between nodes may be lost, and sockets hear of them from the feed.
    degraded: Gauge, () = "bellhop_degraded";
    /// Statements that the store could not carry out.
    store_errors: Counter, StoreError = "bellhop_store_errors_total";
    /// 1 while the node is leaving.
    draining: Gauge, () = "bellhop_draining";
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All series at 0, and `bellhop_build_info` at 1.
    #[must_use]
    pub fn new() -> Self {
        let buckets = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &LATENCY_BUCKETS);
        // Fails for an empty list of buckets only.
        let metrics = Self::with(builder.unwrap_or_default().build_recorder());
        metrics.describe_build();
        metrics
    }

    fn describe_build(&self) {
        let name = "bellhop_build_info";
        let version = Label::from_static_parts("version", env!("CARGO_PKG_VERSION"));
        Gauge::describe(
            &self.recorder,
            name,
            "Always 1; says which version this node runs.",
        );
        <Gauge as Instrument>::register(&self.recorder, &Key::from_parts(name, vec![version]))
            .set(1.0);
    }

    /// The text that Prometheus scrapes (text exposition format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded latencies into their buckets; to be called every few seconds, for the time that
    /// nobody scrapes: until then each sample takes memory of its own.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl From<crate::notification::Priority> for Priority {
    fn from(priority: crate::notification::Priority) -> Self {
        match priority {
            crate::notification::Priority::Low => Self::Low,
            crate::notification::Priority::Normal => Self::Normal,
            crate::notification::Priority::High => Self::High,
            crate::notification::Priority::Urgent => Self::Urgent,
        }
    }
}

impl From<crate::notification::Reason> for Deleted {
    fn from(reason: crate::notification::Reason) -> Self {
        match reason {
            crate::notification::Reason::Deleted => Self::Deleted,
            crate::notification::Reason::Withdrawn => Self::Withdrawn,
            crate::notification::Reason::Expired => Self::Expired,
        }
    }
}

impl From<&crate::store::StoreError> for StoreError {
    fn from(error: &crate::store::StoreError) -> Self {
        use crate::store::StoreError as Cause;
        match error {
            Cause::Unavailable(_) => Self::Unavailable,
            Cause::KeyReused | Cause::Failed(_) | Cause::Migration(_) | Cause::Refused(_) => {
                Self::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().render();
        for (name, help) in Metrics::TABLE {
            assert!(
                text.contains(&format!("# HELP {name} {}", help.trim())),
                "{name}: {text}"
            );
        }
        assert!(
            text.contains(
                r#"bellhop_connections_closed_total{transport="polling",reason="slow_consumer"} 0"#
            ),
            "{text}"
        );
    }

    #[test]
    fn the_series_that_is_counted_is_the_one_that_is_named() {
        let metrics = Metrics::new();
        metrics
            .connections_closed
            .of((Transport::Polling, Closed::Protocol))
            .increment(3);
        metrics.delivery_latency.of(Path::Remote).record(0.004);

        let text = metrics.render();
        assert!(
            text.contains(
                r#"bellhop_connections_closed_total{transport="polling",reason="protocol"} 3"#
            ),
            "{text}"
        );
        assert!(
            text.contains(r#"bellhop_delivery_latency_seconds_bucket{path="remote",le="0.005"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(
                r#"bellhop_delivery_latency_seconds_bucket{path="remote",le="0.0025"} 0"#
            ),
            "{text}"
        );
    }
}
