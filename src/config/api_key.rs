//! An API key of a publisher, as it is configured: by its name and its digest.

use std::str::FromStr;

/// An API key as it is configured: whose it is, and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    pub sha256: [u8; 32],
}

impl FromStr for ApiKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "not name:sha256, as `bellhop key` prints it";
        let (name, digest) = text.trim().split_once(':').ok_or(expected)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err("the name of an API key is 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
        }
        let sha256 = digest_of(digest).ok_or(expected)?;
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
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
