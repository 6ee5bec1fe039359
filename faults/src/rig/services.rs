//! Real Redis and PostgreSQL, with data in the rig's folder: stopped, started, paused and crashed at will.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Process, Spec, kill, said};
use super::{Trouble, free_address, path};

const START: Duration = Duration::from_secs(30);

/// Without fsync, because the rig kills processes and never the machine's power: what was written is there after each
/// crash that it makes. `synchronous_commit` stays on, without which a crash of the server loses what was acknowledged.
const OPTIONS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "fsync=off",
    "full_page_writes=off",
];

/// Nodes are no superusers.
const ROLE: [&str; 2] = [
    "CREATE ROLE bellhop LOGIN",
    "GRANT ALL ON SCHEMA public TO bellhop",
];

pub struct Redis {
    pub process: Process,
    pub address: SocketAddr,
}

impl Redis {
    pub async fn start(folder: &Path, arguments: &str) -> Result<Self, Trouble> {
        let redis = Self::new(folder, "redis", free_address()?, arguments);
        redis.begin().await?;
        Ok(redis)
    }

    /// Of this name, with these arguments beside its address; not started yet.
    pub(super) fn new(folder: &Path, name: &str, address: SocketAddr, arguments: &str) -> Self {
        let own = format!("--port {} --bind 127.0.0.1", address.port());
        let arguments = arguments.split(' ').chain(own.split(' '));
        let mut arguments: Vec<_> = arguments.map(str::to_owned).collect();
        arguments.extend(["--save".to_owned(), String::new()]);
        let process = Process::new(Spec {
            name: name.to_owned(),
            program: "redis-server".into(),
            arguments,
            folder: folder.to_owned(),
            log: folder.join(format!("{name}.log")),
            end_signal: "TERM",
            ..Spec::default()
        });
        Self { process, address }
    }

    /// Starts it, empty, and waits until it answers.
    pub async fn begin(&self) -> Result<(), Trouble> {
        self.process.start()?;
        let until = Instant::now() + START;
        while self
            .command("PING")
            .await
            .is_none_or(|answer| !answer.starts_with("+PONG"))
        {
            if Instant::now() > until || self.process.pid().is_none() {
                return Err(Trouble::of_process("did not start", &self.process));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Sends one command on a connection of its own; answers the first piece of the answer, if one came in 2 s.
    pub async fn command(&self, command: &str) -> Option<String> {
        let asking = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .await
                .ok()?;
            let mut answer = vec![0; 4_096];
            let read = stream.read(&mut answer).await.ok()?;
            Some(String::from_utf8_lossy(answer.get(..read)?).into_owned())
        };
        tokio::time::timeout(Duration::from_secs(2), asking)
            .await
            .ok()?
    }
}

pub struct Postgres {
    pub process: Process,
    /// Takes its place at the same address, from a copy of its data.
    standby: Process,
    copy: PathBuf,
    pub address: SocketAddr,
}

impl Postgres {
    pub async fn start(folder: &Path) -> Result<Self, Trouble> {
        let binaries = binaries()?;
        let data = own_folder(folder, "postgres")?;
        let copy = own_folder(folder, "standby")?;
        let user = "postgres".to_owned();
        let spec = |program: &str, arguments: Vec<String>| Spec {
            name: program.to_owned(),
            program: binaries.join(program),
            arguments,
            folder: data.clone(),
            log: folder.join(format!("{program}.log")),
            user: Some(user.clone()),
            end_signal: "QUIT",
            ..Spec::default()
        };
        let place = format!("--pgdata={}", data.display());
        let options = [
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
        ];
        let mut arguments = vec![place];
        arguments.extend(options.map(str::to_owned));
        let making = Process::new(spec("initdb", arguments));
        making.succeeds(START).await?;

        let address = free_address()?;
        let server = |data: &Path| {
            let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
            arguments.extend(["-p".to_owned(), address.port().to_string()]);
            for option in OPTIONS {
                arguments.extend(["-c".to_owned(), option.to_owned()]);
            }
            Process::new(spec("postgres", arguments))
        };
        let postgres = Self {
            process: server(&data),
            standby: server(&copy),
            copy,
            address,
        };
        postgres.begin().await?;
        for statement in ROLE {
            postgres.ask(statement).await?;
        }
        Ok(postgres)
    }

    /// A copy of what it has now, as an asynchronous standby that gets nothing more.
    pub async fn fall_behind(&self) -> Result<(), Trouble> {
        let copying = Process::new(Spec {
            name: "pg_basebackup".to_owned(),
            program: binaries()?.join("pg_basebackup"),
            arguments: vec![
                format!("--dbname=postgres://postgres@{}", self.address),
                format!("--pgdata={}", self.copy.display()),
                "--checkpoint=fast".to_owned(),
            ],
            folder: self.copy.clone(),
            log: self.copy.with_extension("log"),
            user: Some("postgres".to_owned()),
            end_signal: "KILL",
            ..Spec::default()
        });
        copying.succeeds(START).await?;
        let signal = self.copy.join("standby.signal");
        std::fs::write(&signal, "").map_err(Trouble::io("write", "standby.signal"))
    }

    /// The standby becomes what the server was, which has died: what that had acknowledged since
    /// [`fall_behind`](Self::fall_behind) is gone.
    pub async fn fail_over(&self) -> Result<(), Trouble> {
        self.standby.start()?;
        self.answers(&self.standby).await?;
        self.ask("SELECT pg_promote()").await.map(drop)
    }

    /// Starts it, with crash recovery where needed, and waits until it answers.
    pub async fn begin(&self) -> Result<(), Trouble> {
        self.process.start()?;
        self.answers(&self.process).await
    }

    async fn answers(&self, process: &Process) -> Result<(), Trouble> {
        let until = Instant::now() + START;
        while self.ask("SELECT 1").await.is_err() {
            if Instant::now() > until || process.pid().is_none() {
                return Err(Trouble::of_process("did not start", process));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    #[must_use]
    pub fn url(&self, address: SocketAddr) -> String {
        format!("postgres://bellhop@{address}/postgres")
    }

    /// Asks the server itself, past all proxies, as one who may everything; answers lines. At most 20 s.
    pub async fn ask(&self, statement: &str) -> Result<Vec<String>, Trouble> {
        let url = format!("postgres://postgres@{}/postgres", self.address);
        let statement = statement.to_owned();
        let asking = tokio::task::spawn_blocking(move || {
            let mut psql = Command::new("timeout");
            psql.args(["20", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]);
            psql.args([&url, "-c", &statement]);
            said(
                "psql",
                psql.env("PATH", path()).env("PGCONNECT_TIMEOUT", "2"),
            )
        });
        let text = asking
            .await
            .map_err(|_panic| Trouble::Late("psql".to_owned()))??;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Sends a signal to the server and each of its processes: stopping the first alone stops nothing.
    pub fn signal_all(&self, signal: &str) {
        let Some(first) = self.process.pid() else {
            return;
        };
        let place = format!("/proc/{first}/task/{first}/children");
        let children = std::fs::read_to_string(place).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        let pids: Vec<u32> = std::iter::once(first).chain(children).collect();
        kill(signal, &pids);
    }
}

/// A folder that PostgreSQL may use: it refuses to be root.
pub(super) fn own_folder(folder: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let own = folder.join(name);
    let made = std::fs::DirBuilder::new().mode(0o700).create(&own);
    made.map_err(Trouble::io("make the folder", name))?;
    if super::process::is_root() {
        let owned = Command::new("chown").arg("postgres:").arg(&own).status();
        owned.map_err(Trouble::io("hand over the folder", name))?;
    }
    Ok(own)
}

/// The newest PostgreSQL that is installed.
fn binaries() -> Result<PathBuf, Trouble> {
    let folders = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(Trouble::io("find the programs of", "postgres"))?;
    let mut found: Vec<_> = folders
        .flatten()
        .map(|folder| folder.path().join("bin"))
        .filter(|folder| folder.join("postgres").exists())
        .collect();
    found.sort();
    found
        .pop()
        .ok_or_else(|| Trouble::Late("no PostgreSQL is installed".to_owned()))
}
