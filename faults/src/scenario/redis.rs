//! Faults of Redis and of the way to it.

use std::time::Duration;

use super::Failover;
use super::inject::Scene;
use crate::proxy::{Class, Mode};
use crate::rig::Trouble;

/// Until every node says that its link to Redis is up and confirmed.
const BACK: Duration = Duration::from_secs(3);
/// Until sentinels have chosen another master.
const ELECTION: Duration = Duration::from_secs(15);

const DEGRADED: &str = "bellhop_degraded";
const RECONNECTIONS: &str = "bellhop_bus_reconnections_total";

impl Scene<'_> {
    pub(super) async fn redis_down(&mut self) -> Result<(), Trouble> {
        self.rig.redis.command("SHUTDOWN NOSAVE").await;
        self.rig.redis.process.ended(Duration::from_secs(5)).await;
        self.lasts().await;
        self.is_seen().await;
        self.rig.redis.begin().await?;
        self.is_up_again().await;
        Ok(())
    }

    /// Operators see it, and balancers do not.
    async fn is_seen(&self) {
        for node in &self.rig.nodes {
            let number = node.number;
            let degraded = node.metric(DEGRADED).await;
            self.expect(
                &format!("node {number} says that it is degraded: {degraded:?}"),
                degraded == Some(1.0),
            );
            let ready = node.admin("/readyz").await.map(|(status, _)| status);
            self.expect(
                &format!("node {number} stays ready: {ready:?}"),
                ready == Some(200),
            );
        }
    }

    async fn is_up_again(&self) {
        let up = self.comes(BACK, async || {
            for node in &self.rig.nodes {
                if node.metric("bellhop_redis_up").await != Some(1.0) {
                    return false;
                }
            }
            true
        });
        let up = up.await;
        self.expect("3 s after Redis is back every node hears it again", up);
    }

    pub(super) async fn subscribers_killed(&mut self) {
        let mut kills = 0.0;
        let kill = async || {
            self.rig.redis.command("CLIENT KILL TYPE pubsub").await;
            kills += 1.0;
        };
        let before = self.sum(RECONNECTIONS, 0.0).await;
        self.each(Duration::from_millis(500), kill).await;
        let after = self.sum(RECONNECTIONS, 0.0).await;
        self.expect(
            &format!("nodes connected anew {} times", after - before),
            after - before >= kills,
        );
    }

    pub(super) async fn redis_stopped(&mut self) {
        self.rig.redis.process.signal("STOP");
        self.lasts().await;
        self.is_seen().await;
        self.rig.redis.process.signal("CONT");
    }

    pub(super) async fn redis_paused(&mut self, what: &str) {
        let millis = self.duration.as_millis();
        self.rig
            .redis
            .command(&format!("CLIENT PAUSE {millis} {what}"))
            .await;
        self.lasts().await;
        self.rig.redis.command("CLIENT UNPAUSE").await;
    }

    /// Connections to Redis, from all nodes but the first `skip`: of one node only, the others are skipped.
    pub(super) async fn bus(&mut self, class: Class, mode: Mode, only: usize) {
        let skip = match only {
            0 => 0,
            only => self.rig.nodes.len().saturating_sub(only),
        };
        self.through(class, mode, |node| &node.redis, skip).await;
    }

    /// The account may do nothing with channels any more.
    pub(super) async fn redis_refuses(&mut self) {
        let redis = &self.rig.redis;
        redis.command("ACL SETUSER default resetchannels").await;
        self.lasts().await;
        self.is_seen().await;
        redis.command("ACL SETUSER default allchannels").await;
        self.is_up_again().await;
    }

    /// Another password, and whoever is connected is thrown out.
    pub(super) async fn redis_locks_out(&mut self) {
        let redis = &self.rig.redis;
        redis
            .command("CONFIG SET requirepass other\r\nAUTH other\r\nCLIENT KILL TYPE pubsub\r\nCLIENT KILL TYPE normal")
            .await;
        self.lasts().await;
        self.is_seen().await;
        redis
            .command("AUTH other\r\nCONFIG SET requirepass \"\"")
            .await;
        self.is_up_again().await;
    }

    pub(super) async fn failover(&mut self, how: Failover) -> Result<(), Trouble> {
        let (Some(sentinels), master) = (&self.rig.sentinels, &self.rig.redis) else {
            return Ok(());
        };
        let before = self.sum(RECONNECTIONS, 0.0).await;
        match how {
            Failover::Killed => master.process.signal("KILL"),
            Failover::Asked => sentinels.fail_over().await,
            Failover::Silent => master.process.signal("STOP"),
        }
        let another = async || {
            let now = sentinels.master().await;
            now.is_some_and(|now| now != master.address)
        };
        let another = self.comes(ELECTION, another).await;
        self.expect("the sentinels name another master", another);
        self.is_up_again().await;
        self.lasts().await;
        match how {
            Failover::Killed => {
                master.process.ended(ELECTION).await;
                master.begin().await?;
            }
            Failover::Asked => {}
            Failover::Silent => master.process.signal("CONT"),
        }
        // It becomes a replica, and whoever still listens to it is thrown out.
        self.lasts().await;
        self.is_up_again().await;
        let after = self.sum(RECONNECTIONS, 0.0).await;
        self.expect("nodes joined the new master", after > before);
        Ok(())
    }

    /// One of several is killed, and comes back: one node of a cluster, or one of two that share the users.
    pub(super) async fn one_of_company_killed(&mut self, moves_slots: bool) -> Result<(), Trouble> {
        let before = self.sum(RECONNECTIONS, 0.0).await;
        if moves_slots {
            self.rig.move_slots().await?;
        }
        let Some(one) = self.rig.company.others.first() else {
            return Ok(());
        };
        one.process.signal("KILL");
        one.process.ended(Duration::from_secs(5)).await;
        self.lasts().await;
        let degraded = self.sum(DEGRADED, 0.0).await;
        self.expect(
            &format!("nodes that need it are degraded: {degraded}"),
            degraded >= 1.0,
        );
        one.begin().await?;
        self.is_up_again().await;
        let after = self.sum(RECONNECTIONS, 0.0).await;
        self.expect("nodes joined it again", after > before);
        Ok(())
    }

    /// A node that does not read while much is said to it: Redis cuts it off, or it falls behind.
    pub(super) async fn bus_flooded(&mut self) {
        let redis = &self.rig.redis;
        redis
            .command("CONFIG SET client-output-buffer-limit \"pubsub 1mb 256kb 10\"")
            .await;
        let Some(number) = self.any_node().map(|node| node.number) else {
            return;
        };
        let Some(node) = self.rig.nodes.get(number) else {
            return;
        };
        let before = self.sum(RECONNECTIONS, 0.0).await;
        node.process.signal("STOP");
        let channels = redis.command("PUBSUB CHANNELS *").await.unwrap_or_default();
        let channels: Vec<_> = channels.lines().filter(|line| line.contains(':')).collect();
        // 3 s of noise that nobody can read as a message.
        let until = std::time::Instant::now() + Duration::from_secs(3);
        let noise = "x".repeat(200);
        let mut random = self.random.fork(9);
        while std::time::Instant::now() < until && !channels.is_empty() {
            let script: String = (0..500)
                .filter_map(|_| channels.get(random.below(channels.len())))
                .map(|channel| format!("PUBLISH {channel} {noise}\r\n"))
                .collect();
            redis.command(script.trim_end()).await;
        }
        node.process.signal("CONT");
        self.lasts().await;
        let after = self.sum(RECONNECTIONS, 0.0).await;
        self.expect("the node that was flooded joined anew", after > before);
    }
}
