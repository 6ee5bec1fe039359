//! `bellhop key`: a new API key for a publisher, shown once, and the setting that makes nodes believe it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};

use super::{Failure, complain, say};
use crate::auth::API_KEY_PREFIX;
use crate::config::ApiKey;

#[derive(Debug, Args)]
pub(super) struct Key {
    /// What the key's holder is called in the log and in limits: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(long, default_value = "publisher", value_name = "NAME", value_parser = name)]
    name: String,
}

impl Key {
    pub(super) fn run(&self) -> Result<(), Failure> {
        // From the operating system itself: 256 bits, which nobody guesses, so that a plain digest keeps them.
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes)?;
        let key = format!("{API_KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));

        // Both lines at once: who reads only the first ends nothing.
        say(format_args!(
            "{key}\nBELLHOP_API_KEYS={}:{}",
            self.name,
            digest(&key)
        ))?;
        complain(
            "the first line is the key, shown this once: give it to the publisher, who sends it as X-API-Key; the second is the nodes' setting, which takes several with commas",
        );
        Ok(())
    }
}

/// The SHA-256 of the key, as `BELLHOP_API_KEYS` has it.
fn digest(key: &str) -> String {
    Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether the setting takes a key of this name.
fn name(text: &str) -> Result<String, String> {
    let setting: ApiKey = format!("{text}:{}", digest("")).parse()?;
    if setting.name != text {
        return Err("the name of an API key has no spaces around it".to_owned());
    }
    Ok(setting.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_takes_what_is_printed() {
        let setting: ApiKey = format!("shop:{}", digest("bh_x")).parse().unwrap();
        assert_eq!(setting.name, "shop");
        assert_eq!(setting.sha256[..], Sha256::digest("bh_x")[..]);
    }

    #[test]
    fn a_name_is_one_that_the_setting_takes() {
        for text in ["shop", "a.B_c-9", &"x".repeat(64)] {
            assert_eq!(name(text).as_deref(), Ok(text));
        }
        for text in ["", " shop", "a b", "a,b", "a:b", "é", &"x".repeat(65)] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }
}
