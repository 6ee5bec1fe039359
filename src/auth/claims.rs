//! What a token says, read more strictly than jsonwebtoken reads it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The claims of a token. One that is named twice is refused: two readers might believe different ones
/// (RFC 7519 section 4).
pub(super) struct Claims(BTreeMap<String, Value>);

impl Claims {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EachOnce)
    }
}

struct EachOnce;

impl<'de> Visitor<'de> for EachOnce {
    type Value = Claims;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of claims, each named once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(de::Error::custom("a claim is named twice"));
            }
        }
        Ok(Claims(claims))
    }
}

/// Seconds since 1970, rounded as jsonwebtoken rounds them (RFC 7519 section 2, `NumericDate`).
pub(super) fn numeric_date(value: &Value) -> Option<u64> {
    if let Some(seconds) = value.as_u64() {
        return Some(seconds);
    }
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..9e15).contains(seconds))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    Some(seconds.round() as u64)
}

/// We understand no extension, so none may be critical (RFC 7515 section 4.1.11).
///
/// An unreadable header has none; what follows refuses it.
pub(super) fn has_critical_header(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Critical {
        #[serde(default, rename = "crit", deserialize_with = "any")]
        is_present: bool,
    }
    fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| true)
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Critical>(&header).is_ok_and(|header| header.is_present)
}
