//! Faults of PostgreSQL and of the way to it.

use std::time::Duration;

use super::inject::Scene;
use crate::history::Event;
use crate::load::{Publish, user_name};
use crate::proxy::{Class, Mode};
use crate::rig::Trouble;

/// Until publishing works again.
const BACK: Duration = Duration::from_secs(5);

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

    /// Within 5 s, a new publish is acknowledged.
    async fn publishes_again(&self) {
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

    /// Somebody holds the lock of one user: the others do not notice.
    pub(super) async fn row_locked(&mut self) -> Result<(), Trouble> {
        let seconds = self.duration.as_secs().min(15);
        let user = user_name(0);
        let statement = format!(
            "SELECT 1 FROM user_feed WHERE user_id = '{user}' FOR UPDATE; SELECT pg_sleep({seconds})"
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
