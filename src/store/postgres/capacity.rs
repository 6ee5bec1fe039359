//! How many connections the server has for all its clients.

use sqlx::Row as _;

use super::Store;
use crate::store::StoreError;

/// Less those that are kept for administrators. Older servers know one kind of these, later ones two.
const FOR_CLIENTS: &str = "
    SELECT current_setting('max_connections')::integer
         - current_setting('superuser_reserved_connections')::integer
         - coalesce(current_setting('reserved_connections', true)::integer, 0) AS connections";

impl Store {
    /// One round trip.
    pub(in crate::store) async fn max_connections(&self) -> Result<u32, StoreError> {
        let rows = self.rows(sqlx::query(FOR_CLIENTS)).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let connections: i32 = row.try_get("connections")?;
        Ok(u32::try_from(connections).unwrap_or(0))
    }
}
