//! From the bytes of a body to what a publisher changes of a notification that is there already.

use super::draft::{MAX_MESSAGE, MESSAGE, Rules, TITLE, data, expiry, link, text, title};
use super::fields::Fields;
use super::problem::Problem;
use crate::store::Edit;

const SOME: &str = "at least one of title, message, data, actionUrl, icon, badge and expiresAt";

/// Reads the body of an edit. A member that is left out stays as it is; `null` takes away what may be absent, and empties
/// `message` and `data`.
pub(super) fn parse(body: &[u8], rules: Rules) -> Result<Edit, Problem> {
    let mut fields = Fields::of(body)?;
    if fields.is_empty() {
        fields.refuse_as_a_whole("required", SOME);
    }
    let edit = Edit {
        title: edited_title(&mut fields),
        message: edited_message(&mut fields),
        data: (fields.is_there("data")).then(|| {
            fields.take_null("data");
            data(&mut fields)
        }),
        action_url: optional(&mut fields, "actionUrl", |fields, name| {
            link(fields, name, rules)
        }),
        icon: optional(&mut fields, "icon", |fields, name| {
            link(fields, name, rules)
        }),
        badge: optional(&mut fields, "badge", |fields, name| {
            link(fields, name, rules)
        }),
        expires_at: optional(&mut fields, "expiresAt", |fields, _| expiry(fields, rules)),
    };
    fields.finish()?;
    Ok(edit)
}

fn edited_title(fields: &mut Fields<'_>) -> Option<String> {
    if fields.take_null("title") {
        fields.refuse("title", "required", TITLE);
    }
    fields.has("title").then(|| title(fields))
}

fn edited_message(fields: &mut Fields<'_>) -> Option<String> {
    if fields.take_null("message") {
        return Some(String::new());
    }
    text(fields, "message", MAX_MESSAGE, MESSAGE)
}

/// `None`: it is left out; `Some(None)`: it is `null`.
fn optional<'a, T>(
    fields: &mut Fields<'a>,
    name: &str,
    read: impl FnOnce(&mut Fields<'a>, &str) -> Option<T>,
) -> Option<Option<T>> {
    if fields.take_null(name) {
        return Some(None);
    }
    fields.has(name).then(|| read(fields, name))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::api::fields::tests::errors;

    fn parse(body: &str) -> Result<Edit, Problem> {
        let rules = Rules {
            http_urls: false,
            now: DateTime::UNIX_EPOCH,
        };
        super::parse(body.as_bytes(), rules)
    }

    #[test]
    fn what_is_left_out_stays() {
        let edit = parse(r#"{"title": "t"}"#).unwrap();
        assert_eq!(edit.title.as_deref(), Some("t"));
        assert!(edit.message.is_none() && edit.data.is_none() && edit.action_url.is_none());
        assert!(edit.icon.is_none() && edit.badge.is_none() && edit.expires_at.is_none());

        let edit = parse(r#"{"message": "", "icon": "/i.png", "data": {"a": [ 1 ]}}"#).unwrap();
        assert_eq!(edit.message.as_deref(), Some(""));
        assert_eq!(edit.icon, Some(Some("/i.png".to_owned())));
        assert_eq!(edit.data.unwrap().get(), r#"{"a":[1]}"#);
        assert!(edit.title.is_none());
    }

    #[test]
    fn null_takes_away_what_may_be_absent() {
        let edit = parse(
            r#"{"actionUrl": null, "icon": null, "badge": null, "expiresAt": null, "data": null, "message": null}"#,
        )
        .unwrap();
        let absent = Some(None);
        assert_eq!(
            (&edit.action_url, &edit.icon, &edit.badge),
            (&absent, &absent, &absent)
        );
        assert_eq!(edit.expires_at, Some(None));
        assert_eq!(edit.data.unwrap().get(), "{}");
        assert_eq!(edit.message.as_deref(), Some(""));
    }

    #[test]
    fn every_rule_that_an_edit_breaks_is_named() {
        for (body, expected) in [
            ("{}", &[" required"][..]),
            ("[]", &[" type_mismatch"]),
            (r#"{"title": null, "message": null}"#, &["/title required"]),
            (
                r#"{"title": " ", "message": 7, "data": [], "actionUrl": "javascript:x", "icon": 1, "expiresAt": "1969-01-01T00:00:00Z"}"#,
                &[
                    "/title blank",
                    "/message type_mismatch",
                    "/data type_mismatch",
                    "/actionUrl url_not_allowed",
                    "/icon type_mismatch",
                    "/expiresAt time_past",
                ],
            ),
            (
                r#"{"priority": "HIGH", "isRead": true, "userId": 7}"#,
                &[
                    "/isRead unknown_field",
                    "/priority unknown_field",
                    "/userId unknown_field",
                ],
            ),
        ] {
            assert_eq!(errors(parse(body).unwrap_err()), expected, "{body}");
        }
    }
}
