//! The rig: Redis, PostgreSQL and nodes as processes in a temporary folder, proxies between them, and what they hold at the end.

mod balancer;
mod company;
mod database;
mod disk;
mod node;
mod process;
mod sentinels;
mod services;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use parking_lot::Mutex;
use tempfile::TempDir;

pub use company::{Company, Way};
pub use node::Node;
pub use process::{Process, is_root};
pub use sentinels::Sentinels;
pub use services::{Postgres, Redis};

use crate::history::Recorder;
use crate::load::Cluster;
use crate::proxy::Proxy;
use disk::Disk;
use node::Common;

/// Why the rig itself failed: this says nothing about what it tests.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("cannot {0} {1}: {2}")]
    Io(&'static str, String, #[source] io::Error),
    #[error("{0} {1}:\n{2}")]
    Failed(String, &'static str, String),
    #[error("{0}")]
    Late(String),
}

impl Trouble {
    pub(crate) fn io(doing: &'static str, what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |error| Self::Io(doing, what, error)
    }

    /// With the end of what it wrote.
    fn of_process(did: &'static str, process: &Process) -> Self {
        let log = process.log();
        let lines: Vec<_> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(20)..);
        Self::Failed(
            process.name().to_owned(),
            did,
            end.unwrap_or_default().join("\n"),
        )
    }
}

/// How the rig is built.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub program: &'a Path,
    pub nodes: usize,
    pub seed: u64,
    /// Settings of all nodes, beside those that the rig needs.
    pub settings: &'a [(&'a str, &'a str)],
    /// How nodes find Redis.
    pub way: Way,
    /// Each node has a clock of its own, which can be set.
    pub clocks: bool,
}

pub struct Rig {
    // In the order in which they end.
    pub nodes: Vec<Node>,
    pub sentinels: Option<Sentinels>,
    pub company: Company,
    pub redis: Redis,
    pub postgres: Postgres,
    pub recorder: Arc<Recorder>,
    disk: Mutex<Option<Disk>>,
    folder: TempDir,
}

const SECRET: &str = "a secret of the fault rig, of enough bytes";
const API_KEY: &str = "the publisher of the fault rig";

impl Rig {
    pub async fn start(plan: &Plan<'_>, recorder: Arc<Recorder>) -> Result<Self, Trouble> {
        let folder = tempfile::Builder::new()
            .prefix("bellhop-faults.")
            .tempdir()
            .map_err(Trouble::io("make", "a temporary folder"))?;
        open_to_other_users(folder.path())?;
        // A copy, so that a build meanwhile does not change what is tested.
        let program = folder.path().join("bellhop");
        std::fs::copy(plan.program, &program)
            .map_err(Trouble::io("copy", &plan.program.display().to_string()))?;

        let redis = Redis::start(folder.path(), company::arguments(plan.way)).await?;
        let sentinels = match plan.way {
            Way::Sentinels => Some(Sentinels::over(&redis, folder.path()).await?),
            Way::Alone | Way::Cluster | Way::Two => None,
        };
        let company = Company::of(&redis, plan.way, folder.path()).await?;
        let postgres = Postgres::start(folder.path()).await?;
        let common = Common {
            program: &program,
            folder: folder.path(),
            settings: settings(plan),
            redis: &redis,
            company: &company,
            postgres: &postgres,
            sentinels: sentinels.as_ref(),
            clocks: plan.clocks,
            seed: plan.seed,
        };
        let mut nodes = Vec::new();
        for number in 0..plan.nodes {
            nodes.push(Node::start(number, &common).await?);
        }
        Ok(Self {
            nodes,
            sentinels,
            company,
            redis,
            postgres,
            recorder,
            disk: Mutex::default(),
            folder,
        })
    }

    /// Where clients find the nodes.
    pub fn cluster(&self) -> Result<Cluster, Trouble> {
        let through = |proxy: fn(&Node) -> &Proxy| {
            let nodes = self.nodes.iter();
            nodes.map(|node| proxy(node).address()).collect()
        };
        let ways = [through(|node| &node.front), through(|node| &node.thin)];
        Cluster::new(ways, SECRET.to_owned(), API_KEY.to_owned())
            .map_err(|error| Trouble::Late(format!("no HTTP client: {error}")))
    }

    /// Moves slots between those of a cluster.
    pub async fn move_slots(&self) -> Result<(), Trouble> {
        self.company
            .move_slots(&self.redis, self.folder.path())
            .await
    }

    /// Puts what users have onto a small disk, and fills that.
    pub async fn fill_the_disk(&self) -> Result<(), Trouble> {
        let disk = Disk::mount(self.folder.path())?;
        let place = disk.folder().display().to_string();
        *self.disk.lock() = Some(disk);
        for statement in [
            format!("CREATE TABLESPACE small LOCATION '{place}'"),
            "ALTER TABLE notification SET TABLESPACE small".to_owned(),
        ] {
            self.postgres.ask(&statement).await?;
        }
        self.disk.lock().as_ref().map_or(Ok(()), Disk::fill)
    }

    pub fn empty_the_disk(&self) -> Result<(), Trouble> {
        self.disk.lock().as_ref().map_or(Ok(()), Disk::empty)
    }

    /// Writes what each node uses.
    pub fn measure(&self, before: bool) {
        for node in &self.nodes {
            if let Some(resources) = node.resources(before) {
                self.recorder.add(resources);
            }
        }
    }

    /// Keeps the folder, logs and data, when the rig ends; answers where it is.
    pub fn keep(mut self) -> std::path::PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

fn settings(plan: &Plan<'_>) -> Vec<(String, String)> {
    let own = [
        ("JWT_SECRET", SECRET),
        ("BELLHOP_PING_INTERVAL_MS", "10000"),
        ("BELLHOP_PING_TIMEOUT_MS", "10000"),
        ("BELLHOP_LOG_FORMAT", "text"),
        ("RUST_LOG", "info"),
        ("RUST_BACKTRACE", "1"),
    ];
    let mut settings: Vec<_> = own
        .iter()
        .chain(plan.settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    settings.push((
        "BELLHOP_API_KEYS".to_owned(),
        Cluster::api_key_setting(API_KEY),
    ));
    settings
}

/// PostgreSQL refuses to be root, so it reaches its data as another user.
fn open_to_other_users(folder: &Path) -> Result<(), Trouble> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(folder, permissions)
        .map_err(Trouble::io("open", "the temporary folder"))
}

/// Where the programs are.
#[expect(
    clippy::disallowed_methods,
    reason = "what it starts is found where the shell finds it"
)]
fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// An address where nobody listens, below the range that outgoing connections take.
fn free_address() -> Result<SocketAddr, Trouble> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 97).unwrap_or_default();
    for _ in 0..1_000 {
        let step = NEXT.fetch_add(1, Ordering::SeqCst) % 9_000;
        let port = 20_000 + (own * 103 + step) % 9_999;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Trouble::Late("no free port was found".to_owned()))
}
