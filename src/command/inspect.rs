//! `bellhop inspect`: one user's inbox as support looks at it: counters, sockets, and what became of the last changes.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::target::{PublisherKey, Target};
use super::{Failure, complain, say};
use crate::user::UserId;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Whose inbox.
    #[arg(long, value_name = "ID")]
    user: UserId,

    /// How many of the last changes to show.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,

    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    key: PublisherKey,

    #[command(flatten)]
    target: Target,
}

impl Inspect {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let credential = self.target.publisher(&self.key)?;
        let path = format!("/api/users/{}", self.user);
        let limited = format!("{path}?limit={}", self.limit);
        let mut inbox: Value =
            serde_json::from_str(&self.target.get(&limited, &credential).await?)?;

        let presence = self
            .target
            .get(&format!("{path}/presence"), &credential)
            .await;
        let presence = match presence {
            Ok(text) => serde_json::from_str(&text)?,
            Err(Failure(reason)) => {
                complain(&format!("the sockets are not known: {reason}"));
                Value::Null
            }
        };
        if self.json {
            if let Some(object) = inbox.as_object_mut() {
                object.insert("presence".to_owned(), presence);
            }
            return say(inbox);
        }
        let inbox: Inbox = serde_json::from_value(inbox)?;
        inbox.lines(&presence).into_iter().try_for_each(say)
    }
}

/// The answer of `GET /api/users/{userId}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inbox {
    user_id: String,
    seq: u64,
    floor_seq: u64,
    unread_count: u64,
    read_all_seq: u64,
    cleared_seq: u64,
    valid_after: Option<String>,
    changes: Vec<Row>,
}

/// What is known of one notification or tombstone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    seq: u64,
    created_seq: u64,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    priority: String,
    created_at: String,
    confirmed_at: Option<String>,
    read_at: Option<String>,
    clicked_at: Option<String>,
    expires_at: Option<String>,
    deleted_at: Option<String>,
    delete_reason: Option<String>,
}

impl Inbox {
    fn lines(&self, presence: &Value) -> Vec<String> {
        let mut lines = vec![
            format!("user {}", self.user_id),
            format!(
                "  head {}, floor {} (what is at or below it cannot be replayed), unread {}",
                self.seq, self.floor_seq, self.unread_count
            ),
            format!(
                "  last read-all {}, last clear {}",
                never(self.read_all_seq),
                never(self.cleared_seq)
            ),
            format!("  tokens revoked: {}", self.revoked()),
            format!("  sockets {}", sockets(presence)),
        ];
        if self.changes.is_empty() {
            lines.push("  nothing is kept of notifications".to_owned());
        } else {
            lines.extend(table(&self.changes));
        }
        lines
    }

    fn revoked(&self) -> String {
        match &self.valid_after {
            None => "none".to_owned(),
            Some(time) => format!("those issued until {time}"),
        }
    }
}

fn never(seq: u64) -> String {
    match seq {
        0 => "never".to_owned(),
        seq => format!("at {seq}"),
    }
}

/// How many there are; `+`: there may be more, on nodes that were not heard.
fn sockets(presence: &Value) -> String {
    let Some(sockets) = presence.get("sockets").and_then(Value::as_u64) else {
        return "unknown".to_owned();
    };
    let more = if presence.get("complete") == Some(&json!(true)) {
        ""
    } else {
        "+ (not every node answered)"
    };
    format!("{sockets}{more}")
}

impl Row {
    /// What its last change was, as far as the row tells.
    fn what(&self) -> &str {
        match (&self.deleted_at, &self.clicked_at, &self.read_at) {
            (Some(_), _, _) => self.delete_reason.as_deref().unwrap_or("deleted"),
            (None, Some(_), _) => "clicked",
            (None, None, Some(_)) => "read",
            (None, None, None) if self.seq > self.created_seq => "changed",
            (None, None, None) => "new",
        }
    }

    fn cells(&self) -> [String; 10] {
        let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        [
            self.seq.to_string(),
            self.id.clone(),
            self.kind.clone(),
            self.priority.clone(),
            self.what().to_owned(),
            self.created_at.clone(),
            time(&self.confirmed_at),
            time(&self.read_at),
            time(&self.clicked_at),
            time(&self.expires_at),
        ]
    }
}

/// The rows in columns, the last change first.
fn table(rows: &[Row]) -> Vec<String> {
    let head = [
        "SEQ",
        "ID",
        "TYPE",
        "PRIORITY",
        "WHAT",
        "WRITTEN",
        "CONFIRMED",
        "READ",
        "CLICKED",
        "EXPIRES",
    ];
    let cells: Vec<[String; 10]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let line = |row: &[String; 10]| {
        let padded = row.iter().enumerate().map(|(column, cell)| {
            let widths = cells.iter().filter_map(|row| Some(row.get(column)?.len()));
            let width = widths.max().unwrap_or_default();
            format!("{cell:<width$}")
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_told_in_lines() {
        let row = |seq, created_seq, more: Value| {
            let mut row = json!({
                "seq": seq, "createdSeq": created_seq, "id": "0198", "type": "GENERAL", "priority": "HIGH",
                "createdAt": "T1", "confirmedAt": null, "readAt": null, "clickedAt": null, "expiresAt": null,
                "deletedAt": null, "deleteReason": null
            });
            row.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            row
        };
        let inbox: Inbox = serde_json::from_value(json!({
            "userId": "42", "seq": 9, "floorSeq": 3, "unreadCount": 2, "readAllSeq": 0, "clearedSeq": 4,
            "validAfter": null, "epoch": "e", "changes": [
                row(9, 9, json!({})),
                row(8, 2, json!({ "readAt": "T2", "clickedAt": "T3" })),
                row(7, 1, json!({ "deletedAt": "T4", "deleteReason": "withdrawn" })),
            ]
        }))
        .unwrap();
        let lines = inbox.lines(&json!({ "online": true, "sockets": 2, "complete": false }));
        let text = lines.join("\n");
        for expected in [
            "head 9, floor 3",
            "unread 2",
            "read-all never, last clear at 4",
            "revoked: none",
            "sockets 2+",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(6)[4..6], ["new", "T1"]);
        assert_eq!(words(7)[4..], ["clicked", "T1", "-", "T2", "T3", "-"]);
        assert_eq!(words(8)[4], "withdrawn");
    }
}
