//! Faults of nodes: killed, vanished, rolled.

use std::time::Duration;

use super::inject::Scene;
use crate::proxy::{Class, Mode};
use crate::rig::Trouble;

const BETWEEN_KILLS: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(3);
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

    /// Nobody reaches it, and it reaches nobody; no connection is told.
    pub(super) async fn node_vanishes(&mut self) {
        let set = |mode| {
            if let Some(node) = self.rig.nodes.last() {
                for proxy in [&node.front, &node.redis, &node.postgres] {
                    proxy.set(Class::Any, mode);
                }
            }
        };
        set(Mode::Blackhole);
        self.lasts().await;
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
