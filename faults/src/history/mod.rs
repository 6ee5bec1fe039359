//! What happened in a run, as lines of JSON: publishes, what devices heard, faults, and the database at the end.

mod recorder;

use std::io::BufRead;

use serde::{Deserialize, Serialize};

pub use recorder::Recorder;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the run began. Lines are in this order.
    pub at: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// A notification as a list or a device has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: String,
    pub seq: u64,
    /// Whose it says it is.
    pub owner: String,
    /// The key that its publisher put into it.
    pub key: Option<String>,
    pub read: bool,
}

/// A publish is known by its idempotency key: repeats of one key are one publish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum Event {
    /// What was run: the first line.
    #[serde(rename = "run")]
    Run {
        scenario: String,
        seed: u64,
        /// SHA-256 of the program under test.
        program: String,
    },
    /// A request is about to be sent.
    #[serde(rename = "pub.invoke")]
    Invoke { key: String, user: String },
    /// It was acknowledged. `millis`: how long this one request took.
    #[serde(rename = "pub.ok")]
    Ok {
        key: String,
        user: String,
        id: String,
        seq: u64,
        deferred: bool,
        millis: u64,
    },
    /// It was certainly not carried out: refused, or never sent.
    #[serde(rename = "pub.fail")]
    Fail {
        key: String,
        user: String,
        why: String,
        millis: u64,
    },
    /// Nobody knows whether it was carried out: the answer was lost, or says so.
    #[serde(rename = "pub.info")]
    Info {
        key: String,
        user: String,
        why: String,
        millis: u64,
    },
    /// A device of `user` heard an event of a change.
    #[serde(rename = "recv")]
    Recv {
        device: String,
        user: String,
        name: String,
        /// Empty for changes of the whole inbox.
        id: String,
        seq: u64,
        /// Whose notification it says it is, where it says so.
        owner: Option<String>,
        key: Option<String>,
    },
    /// What it had heard was new to it, and is shown now.
    #[serde(rename = "apply")]
    Apply {
        device: String,
        user: String,
        id: String,
        seq: u64,
    },
    /// The scenario makes this device slow: how late it hears is no lag of the cluster.
    #[serde(rename = "slow")]
    Slow { device: String },
    /// The scenario holds what publishes to this user need: that they fail, or take long, is no fault of the cluster.
    #[serde(rename = "held")]
    Held { user: String },
    #[serde(rename = "count")]
    Count {
        device: String,
        user: String,
        count: u64,
        seq: u64,
    },
    #[serde(rename = "connect")]
    Connect {
        device: String,
        user: String,
        node: usize,
        last_seq: Option<u64>,
    },
    #[serde(rename = "synced")]
    Synced {
        device: String,
        user: String,
        seq: u64,
        epoch: String,
        replayed: u64,
    },
    #[serde(rename = "refresh")]
    Refresh {
        device: String,
        user: String,
        reason: String,
        seq: u64,
    },
    #[serde(rename = "disconnect")]
    Disconnect {
        device: String,
        user: String,
        why: String,
    },
    /// A device fetched its whole list.
    #[serde(rename = "list")]
    List {
        device: String,
        user: String,
        seq: u64,
        unread: u64,
        items: Vec<Item>,
    },
    #[serde(rename = "fault.start")]
    FaultStart { fault: String },
    #[serde(rename = "fault.stop")]
    FaultStop { fault: String },
    /// What a scenario itself expects, beside the checks; `fine` is whether it was so.
    #[serde(rename = "expect")]
    Expect { what: String, fine: bool },
    /// A figure of the scenario's own.
    #[serde(rename = "remark")]
    Remark { what: String },
    /// An older copy of the database has taken its place: what it had not got is gone, and no seq means what it did.
    #[serde(rename = "restored")]
    Restored {},
    /// What a node used, by its process: under load before the fault (`before`), and at rest at the end.
    #[serde(rename = "resources")]
    Resources {
        node: usize,
        before: bool,
        resident_bytes: u64,
        /// The most of it since the first of these lines, or since the process began.
        peak_bytes: u64,
        descriptors: u64,
        /// How many of these are connections of clients, which come and go between nodes.
        connections: u64,
        threads: u64,
    },
    /// What a node's log says that it never should.
    #[serde(rename = "log")]
    Log { node: usize, panics: u64 },
    /// What a device shows at the end.
    #[serde(rename = "device.end")]
    DeviceEnd {
        device: String,
        user: String,
        last_seq: Option<u64>,
        count: Option<u64>,
        items: Vec<Item>,
    },
    #[serde(rename = "db.user")]
    DatabaseUser {
        user: String,
        head: u64,
        unread: u64,
    },
    #[serde(rename = "db.row")]
    DatabaseRow {
        user: String,
        id: String,
        created_seq: u64,
        seq: u64,
        key: Option<String>,
        read: bool,
        deleted: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the history cannot be read")]
    Io(#[from] std::io::Error),
    #[error("line {0} of the history is not one of its events")]
    Line(usize, #[source] serde_json::Error),
}

/// Reads a history as it was written.
pub fn read(from: impl BufRead) -> Result<Vec<Line>, ReadError> {
    from.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(&line?).map_err(|error| ReadError::Line(index + 1, error))
        })
        .collect()
}
