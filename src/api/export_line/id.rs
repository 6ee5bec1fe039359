//! The id that another system knew a notification by, and the one that it has here.

use serde_json::Value;
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};
use uuid::{Builder, Uuid};

use crate::api::fields::Fields;
use crate::user::UserId;

/// What ids that are no UUIDs are mapped under (RFC 9562 section 5.5). With another one a repeated import would
/// add everything again: it must never change.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d2b_9c1e_57a4_4f0b_9a3e_3c8f_71d0_5b26);

/// An id that is no UUID is no longer than this.
const MAX_ID: usize = 255;

const ID: &str = "a UUID, another text of 1 to 255 characters, or an integer; without it a repeated import would add it again";

/// The id that the old system knew it by.
pub(super) enum OldId {
    Uuid(Uuid),
    Other {
        /// An integer as its decimal spelling.
        text: String,
        /// As the export has it: a string, or an integer.
        json: Value,
    },
}

impl OldId {
    pub(super) fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let Some(json) = fields.take("id") else {
            fields.refuse("id", "required", ID);
            return None;
        };
        let json = serde_json::from_str(json).unwrap_or_default();
        let text = match &json {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                fields.refuse("id", "type_mismatch", ID);
                return None;
            }
        };
        if text.is_empty() {
            fields.refuse("id", "blank", ID);
            return None;
        }
        if text.chars().count() > MAX_ID {
            fields.refuse("id", "too_long", ID);
            return None;
        }
        // With its hyphens: other texts of 32 digits are other systems' ids, and kept as these spell them.
        let uuid = Uuid::parse_str(&text).ok().filter(|_| text.len() == 36);
        Some(uuid.map_or(Self::Other { text, json }, Self::Uuid))
    }

    /// The id here: its own, or one that is always the same for this user and id.
    pub(super) fn uuid(&self, user: &UserId) -> Uuid {
        match self {
            Self::Uuid(uuid) => *uuid,
            Self::Other { text, .. } => version_5(&format!("{user}\0{text}")),
        }
    }

    /// The data, and in it as `legacyId` the id that is not kept otherwise; unless the data has its own.
    pub(super) fn kept_in(&self, data: Box<RawValue>) -> Box<RawValue> {
        let Self::Other { json, .. } = self else {
            return data;
        };
        let is_taken = serde_json::from_str::<Value>(data.get())
            .is_ok_and(|data| data.get("legacyId").is_some());
        let rest = data.get().strip_prefix('{').filter(|_| !is_taken);
        let text = match rest {
            None => return data,
            Some("}") => format!(r#"{{"legacyId":{json}}}"#),
            Some(rest) => format!(r#"{{"legacyId":{json},{rest}"#),
        };
        RawValue::from_string(text).unwrap_or(data)
    }
}

/// RFC 9562 section 5.5: the same name has the same UUID, everywhere.
fn version_5(name: &str) -> Uuid {
    let digest = Sha1::new()
        .chain_update(NAMESPACE.as_bytes())
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 16];
    for (byte, digest) in bytes.iter_mut().zip(digest) {
        *byte = digest;
    }
    Builder::from_sha1_bytes(bytes).into_uuid()
}
