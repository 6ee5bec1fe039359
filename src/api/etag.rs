//! Answers that a client asks for again and again: unchanged ones cost no body (RFC 9110 section 13.1.2).

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::user::UserId;

/// The body with its `ETag`; or `304` and nothing, if the caller has it already.
///
/// The tag is strong: made from the bytes of the body, whose they are, and the history they belong to.
pub(super) fn revalidated(
    headers: &HeaderMap,
    user: &UserId,
    epoch: &str,
    body: &impl Serialize,
) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let tag = tag(&[user.as_str().as_bytes(), epoch.as_bytes(), &body]);
    let validators = [
        (header::ETAG, visible(&format!("\"{tag}\""))),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
        (header::VARY, HeaderValue::from_static("Authorization")),
    ];
    if is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, validators, content_type, Body::from(body)).into_response()
}

/// 22 characters of base64url, without quotes. Parts are told apart: no two lists of them are alike.
fn tag(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..16])
}

/// A tag is visible ASCII.
fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether `If-None-Match` has the tag, by weak comparison, or is `*`. What is no list of tags is not looked at.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .any(|line| line.trim() == "*" || opaque_tags(line).is_some_and(|tags| tags.contains(&tag)))
}

/// What is in the quotes of each entity-tag of a list; a comma may be in quotes too.
fn opaque_tags(list: &str) -> Option<Vec<&str>> {
    let blank = |character| matches!(character, ' ' | '\t' | ',');
    let mut tags = Vec::new();
    let mut rest = list.trim_matches(blank);
    while !rest.is_empty() {
        let quoted = rest.strip_prefix("W/").unwrap_or(rest);
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.push(tag);
        let next = after.trim_start_matches([' ', '\t']);
        if !next.is_empty() && !next.starts_with(',') {
            return None;
        }
        rest = next.trim_start_matches(blank);
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_is_read_as_it_is_written() {
        for (list, tags) in [
            ("\"a\"", &["a"][..]),
            ("W/\"a\"", &["a"]),
            ("\"a\", W/\"b\" ,\t\"c,d\"", &["a", "b", "c,d"]),
            (",\"a\",, \"\",", &["a", ""]),
            ("", &[]),
        ] {
            assert_eq!(opaque_tags(list).unwrap(), tags, "{list}");
        }
        for list in ["a", "\"a", "\"a\" \"b\"", "w/\"a\"", "*, \"a\"", "\"a\"b"] {
            assert_eq!(opaque_tags(list), None, "{list}");
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let user = |text| UserId::try_from(text).unwrap();
        let answer = |conditions: &[&str], user: &UserId, epoch: &str, body: u64| {
            let line = |text: &&str| {
                let value = HeaderValue::from_str(text).unwrap();
                (header::IF_NONE_MATCH, value)
            };
            let headers: HeaderMap = conditions.iter().map(line).collect();
            revalidated(&headers, user, epoch, &body)
        };
        let first = answer(&[], &user("42"), "e", 1);
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(tag.len(), 24);
        for conditions in [
            &[tag.as_str()][..],
            &["*"],
            &[&format!("W/{tag}")],
            &["\"x\"", &format!("\"y\", {tag}")],
            &["nonsense", &tag],
        ] {
            let again = answer(conditions, &user("42"), "e", 1);
            assert_eq!(again.status(), 304, "{conditions:?}");
            assert_eq!(again.headers()[header::ETAG], tag);
            assert_eq!(again.headers()[header::CACHE_CONTROL], "private, no-cache");
            assert_eq!(again.headers()[header::VARY], "Authorization");
            assert!(!again.headers().contains_key(header::CONTENT_TYPE));
        }
        for (conditions, user, epoch, body) in [
            (tag.trim_matches('"'), user("42"), "e", 1),
            (&tag, user("43"), "e", 1),
            (&tag, user("42"), "f", 1),
            (&tag, user("42"), "e", 2),
        ] {
            let other = answer(&[conditions], &user, epoch, body);
            assert_eq!(other.status(), 200, "{user} {epoch} {body}");
        }
    }
}
