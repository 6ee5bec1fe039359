//! What the database holds, read past all proxies.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Rig, Trouble};
use crate::history::Event;

const USERS: &str = "SELECT json_build_object('event', 'db.user', 'user', user_id, 'head', head_seq, 'unread', unread) FROM user_feed ORDER BY user_id";

const ROWS: &str = "SELECT json_build_object('event', 'db.row', 'user', user_id, 'id', id, 'created_seq', created_seq, 'seq', seq, \
    'key', CASE WHEN key LIKE '%/' THEN key || user_id ELSE key END, 'read', read_at IS NOT NULL, 'deleted', deleted_at IS NOT NULL) FROM notification ORDER BY user_id, created_seq";

#[derive(Deserialize)]
struct Head {
    user: String,
    head: u64,
}

impl Rig {
    /// Each user's last seq.
    pub async fn heads(&self) -> Result<BTreeMap<String, u64>, Trouble> {
        let lines = self.postgres.ask(USERS).await?;
        let heads = lines.iter().map(|line| parse::<Head>(line));
        heads
            .map(|head| head.map(|head| (head.user, head.head)))
            .collect()
    }

    /// Writes all of it into the history.
    pub async fn dump(&self) -> Result<(), Trouble> {
        for statement in [USERS, ROWS] {
            for line in self.postgres.ask(statement).await? {
                self.recorder.add(parse::<Event>(&line)?);
            }
        }
        for node in &self.nodes {
            self.recorder.add(Event::Log {
                node: node.number,
                panics: node.panics(),
            });
        }
        Ok(())
    }
}

fn parse<T: for<'de> Deserialize<'de>>(line: &str) -> Result<T, Trouble> {
    serde_json::from_str(line)
        .map_err(|error| Trouble::Failed("psql".to_owned(), "said", format!("{line}: {error}")))
}
