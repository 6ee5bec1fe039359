//! `bellhop import`: the old notifications of another system, straight into the database, as they were; pushes nothing.

mod checked;
mod export;
mod heads;
mod progress;

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clap::Args;
use clap::builder::BoolishValueParser;
use tokio_util::sync::CancellationToken;

use self::checked::{Checked, Limits, Skip, Skipped};
use self::export::Export;
use self::heads::Heads;
use self::progress::Progress;
use super::{Failure, complain, say};
use crate::api::export_line::LineRules;
use crate::backoff::Backoff;
use crate::config::Backends;
use crate::notification::Notification;
use crate::store::{Imported, Store, StoreError};

/// Notifications that are written in one transaction.
const CHUNK: usize = 1_000;

/// Bad lines that are told one by one.
const TOLD: usize = 20;

/// How often a chunk is tried while the store is away: writing it twice is the same as once.
const ATTEMPTS: usize = 8;
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

#[derive(Debug, Args)]
pub(super) struct Import {
    /// A file with one JSON object a line (NDJSON); - is standard input. Each has userId, id, title and createdAt, and may
    /// have message, type, priority, data, actionUrl, icon, badge, silent, sticky, isRead or read, readAt, clickedAt,
    /// updatedAt, expiresAt and deletedAt. Ids that are no UUIDs are mapped, always alike, and kept in data.legacyId.
    #[arg(value_name = "FILE")]
    file: String,

    /// Import the good lines of a file that also has bad ones.
    #[arg(long)]
    skip_invalid: bool,

    /// Only check, and say what would be done.
    #[arg(long)]
    dry_run: bool,

    /// Members of the objects that have no place in a notification, comma separated: they are left out.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    ignore: Vec<String>,

    /// Accept http: URLs in actionUrl, icon and badge.
    #[arg(long, env = "BELLHOP_ALLOW_HTTP_URLS", default_value_t = false, value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", hide = true)]
    allow_http_urls: bool,

    #[command(flatten)]
    backends: Backends,
}

impl Import {
    pub(super) async fn run(self) -> Result<(), Failure> {
        // Before anything waits for Ctrl-C: while standard input is read, that ends the program as ever.
        let export = Export::open(&self.file)?;
        let interrupted = CancellationToken::new();
        tokio::select! {
            outcome = self.check_and_write(&export, &interrupted) => outcome,
            never = interrupt(&interrupted) => never,
        }
    }

    async fn check_and_write(
        &self,
        export: &Export,
        interrupted: &CancellationToken,
    ) -> Result<(), Failure> {
        let now = Utc::now();
        let rules = LineRules {
            http_urls: self.allow_http_urls,
            now,
            ignored: &self.ignore,
        };
        let oldest = TimeDelta::try_days(self.backends.retention_days.into())
            .filter(|age| !age.is_zero())
            .and_then(|age| now.checked_sub_signed(age));
        let limits = Limits {
            oldest,
            each: self.backends.retention_changes,
        };
        let mut checked = export.check(rules, limits, interrupted).await?;
        self.judge(&checked)?;
        if self.dry_run {
            let known = match checked.repeated {
                0 => String::new(),
                count => format!(
                    ", {count} known already from earlier lines; the database was not asked"
                ),
            };
            say(format_args!("{} would be imported{known}", checked.good()))?;
            return self.say_skipped(checked.skipped);
        }

        let written = self.write(export, &mut checked, rules, interrupted).await?;
        say(format_args!(
            "{} imported, {} known already",
            written.done.created,
            written.done.known + checked.repeated
        ))?;
        self.say_skipped(checked.skipped)?;
        if written.whole {
            return Ok(());
        }
        Err(Failure::new(
            "interrupted; what was imported stays, and the same command goes on with the rest",
        ))
    }

    /// Tells the bad lines. They are the end of it, unless they are to be skipped.
    fn judge(&self, checked: &Checked) -> Result<(), Failure> {
        for line in &checked.bad {
            complain(line);
        }
        let (count, lines) = (checked.skipped.of(Skip::Invalid), checked.lines);
        let told = u64::try_from(checked.bad.len()).unwrap_or(u64::MAX);
        if count > told {
            complain(&format!("and {} more bad lines", count - told));
        }
        if checked.has_snake_case {
            complain(
                "names are in camel case here; the query that exports can give them: SELECT user_id AS \"userId\", created_at AS \"createdAt\" …",
            );
        }
        note_differing(checked);
        if count == 0 || self.skip_invalid {
            return Ok(());
        }
        Err(Failure(format!(
            "nothing was written: {count} {} bad; mend {}, or import the others with --skip-invalid{}",
            if count == 1 {
                format!("line of {lines} is")
            } else {
                format!("lines of {lines} are")
            },
            if count == 1 { "it" } else { "them" },
            if checked.has_unknown_members {
                " (members that have no place here: name them in --ignore)"
            } else {
                ""
            }
        )))
    }

    async fn write(
        &self,
        export: &Export,
        checked: &mut Checked,
        rules: LineRules<'_>,
        interrupted: &CancellationToken,
    ) -> Result<Written, Failure> {
        let url = self.backends.database_url.expose();
        let store = Store::open(url, 1).await?;
        store.migrate().await?;
        let mut heads = Heads::default();
        let mut written = Written::default();
        let mut progress = Progress::new("imported", checked.good());
        let mut chunks = export.chunks(checked, rules);
        loop {
            let chunk = chunks.next(CHUNK)?;
            if chunk.is_empty() {
                written.whole = true;
                break;
            }
            if interrupted.is_cancelled() {
                break;
            }
            written.take(&mut heads, write_chunk(&store, &chunk).await?);
            progress.at(written.done.created + written.done.known);
        }
        heads.tell(&store, &self.backends).await;
        store.close().await;
        Ok(written)
    }

    /// What was left out, each reason in a line with what to do about it.
    fn say_skipped(&self, skipped: Skipped) -> Result<(), Failure> {
        let Backends {
            retention_days: days,
            retention_changes: changes,
            ..
        } = self.backends;
        for (skip, count) in skipped.each() {
            let why = match skip {
                Skip::Invalid => "broke a rule".to_owned(),
                Skip::TooOld => format!(
                    "older than {days} days, which would be forgotten at once: raise BELLHOP_RETENTION_DAYS, here and on the nodes, to keep them (0: no limit)"
                ),
                Skip::TooMany => format!(
                    "beyond the newest {changes} of a user, which would be forgotten at once: raise BELLHOP_RETENTION_CHANGES, here and on the nodes, to keep them (0: no limit)"
                ),
                Skip::Expired => "expired (expiresAt)".to_owned(),
                Skip::Deleted => "deleted (deletedAt)".to_owned(),
            };
            say(format_args!("{count} skipped: {why}"))?;
        }
        Ok(())
    }
}

/// Tells the lines that are left out for an earlier one with the same id, and are not the same.
fn note_differing(checked: &Checked) {
    for line in &checked.differing {
        complain(&format!(
            "line {line}: this id of this user came before with other content; the earlier line counts, this one is left out"
        ));
    }
    let told = u64::try_from(checked.differing.len()).unwrap_or(u64::MAX);
    if checked.differ > told {
        complain(&format!("and {} more such lines", checked.differ - told));
    }
}

/// How far it came.
#[derive(Debug, Default)]
struct Written {
    done: Imported,
    /// All of it.
    whole: bool,
}

impl Written {
    fn take(&mut self, heads: &mut Heads, chunk: Imported) {
        self.done.created += chunk.created;
        self.done.known += chunk.known;
        heads.moved(chunk.moved);
    }
}

/// Writes a chunk, and tries again while the store is away.
async fn write_chunk(store: &Store, chunk: &[Notification]) -> Result<Imported, Failure> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let mut outcome = store.import(chunk).await;
    for _again in 1..ATTEMPTS {
        if !matches!(outcome, Err(StoreError::Unavailable(_))) {
            break;
        }
        tokio::time::sleep(backoff.pause()).await;
        outcome = store.import(chunk).await;
    }
    outcome.map_err(|error| {
        let Failure(cause) = error.into();
        Failure(format!(
            "{cause}; what was imported before stays, and the same command goes on with the rest"
        ))
    })
}

/// The first Ctrl-C ends the import between two chunks, the second at once.
async fn interrupt(interrupted: &CancellationToken) -> Result<(), Failure> {
    tokio::signal::ctrl_c().await?;
    interrupted.cancel();
    complain("ending after this chunk; Ctrl-C again ends at once");
    tokio::signal::ctrl_c().await?;
    Err(Failure::new(
        "ended at once; the chunk that was being written is in whole or not at all, and the same command goes on with the rest",
    ))
}
