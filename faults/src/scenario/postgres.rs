//! Faults of PostgreSQL and of the way to it.

use std::sync::Arc;
use std::time::Duration;

use super::inject::Scene;
use crate::history::Event;
use crate::load::{Bulk, Publish, user_name};
use crate::proxy::{Class, Mode};
use crate::rig::Trouble;
use crate::tasks::Task;

/// What nodes could not do because of the store.
const ERRORS: &str = "bellhop_store_errors_total";
/// Until publishing works again.
const BACK: Duration = Duration::from_secs(5);
/// Users whom one request is for.
const MANY: usize = 500;
const BETWEEN_BULKS: Duration = Duration::from_secs(1);

impl Scene<'_> {
    pub(super) async fn postgres_crashes(&mut self) -> Result<(), Trouble> {
        self.rig.postgres.process.signal("QUIT");
        self.rig
            .postgres
            .process
            .ended(Duration::from_secs(10))
            .await;
        self.lasts().await;
        self.rig.postgres.begin().await?;
        self.publishes_again().await;
        Ok(())
    }

    /// The fault was felt; and within 5 s, a new publish is acknowledged.
    async fn publishes_again(&self) {
        let errors = self.sum(ERRORS, 0.0).await;
        self.expect("nodes count that the store failed", errors > 0.0);
        let publish = Publish {
            cluster: self.load.cluster.clone(),
            recorder: self.load.recorder.clone(),
            key: format!("back-{}", self.random.clone().draw()),
            user: user_name(0),
            random: self.random.fork(5),
            padding: 0,
        };
        let done = tokio::time::timeout(BACK, publish.run()).await;
        self.expect(
            "5 s after the database is back a publish is acknowledged",
            done.is_ok(),
        );
        if done.is_err() {
            // It may still be on its way.
            let key = format!("back-{}", self.random.clone().draw());
            let (user, why) = (user_name(0), "given up".to_owned());
            self.rig.recorder.add(Event::Info {
                key,
                user,
                why,
                millis: 5_000,
            });
        }
    }

    pub(super) async fn postgres_stopped(&mut self) {
        self.rig.postgres.signal_all("STOP");
        self.lasts().await;
        self.rig.postgres.signal_all("CONT");
        self.publishes_again().await;
    }

    pub(super) async fn postgres_silent(&mut self) {
        self.through(Class::Any, Mode::Blackhole, |node| &node.postgres, 0)
            .await;
        self.publishes_again().await;
    }

    pub(super) async fn backends_terminated(&mut self) {
        const ALL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let terminate = async || {
            // It fails where the server is just gone, which is as good.
            let _gone = self.rig.postgres.ask(ALL).await.is_err();
        };
        self.each(Duration::from_secs(1), terminate).await;
        self.publishes_again().await;
    }

    /// Others have taken all connections that nodes may have.
    pub(super) async fn postgres_crowded(&mut self) -> Result<(), Trouble> {
        const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'bellhop'";
        let postgres = &self.rig.postgres;
        postgres
            .ask("ALTER ROLE bellhop CONNECTION LIMIT 0")
            .await?;
        postgres.ask(END).await?;
        self.lasts().await;
        postgres
            .ask("ALTER ROLE bellhop CONNECTION LIMIT -1")
            .await?;
        self.publishes_again().await;
        Ok(())
    }

    pub(super) async fn disk_full(&mut self) -> Result<(), Trouble> {
        self.rig.fill_the_disk().await?;
        self.lasts().await;
        self.rig.empty_the_disk()?;
        self.publishes_again().await;
        Ok(())
    }

    /// Each node is sent the same users, in one order and in the other, while others publish to them.
    pub(super) async fn bulks(&mut self) -> Result<(), Trouble> {
        const DEADLOCKS: &str =
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let users: Vec<_> = (0..MANY).map(user_name).collect();
        let prefix = self.random.draw();
        let mut under_way = Vec::new();
        let until = std::time::Instant::now() + self.duration;
        for round in 0_u64.. {
            if std::time::Instant::now() > until {
                break;
            }
            for node in 0..self.rig.nodes.len() {
                let mut users = users.clone();
                if !node.is_multiple_of(2) {
                    users.reverse();
                }
                let bulk = Bulk {
                    cluster: Arc::clone(&self.load.cluster),
                    recorder: Arc::clone(&self.rig.recorder),
                    key: format!("bulk-{prefix:x}-{round}-{node}/"),
                    users,
                    node,
                    random: self.random.fork(round),
                };
                under_way.push(Task::start(bulk.run()));
            }
            tokio::time::sleep(BETWEEN_BULKS).await;
        }
        for bulk in under_way {
            bulk.await;
        }
        // A server process tells what it counted a second later at the latest.
        tokio::time::sleep(BETWEEN_BULKS).await;
        let deadlocks = self.rig.postgres.ask(DEADLOCKS).await?;
        self.expect(&format!("deadlocks: {deadlocks:?}"), deadlocks == ["0"]);
        Ok(())
    }

    pub(super) async fn history_lost(&mut self) -> Result<(), Trouble> {
        self.rig.postgres.fall_behind().await?;
        self.lasts().await;
        self.rig.postgres.process.signal("QUIT");
        self.rig.postgres.process.ended(BACK).await;
        // Until the last answers have arrived that tell of the old history.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.rig.recorder.add(Event::Restored {});
        self.rig.postgres.fail_over().await?;
        self.publishes_again().await;
        self.lasts().await;
        Ok(())
    }

    /// Somebody holds the locks of some users.
    pub(super) async fn rows_locked(&mut self, users: usize) -> Result<(), Trouble> {
        let users: Vec<_> = (0..users).map(user_name).collect();
        for user in users.clone() {
            self.rig.recorder.add(Event::Held { user });
        }
        let seconds = self.duration.as_secs();
        let users = users.join("', '");
        let statement = format!(
            "SELECT count(*) FROM (SELECT 1 FROM user_feed WHERE user_id IN ('{users}') FOR UPDATE) held; SELECT pg_sleep({seconds})"
        );
        self.rig.postgres.ask(&statement).await.map(drop)
    }

    pub(super) async fn postgres_read_only(&mut self) -> Result<(), Trouble> {
        let postgres = &self.rig.postgres;
        // One statement a call: ALTER SYSTEM is refused inside a transaction.
        postgres
            .ask("ALTER SYSTEM SET default_transaction_read_only = on")
            .await?;
        postgres.ask("SELECT pg_reload_conf()").await?;
        self.lasts().await;
        postgres
            .ask("ALTER SYSTEM RESET default_transaction_read_only")
            .await?;
        postgres.ask("SELECT pg_reload_conf()").await?;
        self.publishes_again().await;
        Ok(())
    }
}
