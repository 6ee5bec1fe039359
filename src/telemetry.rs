//! The log: JSON or text, how much of it, and in which form user ids appear.

use std::borrow::Cow;
use std::io::IsTerminal;

use sha2::{Digest, Sha256};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{LogFormat, LogUserIds, Logs};
use crate::user::UserId;

/// Starts logging to standard error, for the life of the process.
///
/// # Errors
///
/// The filter cannot be parsed; the text says what is wrong with it.
pub fn start(logs: &Logs) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    // This also takes in the records of crates that use `log` instead of `tracing`.
    subscriber(logs, terminal, std::io::stderr)?
        .try_init()
        .map_err(|error| error.to_string())
}

fn subscriber<W>(
    logs: &Logs,
    terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let chosen = EnvFilter::try_new(&logs.log).map_err(|error| format!("RUST_LOG: {error}"))?;
    // A filter of its own: as a directive of the chosen one, a longer one would beat it.
    let clamp = FilterFn::new(|metadata| permitted(metadata.target(), *metadata.level()));
    let format = logs.log_format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });

    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(terminal);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    // Both stand before all layers. A filter of one layer keeps its decision for the thread, and after a record
    // of the `log` crate that it does not want, it would also drop the thread's next message.
    Ok(Registry::default().with(chosen).with(clamp).with(layer))
}

/// Whether a message may be logged, whatever `RUST_LOG` says: from this crate any, from others only warnings
/// and errors, for below these they log what users wrote (auth payloads, packets, statements).
fn permitted(target: &str, level: Level) -> bool {
    let own = target == "bellhop" || target.starts_with("bellhop::");
    own || level <= Level::WARN
}

/// An error with all its causes, as one text.
///
/// For people: the form of the log decides whether it shows more of an error than the outermost. A cause
/// that the text ends with already, because its effect quotes it, is left out.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.ends_with(&error_text) {
            text = format!("{text}: {error_text}");
        }
        cause = error.source();
    }
    text
}

/// The form of user ids in the log.
#[derive(Clone, Copy, Debug)]
pub struct UserIds(pub LogUserIds);

impl UserIds {
    #[must_use]
    pub fn show(self, user: &UserId) -> Cow<'_, str> {
        match self.0 {
            LogUserIds::Plain => Cow::Borrowed(user.as_str()),
            LogUserIds::Hash => {
                let digest = Sha256::digest(user.as_str());
                Cow::Owned(
                    digest
                        .iter()
                        .take(6)
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                )
            }
            LogUserIds::Off => Cow::Borrowed("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::level_filters::LevelFilter;

    use super::*;

    /// A log to read.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged under this filter of a message per target and level.
    fn logged(filter: &str, format: LogFormat) -> String {
        let logs = Logs {
            log_format: Some(format),
            log_user_ids: LogUserIds::Plain,
            log: filter.to_owned(),
        };
        let log = Log::default();
        let writer = log.clone();
        let subscriber = subscriber(&logs, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "bellhop", "own trace");
            tracing::debug!(target: "bellhop::session", "own debug");
            tracing::trace!(target: "tungstenite::protocol", "their trace");
            tracing::debug!(target: "hyper::proto", "their debug");
            tracing::info!(target: "bellhop_like", "their info");
            tracing::warn!(target: "hyper::proto", "their warning");
            tracing::error!(target: "fred", "their error");
        });
        let bytes = log.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_this_crate_logs_below_warnings_whatever_the_filter_says() {
        for filter in [
            "trace",
            "trace,hyper::proto=trace,tungstenite::protocol=trace,bellhop_like=trace",
        ] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let text = logged(filter, format);
                for heard in ["own trace", "own debug", "their warning", "their error"] {
                    assert!(text.contains(heard), "{filter}: {text}");
                }
                assert_eq!(text.lines().count(), 4, "{filter}: {text}");
            }
        }
    }

    #[test]
    fn the_filter_chooses_among_what_is_permitted() {
        let text = logged("error,bellhop::session=debug", LogFormat::Text);
        assert!(text.contains("own debug") && text.contains("their error"));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(logged("off", LogFormat::Text), "");
    }

    #[test]
    fn what_is_not_wanted_is_not_looked_at() {
        let logs = Logs {
            log_format: None,
            log_user_ids: LogUserIds::Plain,
            log: "info".to_owned(),
        };
        let subscriber = subscriber(&logs, false, std::io::sink).unwrap();
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO));
    }

    #[test]
    fn a_filter_that_cannot_be_parsed_names_its_variable() {
        let logs = Logs {
            log_format: None,
            log_user_ids: LogUserIds::Plain,
            log: "a=b=c".to_owned(),
        };
        let error = subscriber(&logs, false, std::io::sink).err().unwrap();
        assert!(error.starts_with("RUST_LOG: "), "{error}");
    }

    #[test]
    fn a_user_id_is_shown_as_the_operator_wants() {
        let user = UserId::try_from("42").unwrap();
        assert_eq!(UserIds(LogUserIds::Plain).show(&user), "42");
        // printf 42 | sha256sum
        assert_eq!(UserIds(LogUserIds::Hash).show(&user), "73475cb40a56");
        assert_eq!(UserIds(LogUserIds::Off).show(&user), "-");
    }
}
