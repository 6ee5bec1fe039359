//! An API key as it is configured: the name of its holder and its digest, so that no configuration holds the key.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

const EXPECTED: &str = "not name:sha256, as `bellhop key` prints it";

/// Whose key it is, and its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    pub sha256: [u8; 32],
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl FromStr for ApiKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, digest) = text.trim().split_once(':').ok_or(EXPECTED)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err("the name of an API key is 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
        }
        let sha256 = digest_of(digest).ok_or(EXPECTED)?;
        let name = name.to_owned();
        Ok(Self { name, sha256 })
    }
}

/// The bytes of 64 hexadecimal digits.
fn digest_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads the setting without repeating what it cannot read, as clap would: that may be the key itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parser;

impl TypedValueParser for Parser {
    type Value = ApiKey;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<ApiKey, clap::Error> {
        let parsed = value.to_str().unwrap_or_default().parse();
        parsed.map_err(|reason: String| {
            let message = format!("an entry of BELLHOP_API_KEYS (--api-keys) is wrong: {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_is_configured_by_name_and_digest() {
        let digest = "ab".repeat(32);
        let key: ApiKey = format!("shop:{digest}").parse().unwrap();
        assert_eq!((key.name.as_str(), key.sha256), ("shop", [0xab; 32]));
        assert_eq!(format!("{key:?}"), r#"ApiKey { name: "shop", .. }"#);
        for text in [
            String::new(),
            digest.clone(),
            format!(":{digest}"),
            format!("a b:{digest}"),
            format!("shop:{}", &digest[1..]),
            format!("shop:+{}", &digest[1..]),
            format!("{}:{digest}", "x".repeat(65)),
        ] {
            assert!(text.parse::<ApiKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        for text in ["bh_hunter2", "shop:bh_hunter2", "hunter2 :x"] {
            let error = Parser
                .parse_ref(&Command::new("bellhop"), None, OsStr::new(text))
                .unwrap_err();
            let told = error.to_string();
            assert!(told.contains("BELLHOP_API_KEYS"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
