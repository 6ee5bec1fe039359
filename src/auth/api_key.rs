//! The other header that carries a credential, `X-API-Key`: a publisher's key goes in, and its name comes out.

use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::Refusal;
use crate::config::ApiKey;

/// What every key that we make begins with, so that people and secret scanners know one when they see it.
pub const API_KEY_PREFIX: &str = "bh_";

const HEADER: &str = "x-api-key";

/// Longer ones are not looked at.
const MAX_KEY_BYTES: usize = 1_024;

/// The API keys that are believed. Each may publish for any user, and is no user itself: it has no inbox, does
/// not expire, and is revoked by taking it out of the settings.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Vec<ApiKey>);

/// Why the headers yield no key to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// Which of them is meant cannot be known.
    #[error("there is more than one X-API-Key header")]
    Repeated,
}

/// The one `X-API-Key` header, not looked for yet; `None` if there is none.
pub fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiKeyError> {
    let mut values = headers.get_all(HEADER).into_iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(ApiKeyError::Repeated);
    }
    Ok(value.map(http::HeaderValue::as_bytes))
}

/// Whether what was given as a token is one of the keys that we make: no token is without dots.
#[must_use]
pub fn is_api_key(token: &str) -> bool {
    token.starts_with(API_KEY_PREFIX) && !token.contains('.')
}

impl ApiKeys {
    #[must_use]
    pub fn new(keys: &[ApiKey]) -> Self {
        Self(keys.to_vec())
    }

    /// The name of the key that was presented.
    ///
    /// Compares its SHA-256 with every one that is configured, and each time as a whole: how long that takes
    /// tells nothing of what was right.
    pub fn name_of(&self, presented: &[u8]) -> Result<&str, Refusal> {
        if presented.len() > MAX_KEY_BYTES {
            return Err(Refusal::Invalid("the API key is longer than 1 KiB"));
        }
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let (mut found, mut position) = (Choice::from(0), 0_u64);
        for (index, key) in (0_u64..).zip(&self.0) {
            let same = key.sha256.ct_eq(&digest);
            position.conditional_assign(&index, same);
            found |= same;
        }
        let index = bool::from(found).then(|| usize::try_from(position).ok());
        let key = index.flatten().and_then(|index| self.0.get(index));
        key.map(|key| key.name.as_str())
            .ok_or(Refusal::Invalid("the API key is none of BELLHOP_API_KEYS"))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> ApiKeys {
        let key = |(name, key): &(&str, &str)| ApiKey {
            name: (*name).to_owned(),
            sha256: Sha256::digest(key).into(),
        };
        ApiKeys(pairs.iter().map(key).collect())
    }

    #[test]
    fn a_key_is_known_by_its_digest() {
        let keys = keys(&[("shop", "key-1"), ("crm", "key-2"), ("jobs", "key-3")]);
        for (key, name) in [("key-1", "shop"), ("key-2", "crm"), ("key-3", "jobs")] {
            assert_eq!(keys.name_of(key.as_bytes()), Ok(name));
        }
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for key in ["", "key-", "key-11", "KEY-1", " key-1", &long] {
            let refusal = keys.name_of(key.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), "token_invalid", "{key}");
            assert!(!refusal.to_string().contains("key-"), "{refusal}");
        }
        assert!(ApiKeys::default().name_of(b"key-1").is_err());
    }

    #[test]
    fn the_digest_of_a_key_is_no_key() {
        let digest = Sha256::digest("key-1");
        let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let keys = keys(&[("shop", "key-1")]);
        assert!(keys.name_of(hexadecimal.as_bytes()).is_err());
        assert!(keys.name_of(&digest).is_err());
    }

    #[test]
    fn a_key_comes_in_one_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(presented(&headers), Ok(None));
        headers.append(HEADER, HeaderValue::from_static("key-1"));
        assert_eq!(presented(&headers), Ok(Some(&b"key-1"[..])));
        headers.append(HEADER, HeaderValue::from_static("key-1"));
        assert_eq!(presented(&headers), Err(ApiKeyError::Repeated));
    }
}
