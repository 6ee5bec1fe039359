//! A replica of Redis, and three sentinels that put it in the master's place.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::services::Redis;
use super::{Trouble, free_address};

const NAME: &str = "main";
/// Until all know each other.
const GATHERING: Duration = Duration::from_secs(20);

pub struct Sentinels {
    _replica: Redis,
    sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Watch over this master, and take it for dead after a second of silence.
    pub async fn over(master: &Redis, folder: &Path) -> Result<Self, Trouble> {
        let port = master.address.port();
        let arguments = format!("--replicaof 127.0.0.1 {port} --repl-diskless-sync-delay 0");
        let replica = Redis::new(folder, "redis-replica", free_address()?, &arguments);
        replica.begin().await?;

        let mut sentinels = Vec::new();
        for number in 0..3 {
            let name = format!("sentinel-{number}");
            let file = folder.join(format!("{name}.conf"));
            let lines = format!(
                "sentinel monitor {NAME} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 5000\n"
            );
            std::fs::write(&file, lines).map_err(Trouble::io("write the settings of", &name))?;
            let arguments = format!("{} --sentinel", file.display());
            let sentinel = Redis::new(folder, &name, free_address()?, &arguments);
            sentinel.begin().await?;
            sentinels.push(sentinel);
        }
        let sentinels = Self {
            _replica: replica,
            sentinels,
        };
        let gathered = tokio::time::timeout(GATHERING, sentinels.gathered()).await;
        gathered
            .map_err(|_late| Trouble::Late("the sentinels did not find each other".to_owned()))?;
        Ok(sentinels)
    }

    async fn gathered(&self) {
        for sentinel in &self.sentinels {
            loop {
                let known = sentinel.command(&format!("SENTINEL MASTER {NAME}")).await;
                let known = known.unwrap_or_default();
                let words: Vec<_> = known.lines().collect();
                let says = |name: &str, value: &str| {
                    words
                        .windows(3)
                        .any(|three| three.first() == Some(&name) && three.last() == Some(&value))
                };
                if says("num-slaves", "1") && says("num-other-sentinels", "2") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|one| one.address.to_string())
            .collect();
        let (first, others) = addresses
            .split_first()
            .map_or(("", &[][..]), |(first, others)| (first.as_str(), others));
        let nodes: String = others
            .iter()
            .map(|other| format!("node={other}&"))
            .collect();
        format!("redis-sentinel://{first}?{nodes}sentinelServiceName={NAME}")
    }

    /// Who is the master, as the first of them says.
    pub async fn master(&self) -> Option<SocketAddr> {
        let sentinel = self.sentinels.first()?;
        let command = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}");
        let answer = sentinel.command(&command).await?;
        // *2, $9, the address, $5, the port.
        let mut lines = answer.lines().skip(2).step_by(2);
        format!("{}:{}", lines.next()?, lines.next()?).parse().ok()
    }

    /// Has them put the replica in the master's place, though nothing is wrong with it.
    pub async fn fail_over(&self) {
        if let Some(sentinel) = self.sentinels.first() {
            sentinel.command(&format!("SENTINEL FAILOVER {NAME}")).await;
        }
    }
}
