//! The only commands of the receiving connection: (UN)SUBSCRIBE, and the PING that proves them carried out.

use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::Value;

use super::connection::timed_out;

/// From the first command of a batch to the answer of the barrier behind it.
const DEADLINE: Duration = Duration::from_secs(2);

/// Sends the commands and then `PING <barrier>`, and returns when the barrier was answered.
///
/// fred has no place for the answer to a SUBSCRIBE: it takes a refusal for the answer to whatever it has
/// sent next, and drops it if that is nothing yet. So the commands and the PING go as one pipeline, in
/// which fred writes all before it reads again, and anything but exactly the PING's own answer says that
/// not all succeeded. The answers are out of step then, and the connection must be given up.
pub(super) async fn confirmed(
    client: Client,
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    barrier: u64,
) -> Result<(), Error> {
    let answered = async {
        let commands = client.pipeline();
        if !subscribe.is_empty() {
            commands.subscribe(subscribe).await?;
        }
        if !unsubscribe.is_empty() {
            commands.unsubscribe(unsubscribe).await?;
        }
        commands.ping::<()>(Some(barrier.to_string())).await?;
        commands.last::<Value>().await
    };
    let Ok(answer) = tokio::time::timeout(DEADLINE, answered).await else {
        return Err(timed_out("the barrier was not answered"));
    };
    if answer?.as_str().as_deref() == Some(barrier.to_string().as_str()) {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Protocol,
            "another answer than the barrier's",
        ))
    }
}
