//! How often something may happen: a rate and a burst.

use std::str::FromStr;

/// A token bucket: `rate` events a second in the long run, `burst` at once. A rate of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    pub rate: u32,
    pub burst: u32,
}

impl FromStr for EventLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>();
        let (Ok(rate), Ok(burst)) = (number(rate), number(burst)) else {
            return Err(format!("{text:?} is not RATE or RATE/BURST, as in 5/20"));
        };
        Ok(Self {
            rate,
            burst: burst.max(rate),
        })
    }
}
