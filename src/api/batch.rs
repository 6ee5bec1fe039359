//! Many notifications at once, each for a user of its own: all of them or none.

use std::sync::Arc;

use axum::extract;
use axum::response::Response;
use http::HeaderMap;

use super::body::Huge;
use super::caller::Publisher;
use super::draft::{Rules, titled_draft};
use super::fields::Fields;
use super::problem::Problem;
use super::publish::{Asked, created_many, idempotency_key};
use super::{State, openapi};
use crate::notification::Draft;
use crate::user::UserId;

const NOTIFICATIONS: &str = "1 to 1000 notifications, each with one userId";
const USER_ID: &str = "the user that it is for";
pub(super) const MAX_NOTIFICATIONS: usize = 1_000;

/// Drafts, and for each its user and its place among them.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    drafts: Vec<Draft>,
    to: Vec<(UserId, usize)>,
}

/// `POST /api/notifications/batch`
///
/// A user who is named several times gets the notifications in their order.
#[utoipa::path(
    post,
    path = "/api/notifications/batch",
    operation_id = "createBatch",
    tag = "publishing",
    summary = "Notify many users, each of their own: all or none",
    description = "At most 2 MiB.",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::IdempotencyKey),
    request_body(content = ref("#/components/schemas/Batch"), content_type = "application/json"),
    responses(
        (status = 201, description = "Committed", body = ref("#/components/schemas/CreatedMany"), headers(("Idempotent-Replayed" = String, description = "`true`: this is the answer to the first request with this key."))),
        openapi::PublisherRefusals,
        openapi::BodyRefusals,
        openapi::RateRefusal,
    ),
)]
pub(super) async fn create(
    extract::State(state): extract::State<Arc<State>>,
    publisher: Publisher,
    headers: HeaderMap,
    Huge(body): Huge,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &publisher, "/api/notifications/batch", &body)?;
    let asked = Asked::read(key, state.rules(), |rules| parse(&body, rules))?;
    let published = asked
        .answer(&state, &publisher, |Drafts { drafts, to }| (drafts, to))
        .await?;
    Ok(created_many(&published))
}

pub(super) fn parse(body: &[u8], rules: Rules) -> Result<Drafts, Problem> {
    let mut fields = Fields::of(body)?;
    let items = match fields.take("notifications") {
        Some(json) => fields.items("notifications", json),
        None => {
            fields.refuse("notifications", "required", NOTIFICATIONS);
            None
        }
    };
    let Some(items) = items else {
        fields.finish()?;
        return Ok(Drafts::default());
    };
    let mut found = Drafts::default();
    if items.len() > MAX_NOTIFICATIONS {
        fields.refuse("notifications", "too_many", NOTIFICATIONS);
    } else {
        if items.is_empty() {
            fields.refuse("notifications", "too_few", NOTIFICATIONS);
        }
        found.read(&mut fields, &items, rules);
    }
    fields.finish()?;
    Ok(found)
}

impl Drafts {
    fn read<'a>(&mut self, fields: &mut Fields<'a>, items: &[&'a str], rules: Rules) {
        for (index, json) in items.iter().enumerate() {
            if fields.has_enough_errors() {
                return;
            }
            let name = format!("notifications/{index}");
            let Some(mut item) = fields.inside(&name, json) else {
                continue;
            };
            match item.take("userId") {
                Some(json) => {
                    let user = item.user("userId", json);
                    self.to.extend(user.map(|user| (user, index)));
                }
                None => item.refuse("userId", "required", USER_ID),
            }
            self.drafts.push(titled_draft(&mut item, rules));
            fields.absorb(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::api::fields::tests::errors;

    fn parse(body: &str) -> Result<Drafts, Problem> {
        let rules = Rules {
            http_urls: false,
            now: DateTime::UNIX_EPOCH,
        };
        super::parse(body.as_bytes(), rules)
    }

    #[test]
    fn each_notification_keeps_its_user_and_its_place() {
        let found = parse(
            r#"{"notifications": [{"userId": "b", "title": "1"}, {"userId": 7, "title": "2"}, {"userId": "b", "title": "3"}]}"#,
        )
        .unwrap();
        let spelled = found
            .to
            .iter()
            .map(|(user, draft)| format!("{user} {}", found.drafts[*draft].title));
        assert_eq!(spelled.collect::<Vec<_>>(), ["b 1", "7 2", "b 3"]);
    }

    #[test]
    fn every_rule_that_a_batch_breaks_is_named_with_its_place() {
        let many = format!("{{\"notifications\": [{}]}}", ["{}"; 1_001].join(","));
        for (body, expected) in [
            ("{}", &["/notifications required"][..]),
            (r#"{"notifications": null}"#, &["/notifications required"]),
            (
                r#"{"notifications": {}, "x": 1}"#,
                &["/notifications type_mismatch", "/x unknown_field"],
            ),
            (r#"{"notifications": []}"#, &["/notifications too_few"]),
            (&many, &["/notifications too_many"]),
            (
                r#"{"notifications": [{"userId": "a", "title": "t"}, 7, {"userIds": ["a"], "title": ""}, {"userId": "a b"}]}"#,
                &[
                    "/notifications/1 type_mismatch",
                    "/notifications/2/userId required",
                    "/notifications/2/title blank",
                    "/notifications/2/userIds unknown_field",
                    "/notifications/3/userId user_id_invalid",
                    "/notifications/3/title required",
                ],
            ),
        ] {
            assert_eq!(errors(parse(body).unwrap_err()), expected, "{body:.80}");
        }
    }

    #[test]
    fn the_errors_of_a_batch_have_an_end() {
        let many = format!("{{\"notifications\": [{}]}}", ["{}"; 1_000].join(","));
        assert_eq!(errors(parse(&many).unwrap_err()).len(), 100);
    }
}
