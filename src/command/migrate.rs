//! `bellhop migrate`: brings the database schema up to date.

use clap::Args;

use super::{Failure, say};
use crate::config::Backends;
use crate::store::Store;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    backends: Backends,
}

impl Migrate {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let store = Store::open(
            self.backends.database_url.expose(),
            self.backends.database_pool,
        )
        .await?;
        let applied = store.migrate().await?;
        store.close().await;
        say(match applied {
            0 => "the schema is up to date".to_owned(),
            1 => "1 migration applied".to_owned(),
            several => format!("{several} migrations applied"),
        })
    }
}
