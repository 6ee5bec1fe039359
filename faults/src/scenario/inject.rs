//! Does what a scenario says, for as long as it says, and undoes it.

use std::time::{Duration, Instant};

use super::Fault;
use crate::history::Event;
use crate::load::Load;
use crate::proxy::{Class, Direction, Mode, Proxy};
use crate::random::Random;
use crate::rig::{Node, Rig, Trouble};

/// How long two faults of a cocktail take, with as much rest after them.
const PART: Duration = Duration::from_secs(10);

/// How many faults a cocktail of so many seconds has.
#[must_use]
pub fn parts(seconds: u64) -> usize {
    2 * usize::try_from(seconds / PART.as_secs()).unwrap_or_default()
}

/// Where a fault happens.
pub(super) struct Scene<'a> {
    pub(super) rig: &'a Rig,
    pub(super) load: &'a Load,
    pub(super) duration: Duration,
    pub(super) random: Random,
    pub(super) without: &'a [usize],
    /// Whether this is the only fault: among others, what it alone would do is not expected of it.
    pub(super) alone: bool,
}

impl Scene<'_> {
    /// In a box: a cocktail is made of faults.
    pub(super) fn inject(
        &mut self,
        fault: Fault,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Trouble>> + '_>> {
        Box::pin(async move {
            match fault {
                Fault::None => self.lasts().await,
                Fault::NodesKilled => self.nodes_killed().await?,
                Fault::KilledAfterCommit => self.killed_after_commit().await?,
                Fault::NodeVanishes => self.node_vanishes().await,
                Fault::NodesRoll => self.nodes_roll().await?,
                Fault::RedisDown => self.redis_down().await?,
                Fault::SubscribersKilled => self.subscribers_killed().await,
                Fault::RedisStopped => self.redis_stopped().await,
                Fault::RedisPaused(what) => self.redis_paused(what).await,
                Fault::SubscribersSilent => {
                    self.bus(Class::Subscriber, Mode::Blackhole, 0).await;
                }
                Fault::SubscribersHalfOpen => {
                    let mode = Mode::HalfOpen(Direction::ToClient);
                    self.bus(Class::Subscriber, mode, 0).await;
                }
                Fault::PublishersSilent => self.bus(Class::Publisher, Mode::Blackhole, 0).await,
                Fault::OneNodeWithoutRedis => self.bus(Class::Any, Mode::Blackhole, 1).await,
                Fault::RedisRefuses => self.redis_refuses().await,
                Fault::RedisLocksOut => self.redis_locks_out().await,
                Fault::Failover(how) => self.failover(how).await?,
                Fault::ClusterOfRedis | Fault::OneOfTwo => {
                    self.one_of_company_killed(fault == Fault::ClusterOfRedis)
                        .await?;
                }
                Fault::BusFlooded => self.bus_flooded().await,
                Fault::PostgresCrashes => self.postgres_crashes().await?,
                Fault::PostgresStopped => self.postgres_stopped().await,
                Fault::PostgresSilent => self.postgres_silent().await,
                Fault::BackendsTerminated => self.backends_terminated().await,
                Fault::PostgresReadOnly => self.postgres_read_only().await?,
                Fault::PostgresCrowded => self.postgres_crowded().await?,
                Fault::DiskFull => self.disk_full().await?,
                Fault::Bulks => self.bulks().await?,
                Fault::HistoryLost => self.history_lost().await?,
                Fault::ClocksDiffer => self.clocks_differ().await?,
                Fault::FewDescriptors => self.few_descriptors().await?,
                Fault::RowsLocked(users) => self.rows_locked(users).await?,
                Fault::SlowConsumers => self.slow_consumers().await,
                Fault::Storm => self.storm().await,
                Fault::Crowd => self.crowd().await,
                Fault::KeyStorm => self.key_storm().await?,
                Fault::Acts => self.acts().await,
                Fault::Flaps => self.front(Mode::Reset).await,
                Fault::FramesCut => self.front(Mode::Cut(Direction::ToClient)).await,
                Fault::Strays => self.strays().await,
                Fault::LastWords => self.last_words().await,
                Fault::Cocktail => self.cocktail().await?,
            }
            Ok(())
        })
    }

    pub(super) async fn lasts(&self) {
        tokio::time::sleep(self.duration).await;
    }

    /// Does something again and again, as long as the fault lasts.
    pub(super) async fn each(&self, pause: Duration, mut something: impl AsyncFnMut()) {
        let until = Instant::now() + self.duration;
        while Instant::now() < until {
            something().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// One of the nodes, by chance.
    pub(super) fn any_node(&mut self) -> Option<&'_ Node> {
        let number = self.random.below(self.rig.nodes.len());
        self.rig.nodes.get(number)
    }

    /// Sets a mode on proxies for as long as the fault lasts.
    pub(super) async fn through(
        &self,
        class: Class,
        mode: Mode,
        proxies: impl Fn(&Node) -> &Proxy,
        skip: usize,
    ) {
        let nodes = || self.rig.nodes.iter().skip(skip);
        nodes().for_each(|node| proxies(node).set(class, mode));
        self.lasts().await;
        nodes().for_each(|node| proxies(node).set(Class::Any, Mode::Pass));
    }

    /// A metric of all nodes; `missing` stands for one that does not answer.
    pub(super) async fn sum(&self, metric: &str, missing: f64) -> f64 {
        let mut sum = 0.0;
        for node in &self.rig.nodes {
            sum += node.metric(metric).await.unwrap_or(missing);
        }
        sum
    }

    /// What the scenario expects, into the history.
    pub(super) fn expect(&self, what: &str, fine: bool) {
        if !self.alone {
            return;
        }
        let what = what.to_owned();
        self.rig.recorder.add(Event::Expect { what, fine });
    }

    /// Waits until it is so; whether it came in time.
    pub(super) async fn comes(
        &self,
        within: Duration,
        mut is_so: impl AsyncFnMut() -> bool,
    ) -> bool {
        let until = Instant::now() + within;
        loop {
            if is_so().await {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Random two faults at a time. Which ones are drawn does not depend on which are left out.
    async fn cocktail(&mut self) -> Result<(), Trouble> {
        const MIX: [Fault; 10] = [
            Fault::NodesKilled,
            Fault::RedisDown,
            Fault::SubscribersKilled,
            Fault::RedisPaused("ALL"),
            Fault::SubscribersHalfOpen,
            Fault::PublishersSilent,
            Fault::PostgresSilent,
            Fault::BackendsTerminated,
            Fault::Flaps,
            Fault::FramesCut,
        ];
        for part in 0..parts(self.duration.as_secs()) / 2 {
            let one = self.random.below(MIX.len());
            let other = (one + 1 + self.random.below(MIX.len() - 1)) % MIX.len();
            let scene = |number: usize, random: Random| Scene {
                rig: self.rig,
                load: self.load,
                duration: match self.without.contains(&(2 * part + number)) {
                    true => Duration::ZERO,
                    false => PART / 2,
                },
                random,
                without: &[],
                alone: false,
            };
            let mut first = scene(0, self.random.fork(1));
            let mut second = scene(1, self.random.fork(2));
            let fault = |number: usize, scene: &Scene<'_>| match scene.duration.is_zero() {
                true => Fault::None,
                false => MIX.get(number).copied().unwrap_or(Fault::None),
            };
            let (one, other) = (fault(one, &first), fault(other, &second));
            let name = format!("{}: {one:?}; {}: {other:?}", 2 * part, 2 * part + 1);
            self.rig.recorder.add(Event::FaultStart {
                fault: name.clone(),
            });
            let (first, second) = tokio::join!(first.inject(one), second.inject(other));
            self.rig.recorder.add(Event::FaultStop { fault: name });
            first.and(second)?;
            if one != Fault::None || other != Fault::None {
                tokio::time::sleep(PART / 2).await;
            }
        }
        Ok(())
    }
}
