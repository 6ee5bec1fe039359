//! Faults of nodes: killed, vanished, rolled.

use std::time::{Duration, Instant};

use super::inject::Scene;
use crate::load::user_name;
use crate::proxy::{Class, Direction, Mode};
use crate::rig::Trouble;

const BETWEEN_KILLS: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(3);
/// How long what a node does is held, before it is killed: it does not notice yet.
const UNTOLD: Duration = Duration::from_millis(700);
/// How many clients a node without descriptors can take, and bytes of data of each.
const CLIENTS: u64 = 8;
const MEMORY: &str = "268435456";
/// Until whoever was on a node that vanished has noticed, by heartbeat.
const NOTICED: Duration = Duration::from_secs(25);
/// From SIGTERM to the end of the process.
const LEAVING: Duration = Duration::from_secs(25);
const STUCK: Duration = Duration::from_secs(60);

impl Scene<'_> {
    pub(super) async fn nodes_killed(&mut self) -> Result<(), Trouble> {
        let first = self.random.below(self.rig.nodes.len());
        let kills = self
            .duration
            .as_secs()
            .div_ceil(BETWEEN_KILLS.as_secs())
            .max(1);
        let nodes = self.rig.nodes.iter().cycle().skip(first);
        for node in nodes.take(usize::try_from(kills).unwrap_or(1)) {
            node.process.signal("KILL");
            node.process.ended(STUCK).await;
            tokio::time::sleep(DOWN).await;
            node.begin().await?;
            let rest = self.duration.min(BETWEEN_KILLS).saturating_sub(DOWN);
            tokio::time::sleep(rest).await;
        }
        Ok(())
    }

    /// The proxies hold what would have come back, or gone out, so that what the node did last is known.
    pub(super) async fn killed_after_commit(&mut self) -> Result<(), Trouble> {
        let first = self.random.below(self.rig.nodes.len());
        let mut nodes = self.rig.nodes.iter().cycle().skip(first);
        for unanswered in [true, false] {
            let Some(node) = nodes.next() else {
                return Ok(());
            };
            let (proxy, class, mode) = match unanswered {
                true => (
                    &node.postgres,
                    Class::Any,
                    Mode::HalfOpen(Direction::ToClient),
                ),
                false => (
                    &node.redis,
                    Class::Publisher,
                    Mode::HalfOpen(Direction::ToServer),
                ),
            };
            proxy.set(class, mode);
            tokio::time::sleep(UNTOLD).await;
            if !unanswered {
                // No later change of theirs tells the users of what was not announced.
                self.load.hush();
                tokio::time::sleep(UNTOLD).await;
            }
            node.process.signal("KILL");
            node.process.ended(STUCK).await;
            // What the proxy holds is lost, not late.
            proxy.set(Class::Any, Mode::Reset);
            tokio::time::sleep(DOWN).await;
            proxy.set(Class::Any, Mode::Pass);
            node.begin().await?;
            tokio::time::sleep(self.duration / 2).await;
        }
        Ok(())
    }

    /// Each node has another time; then one goes back by an hour.
    pub(super) async fn clocks_differ(&mut self) -> Result<(), Trouble> {
        let set = |offsets: [&str; 3]| {
            let mut nodes = self.rig.nodes.iter().zip(offsets);
            nodes.try_for_each(|(node, offset)| node.set_clock(offset))
        };
        set(["+10m", "-10m", "+0"])?;
        let token = self
            .load
            .cluster
            .token_of(&user_name(0), Duration::from_secs(300));
        // To the first it has expired, to the second it comes from the future.
        for (node, expected) in [(0, 401), (1, 401), (2, 200)] {
            let status = self.load.cluster.is_believed(node, &token).await;
            let what =
                format!("a token of 5 min is answered {status:?} by node {node}, not {expected}");
            self.expect(&what, status == Some(expected));
        }
        tokio::time::sleep(self.duration / 2).await;
        set(["+10m", "-10m", "-60m"])?;
        tokio::time::sleep(self.duration / 2).await;
        set(["+0", "+0", "+0"])
    }

    /// One node has hardly a descriptor left while clients come, one's log is on a full disk, all may take 256 MB.
    pub(super) async fn few_descriptors(&mut self) -> Result<(), Trouble> {
        let [poor, full, ..] = self.rig.nodes.as_slice() else {
            return Ok(());
        };
        full.process.fill_its_disk(true);
        full.process.signal("TERM");
        full.process.ended(STUCK).await;
        full.begin().await?;
        for node in &self.rig.nodes {
            node.process.limit("data", MEMORY)?;
        }
        let usual = poor
            .process
            .limit("nofile", &(poor.own_descriptors() + CLIENTS).to_string())?;
        let before = poor.process.processor_time();
        self.flap(Mode::Reset).await;
        self.lasts().await;
        let used = poor.process.processor_time().saturating_sub(before);
        let refused = poor.process.log().contains("cannot accept a connection");
        self.expect("the node without descriptors says so in its log", refused);
        let what = format!(
            "the node without descriptors used {used:?} of the processor in {:?}",
            self.duration
        );
        self.expect(&what, used < self.duration / 2);
        poor.process.limit("nofile", &usual)?;
        full.process.fill_its_disk(false);
        Ok(())
    }

    /// Nobody reaches it, and it reaches nobody; no connection is told.
    pub(super) async fn node_vanishes(&mut self) {
        let Some(node) = self.rig.nodes.last() else {
            return;
        };
        let set = |mode| {
            for proxy in [&node.front, &node.redis, &node.postgres] {
                proxy.set(Class::Any, mode);
            }
        };
        set(Mode::Blackhole);
        let began = Instant::now();
        let is_left = async || {
            let mut devices = self.load.devices.iter();
            devices.all(|device| device.progress.lock().node != Some(node.number))
        };
        let left = self.comes(NOTICED, is_left).await;
        self.expect("within 25 s nobody waits for the node any more", left);
        tokio::time::sleep(self.duration.saturating_sub(began.elapsed())).await;
        set(Mode::Pass);
    }

    pub(super) async fn nodes_roll(&mut self) -> Result<(), Trouble> {
        for node in &self.rig.nodes {
            let number = node.number;
            node.process.signal("TERM");
            let asked = std::time::Instant::now();
            let status = node.process.ended(STUCK).await;
            let took = asked.elapsed();
            self.expect(
                &format!(
                    "node {number} left in {} ms, of {}",
                    took.as_millis(),
                    LEAVING.as_millis()
                ),
                took <= LEAVING,
            );
            let clean = status.is_some_and(|status| status.success());
            self.expect(&format!("node {number} ended with {status:?}"), clean);
            if status.is_none() {
                node.process.signal("KILL");
                node.process.ended(STUCK).await;
            }
            node.begin().await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }
}
