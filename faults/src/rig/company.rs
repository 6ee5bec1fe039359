//! More than one Redis: a cluster of three, of which each node knows one, or two that share the users between them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::process::{Process, Spec};
use super::services::Redis;
use super::{Trouble, free_address};

/// Until a cluster agrees on who has which slots.
const AGREEMENT: Duration = Duration::from_secs(20);

/// How nodes find Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One.
    Alone,
    /// By asking sentinels, past all proxies.
    Sentinels,
    /// One of a cluster of three, a different one for each node: plain pub/sub reaches them all.
    Cluster,
    /// Two, each with some of the users, past all proxies.
    Two,
}

/// Those beside the first one.
pub struct Company {
    pub others: Vec<Redis>,
    way: Way,
}

/// What the first one is started with.
pub(super) fn arguments(way: Way) -> &'static str {
    match way {
        Way::Cluster => {
            "--appendonly no --cluster-enabled yes --cluster-config-file redis.nodes --cluster-node-timeout 1000"
        }
        Way::Alone | Way::Sentinels | Way::Two => "--appendonly no",
    }
}

impl Company {
    pub(super) async fn of(first: &Redis, way: Way, folder: &Path) -> Result<Self, Trouble> {
        let count = match way {
            Way::Cluster => 2,
            Way::Two => 1,
            Way::Alone | Way::Sentinels => 0,
        };
        let mut others = Vec::new();
        for number in 0..count {
            let name = format!("redis-{number}");
            let arguments = arguments(way).replace("redis.nodes", &format!("{name}.nodes"));
            let redis = Redis::new(folder, &name, free_address()?, &arguments);
            redis.begin().await?;
            others.push(redis);
        }
        let company = Self { others, way };
        if way == Way::Cluster {
            company.join(first, folder).await?;
        }
        Ok(company)
    }

    /// Makes a cluster of them.
    async fn join(&self, first: &Redis, folder: &Path) -> Result<(), Trouble> {
        let others = self.others.iter().map(|redis| redis.address);
        let addresses: Vec<_> = std::iter::once(first.address)
            .chain(others)
            .map(|address| address.to_string())
            .collect();
        let create = format!(
            "create {} --cluster-replicas 0 --cluster-yes",
            addresses.join(" ")
        );
        by_redis_cli(&create, folder).await?;
        for redis in self.others.iter().chain([first]) {
            let agreed = async {
                while !is_agreed(redis).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let agreed = tokio::time::timeout(AGREEMENT, agreed).await;
            agreed.map_err(|_late| {
                Trouble::Late("the cluster of Redis did not come up".to_owned())
            })?;
        }
        Ok(())
    }

    /// Moves some slots of a cluster to the first one.
    pub async fn move_slots(&self, first: &Redis, folder: &Path) -> Result<(), Trouble> {
        let answer = first.command("CLUSTER MYID").await.unwrap_or_default();
        let id = answer.lines().nth(1).unwrap_or_default();
        let address = first.address;
        let reshard = format!(
            "reshard {address} --cluster-from all --cluster-to {id} --cluster-slots 500 --cluster-yes"
        );
        by_redis_cli(&reshard, folder).await
    }

    /// Which one the node of this number is told of.
    pub(super) fn one_for(&self, first: &Redis, number: usize) -> SocketAddr {
        if self.way != Way::Cluster {
            return first.address;
        }
        let all: Vec<_> = [first].into_iter().chain(&self.others).collect();
        all.get(number % all.len())
            .map_or(first.address, |redis| redis.address)
    }

    /// The setting of a node, if it is not the way by its proxy.
    pub(super) fn url(&self, first: &Redis) -> Option<String> {
        if self.way != Way::Two {
            return None;
        }
        let all = [first].into_iter().chain(&self.others);
        let urls: Vec<_> = all
            .map(|redis| format!("redis://{}", redis.address))
            .collect();
        Some(urls.join(","))
    }
}

async fn by_redis_cli(what: &str, folder: &Path) -> Result<(), Trouble> {
    let asking = Process::new(Spec {
        name: "redis-cli".to_owned(),
        program: "redis-cli".into(),
        arguments: format!("--cluster {what}")
            .split(' ')
            .map(str::to_owned)
            .collect(),
        folder: folder.to_owned(),
        log: folder.join("redis-cli.log"),
        end_signal: "TERM",
        ..Spec::default()
    });
    asking.succeeds(AGREEMENT).await
}

async fn is_agreed(redis: &Redis) -> bool {
    let info = redis.command("CLUSTER INFO").await.unwrap_or_default();
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
}
