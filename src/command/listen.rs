//! `bellhop listen`: a user's events as JSON lines, across lost connections.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::target::Target;
use super::{Failure, complain, say};
use crate::backoff::Backoff;
use crate::client::{Client, ClientError, Heard};
use crate::event;
use crate::user::UserId;

/// Pause before connecting again, the first time; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Whose events. With --token it may be left out: the token names the user.
    #[arg(long, required_unless_present = "token", value_name = "ID")]
    user: Option<UserId>,

    /// Begin with what happened after this seq; 0 is everything that is kept. Unset: from now on.
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,

    #[command(flatten)]
    target: Target,
}

impl Listen {
    pub(super) async fn run(self) -> Result<(), Failure> {
        tokio::select! {
            outcome = self.follow() => outcome,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    }

    /// Prints events until something happens that a retry does not cure.
    async fn follow(&self) -> Result<(), Failure> {
        let (user, url) = (self.user()?, self.target.url());
        let mut position = Position {
            last_seq: self.since,
            epoch: None,
        };
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut ever_connected = false;
        loop {
            let token = self.target.token(&user, None)?;
            let auth =
                json!({ "token": token, "lastSeq": position.last_seq, "epoch": position.epoch });
            match self.target.connect(&url, &auth).await {
                Ok(mut client) => {
                    backoff.reset();
                    ever_connected = true;
                    complain(&format!("listening to user {user} at {url}"));
                    print(&mut client, &mut position).await?;
                    complain("the connection was lost; connecting again");
                }
                Err(error @ (ClientError::Refused(_) | ClientError::Address(_))) => {
                    return Err(self.target.explain(&url, error));
                }
                Err(error) if !ever_connected => return Err(self.target.explain(&url, error)),
                Err(_away) => {}
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Whose events these are: the given token's user, else the given one.
    fn user(&self) -> Result<UserId, Failure> {
        match (self.target.token_user(), &self.user) {
            (Ok(Some(own)), Some(user)) if own != *user => Err(Failure(format!(
                "the token is for user {own}, not for {user}: leave out one of --user and --token"
            ))),
            (Ok(Some(own)), _) => Ok(own),
            // A token that cannot be read here is the node's to refuse.
            (Ok(None) | Err(_), Some(user)) => Ok(user.clone()),
            (Ok(None), None) => Err(Failure::new("whose events? Give --user, or --token")),
            (Err(failure), None) => Err(failure),
        }
    }
}

/// Prints until the connection is lost; fails when nobody reads the output any more.
async fn print(client: &mut Client, position: &mut Position) -> Result<(), Failure> {
    while let Ok(heard) = client.next().await {
        if position.take(&heard) {
            say(line(&heard)?)?;
        }
    }
    Ok(())
}

/// An event as a line of output: its name first, for those who read along.
fn line(Heard { event, data }: &Heard) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Line<'heard> {
        event: &'heard str,
        data: &'heard Value,
    }
    Ok(serde_json::to_string(&Line { event, data })?)
}

/// How far this client has heard, as the contract tells every client to keep it.
#[derive(Debug)]
struct Position {
    last_seq: Option<u64>,
    epoch: Option<String>,
}

impl Position {
    /// Takes note of an event; `false` for a change that was heard before.
    fn take(&mut self, heard: &Heard) -> bool {
        let text = |name: &str| heard.data.get(name).and_then(Value::as_str);
        let seq = heard.data.get("seq").and_then(Value::as_u64);
        let reason = text("reason");
        let is_change = match heard.event.as_str() {
            event::NEW | event::UPDATED | event::DELETED => true,
            event::REFRESH => matches!(reason, Some("read-all" | "cleared")),
            _ => false,
        };
        if is_change && seq <= self.last_seq {
            return false;
        }
        if let Some(epoch) = text("epoch") {
            self.epoch = Some(epoch.to_owned());
        }
        // This client keeps no list that it would have to fetch again: the head is where it is.
        let starts_over = heard.event == event::REFRESH && reason == Some("reset");
        if starts_over {
            self.last_seq = seq;
        } else if is_change || heard.event == event::SYNCED || heard.event == event::REFRESH {
            self.last_seq = self.last_seq.max(seq);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(event: &str, data: Value) -> Heard {
        Heard {
            event: event.to_owned(),
            data,
        }
    }

    #[test]
    fn a_change_is_printed_once() {
        let mut position = Position {
            last_seq: None,
            epoch: None,
        };
        assert!(position.take(&heard(
            event::SYNCED,
            json!({"seq": 4, "epoch": "e1", "replayed": 0})
        )));
        assert!(position.take(&heard(event::NEW, json!({"seq": 5}))));
        assert!(!position.take(&heard(event::NEW, json!({"seq": 5}))));
        assert!(position.take(&heard(event::UNREAD_COUNT, json!({"seq": 9, "count": 1}))));
        assert_eq!(position.last_seq, Some(5));
        assert_eq!(position.epoch.as_deref(), Some("e1"));
    }

    #[test]
    fn a_line_begins_with_the_event() {
        let line = line(&heard(event::NEW, json!({"seq": 1}))).unwrap();
        assert_eq!(line, r#"{"event":"notification:new","data":{"seq":1}}"#);
    }

    #[test]
    fn only_a_reset_goes_back() {
        let mut position = Position {
            last_seq: Some(9),
            epoch: None,
        };
        position.take(&heard(event::REFRESH, json!({"seq": 3, "reason": "gap"})));
        assert_eq!(position.last_seq, Some(9));
        position.take(&heard(event::REFRESH, json!({"seq": 3, "reason": "reset"})));
        assert_eq!(position.last_seq, Some(3));
    }
}
