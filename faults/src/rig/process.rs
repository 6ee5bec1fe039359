//! A process of the rig: started with its output in a file, signalled and ended by its pid, gone with the rig at the latest.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Trouble;

const POLL: Duration = Duration::from_millis(20);

/// What is started, and how.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// All of its environment, beside PATH.
    pub environment: Vec<(String, String)>,
    pub folder: PathBuf,
    pub log: PathBuf,
    /// Runs as this user, when the rig is root.
    pub user: Option<String>,
    /// The signal that ends it at once, and its children with it.
    pub end_signal: &'static str,
}

pub struct Process {
    spec: Spec,
    child: Mutex<Option<Child>>,
    disk_is_full: AtomicBool,
}

impl Process {
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            child: Mutex::new(None),
            disk_is_full: AtomicBool::new(false),
        }
    }

    /// From its next start on, nothing that it writes to its log is taken.
    pub fn fill_its_disk(&self, is_full: bool) {
        self.disk_is_full.store(is_full, Ordering::SeqCst);
    }

    /// Starts it. It is told to end when the rig's process ends, however that does.
    pub fn start(&self) -> Result<(), Trouble> {
        let spec = &self.spec;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(match self.disk_is_full.load(Ordering::SeqCst) {
                true => Path::new("/dev/full"),
                false => &spec.log,
            })
            .map_err(Trouble::io("open the log of", &spec.name))?;
        let errors = log
            .try_clone()
            .map_err(Trouble::io("open the log of", &spec.name))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", spec.end_signal]);
        if let Some(user) = spec.user.as_ref().filter(|_| is_root()) {
            command.args([
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ]);
        }
        command
            .arg("--")
            .arg(&spec.program)
            .args(&spec.arguments)
            .env_clear()
            .env("PATH", super::path())
            .envs(spec.environment.iter().cloned())
            .current_dir(&spec.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // So that Ctrl-C reaches the rig alone.
            .process_group(0);
        let child = command.spawn().map_err(Trouble::io("start", &spec.name))?;
        *self.child.lock() = Some(child);
        Ok(())
    }

    /// Its pid, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.child.lock();
        let child = child.as_mut()?;
        let ended = child.try_wait().ok().flatten();
        ended.is_none().then(|| child.id())
    }

    /// Sends a signal, as `kill` names it. Nothing happens when it has ended.
    pub fn signal(&self, signal: &str) {
        if let Some(pid) = self.pid() {
            kill(signal, &[pid]);
        }
    }

    /// Sets one of its limits while it runs, as `prlimit` names it: descriptors, or bytes of data. Answers what it was.
    pub fn limit(&self, what: &str, most: &str) -> Result<String, Trouble> {
        let pid = self.pid().unwrap_or_default();
        let prlimit = |arguments: &[&str]| {
            let mut command = Command::new("prlimit");
            command.arg(format!("--pid={pid}")).args(arguments);
            said("prlimit", command.env("PATH", super::path()))
        };
        let before = prlimit(&[&format!("--{what}"), "--output=SOFT", "--noheadings"])?;
        // The soft limit: only that may be raised again by everybody.
        prlimit(&[&format!("--{what}={most}:")])?;
        Ok(before.trim().to_owned())
    }

    /// Processor time that it has used.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        let of = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            let ticks = fields.split_whitespace().skip(11).take(2);
            Some(
                ticks
                    .filter_map(|ticks| ticks.parse::<u64>().ok())
                    .sum::<u64>(),
            )
        };
        // A hundredth of a second each, on every Linux that there is.
        let ticks = self.pid().and_then(of).unwrap_or_default();
        Duration::from_millis(ticks * 10)
    }

    /// Waits for its end; `None` if it still runs.
    pub async fn ended(&self, within: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(child) = self.child.lock().as_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    return Some(status);
                }
            } else {
                return None;
            }
            if Instant::now() > until {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts it, and waits until it has done what it is there for.
    pub(super) async fn succeeds(&self, within: Duration) -> Result<(), Trouble> {
        self.start()?;
        let ended = self.ended(within).await;
        match ended.is_some_and(|status| status.success()) {
            true => Ok(()),
            false => Err(Trouble::of_process("failed", self)),
        }
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.spec.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pid().is_some() {
            // It may be stopped, and then hears of nothing but SIGKILL.
            self.signal("CONT");
            self.signal(self.spec.end_signal);
        }
        let Some(mut child) = self.child.lock().take() else {
            return;
        };
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
            #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
            std::thread::sleep(POLL);
        }
        // Both fail when it has ended.
        let _ended = child.kill();
        let _ended = child.wait();
    }
}

/// Runs a command to its end, and answers what it said.
pub(super) fn said(name: &'static str, command: &mut Command) -> Result<String, Trouble> {
    let output = command.output().map_err(Trouble::io("run", name))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(Trouble::Failed(
            name.to_owned(),
            "failed",
            text(&output.stderr),
        )),
    }
}

/// Sends a signal to processes of the rig.
pub(super) fn kill(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    let script = format!("kill -{signal} {} 2>/dev/null", pids.join(" "));
    // It fails when one of them has ended.
    let _ended = Command::new("sh").args(["-c", &script]).status();
}

/// Whether the rig may do what only root may.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
