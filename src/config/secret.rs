//! A value that is never printed, and the place in it that may be.

use std::fmt;
use std::str::FromStr;

use super::contradictions::host_of;

/// A value that must not be printed: its `Debug` and `Display` say `<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Each of several values, separated by commas.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.0.split(',').map(|one| Self(one.trim().to_owned()))
    }

    /// Where a URL leads, without what in it is secret: `host:port/path`, or `sqlite:file`.
    #[must_use]
    pub fn place(&self) -> String {
        let plain = self.0.split(['?', '#']).next().unwrap_or_default();
        if plain.starts_with("sqlite:") {
            return plain.to_owned();
        }
        let Ok(url) = url::Url::parse(&self.0) else {
            return "?".to_owned();
        };
        let host = host_of(&url).unwrap_or_else(|| "?".to_owned());
        let port = url.port().map(|port| format!(":{port}"));
        format!("{host}{}{}", port.unwrap_or_default(), url.path())
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self(value.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}
