//! Whether Redis answers, for those who ask once; a node finds out by its bus, again and again.

use fred::interfaces::ClientLike as _;

use super::BusError;
use super::connection::Dialer;

/// Connects, with the credentials in the address, and has one `PING` answered. It takes some seconds at most.
pub async fn ping(url: &str) -> Result<(), BusError> {
    let dialer = Dialer::new(url)?;
    let connection = dialer.open().await?;
    connection.client.ping::<()>(None).await?;
    Ok(())
}
