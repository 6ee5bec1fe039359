//! A node: the program under test as a process, with a proxy before each of its doors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::company::Company;
use super::process::{Process, Spec};
use super::sentinels::Sentinels;
use super::services::{Postgres, Redis};
use super::{Trouble, free_address};
use crate::history::Event;
use crate::proxy::Proxy;

const START: Duration = Duration::from_secs(30);

pub struct Node {
    pub number: usize,
    pub process: Process,
    /// Before the node: what clients connect to.
    pub front: Proxy,
    /// Before it as well: what those connect to who are to have a thin line.
    pub thin: Proxy,
    /// Between the node and Redis; between the node and PostgreSQL.
    pub redis: Proxy,
    pub postgres: Proxy,
    pub(super) admin: SocketAddr,
    /// Where its clients would connect without the proxy.
    pub listen: SocketAddr,
    /// The file that its clock follows.
    clock: PathBuf,
}

/// What all nodes have in common.
pub struct Common<'a> {
    pub program: &'a Path,
    pub folder: &'a Path,
    pub settings: Vec<(String, String)>,
    pub redis: &'a Redis,
    pub company: &'a Company,
    pub postgres: &'a Postgres,
    pub sentinels: Option<&'a Sentinels>,
    pub clocks: bool,
    pub seed: u64,
}

impl Node {
    pub async fn start(number: usize, common: &Common<'_>) -> Result<Self, Trouble> {
        let (listen, admin) = (free_address()?, free_address()?);
        let seed = common.seed.wrapping_add(number as u64 * 3_000);
        let proxy = |target, part| {
            let proxy = Proxy::before(target, seed + part);
            proxy.map_err(Trouble::io("stand before", "a node"))
        };
        let front = proxy(listen, 0)?;
        let thin = proxy(listen, 2_500)?;
        let redis = proxy(common.company.one_for(common.redis, number), 1_000)?;
        let postgres = proxy(common.postgres.address, 2_000)?;

        let mut environment = common.settings.clone();
        for (name, value) in [
            ("DATABASE_URL", common.postgres.url(postgres.address())),
            (
                "REDIS_URL",
                match (common.sentinels, common.company.url(common.redis)) {
                    (Some(sentinels), _) => sentinels.url(),
                    (None, Some(urls)) => urls,
                    (None, None) => format!("redis://{}", redis.address()),
                },
            ),
            ("BELLHOP_LISTEN", listen.to_string()),
            ("BELLHOP_ADMIN_LISTEN", admin.to_string()),
        ] {
            environment.push((name.to_owned(), value));
        }
        let clock = common.folder.join(format!("clock-{number}"));
        if common.clocks {
            environment.extend(clock_of_its_own(&clock));
        }
        let process = Process::new(Spec {
            name: format!("node-{number}"),
            program: PathBuf::from(common.program),
            arguments: vec!["serve".to_owned()],
            environment,
            folder: common.folder.to_owned(),
            log: common.folder.join(format!("node-{number}.log")),
            user: None,
            end_signal: "KILL",
        });
        let node = Self {
            number,
            process,
            front,
            thin,
            redis,
            postgres,
            admin,
            listen,
            clock,
        };
        if common.clocks {
            node.set_clock("+0")?;
        }
        node.begin().await?;
        Ok(node)
    }

    /// Starts it, and waits until it is ready.
    pub async fn begin(&self) -> Result<(), Trouble> {
        self.process.start()?;
        let until = Instant::now() + START;
        while self
            .admin("/readyz")
            .await
            .is_none_or(|(status, _)| status != 200)
        {
            if Instant::now() > until || self.process.pid().is_none() {
                return Err(Trouble::of_process("did not start", &self.process));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Lets its clock be off by so much from now on, as in `-10m`. Only where nodes have clocks of their own.
    pub fn set_clock(&self, offset: &str) -> Result<(), Trouble> {
        // At once, for it is read all the time.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, format!("{offset}\n"))
            .and_then(|()| std::fs::rename(&new, &self.clock))
            .map_err(Trouble::io("set", "a clock"))
    }

    /// Asks the admin listener; `None` if it does not answer in 2 s.
    pub async fn admin(&self, path: &str) -> Option<(u16, String)> {
        get(self.admin, path).await
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_it = rest.starts_with(['{', ' ']);
            is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Some(values.sum())
    }

    /// What its process uses now, for the history. The peak counts from the measurement `before` on.
    #[must_use]
    pub fn resources(&self, before: bool) -> Option<Event> {
        let pid = self.process.pid()?;
        if before {
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").ok()?;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Event::Resources {
            node: self.number,
            before,
            resident_bytes: number("VmRSS:")? * 1_024,
            peak_bytes: number("VmHWM:")? * 1_024,
            descriptors: u64::try_from(descriptors).ok()?,
            connections: u64::try_from(self.front.connections() + self.thin.connections()).ok()?,
            threads: number("Threads:")?,
        })
    }

    /// Descriptors beside those of its clients' connections.
    #[must_use]
    pub fn own_descriptors(&self) -> u64 {
        match self.resources(false) {
            Some(Event::Resources {
                descriptors,
                connections,
                ..
            }) => descriptors.saturating_sub(connections),
            _ => 0,
        }
    }

    #[must_use]
    pub fn panics(&self) -> u64 {
        let log = self.process.log();
        u64::try_from(log.matches("panicked at").count()).unwrap_or(u64::MAX)
    }
}

/// What libfaketime wants to know. Only the wall clock is wrong: no machine's monotonic clock jumps.
fn clock_of_its_own(file: &Path) -> [(String, String); 4] {
    [
        // The loader knows where this machine's libraries are.
        (
            "LD_PRELOAD",
            "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned(),
        ),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// A small HTTP request; `None` if it is not answered in 2 s.
pub(super) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: rig\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    };
    tokio::time::timeout(Duration::from_secs(2), asking)
        .await
        .ok()?
}
