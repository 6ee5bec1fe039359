//! Whether the server keeps what it has acknowledged, also when the power goes.

use sqlx::Row as _;

use super::Store;
use crate::store::StoreError;

const OFF: &str = "
    SELECT name FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
    ORDER BY name";

impl Store {
    /// One round trip.
    pub(in crate::store) async fn doubts(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.rows(sqlx::query(OFF)).await?;
        let names = rows.iter().map(|row| row.try_get("name"));
        Ok(names.collect::<Result<_, _>>()?)
    }
}
