//! Applications hand notifications in: for one user, for many, or for oneself to try it out.

use std::sync::Arc;

use axum::extract;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::body::{Large, Small};
use super::caller::{Actor, Publisher};
use super::draft::{Publication, Rules, test_draft};
use super::problem::Problem;
use super::{State, json, json_text, openapi};
use crate::bus::Sent;
use crate::notification::Draft;
use crate::publish::{self, Published};
use crate::store::IdempotencyKey;
use crate::user::UserId;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub(super) const MAX_KEY: usize = 255;

/// `POST /api/notifications`
#[utoipa::path(
    post,
    path = "/api/notifications",
    operation_id = "createNotification",
    tag = "publishing",
    summary = "Notify one user, or many",
    description = "At most 32 KiB, or 256 KiB with `userIds`.",
    security(("bearer" = []), ("apiKey" = [])),
    params(openapi::IdempotencyKey),
    request_body(content = ref("#/components/schemas/NewNotification"), content_type = "application/json"),
    responses(
        (status = 201, description = "Committed", body = ref("#/components/schemas/Created"), headers(("Idempotent-Replayed" = String, description = "`true`: this is the answer to the first request with this key."))),
        openapi::PublisherRefusals,
        openapi::BodyRefusals,
        openapi::RateRefusal,
    ),
)]
pub(super) async fn create(
    extract::State(state): extract::State<Arc<State>>,
    publisher: Publisher,
    headers: HeaderMap,
    Large(body): Large,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &publisher, "/api/notifications", &body)?;
    let asked = Asked::read(key, state.rules(), |rules| Publication::parse(&body, rules))?;
    let many = asked.body.many;
    let published = asked
        .answer(
            &state,
            &publisher,
            |Publication { draft, users, .. }| {
                let to = users.into_iter().map(|user| (user, 0)).collect();
                (vec![draft], to)
            },
        )
        .await?;
    if many {
        Ok(created_many(&published))
    } else {
        created_one(&published)
    }
}

/// What a body asks for, under which key, and why it is refused if it comes for the first time.
pub(super) struct Asked<T> {
    pub(super) body: T,
    key: Option<IdempotencyKey>,
    too_late: Option<Problem>,
}

impl<T> Asked<T> {
    /// Reads the body by the rules of now. Under a key, what was in time a day ago is read too: its first request may
    /// have been.
    pub(super) fn read(
        key: Option<IdempotencyKey>,
        rules: Rules,
        parse: impl Fn(Rules) -> Result<T, Problem>,
    ) -> Result<Self, Problem> {
        let refused = match parse(rules) {
            Ok(body) => {
                return Ok(Self {
                    body,
                    key,
                    too_late: None,
                });
            }
            Err(problem) => problem,
        };
        let read = (key.is_some() && refused.is_too_late()).then(|| parse(rules.of_a_day_ago()));
        match read {
            Some(Ok(body)) => Ok(Self {
                body,
                key,
                too_late: Some(refused),
            }),
            Some(Err(_)) | None => Err(refused),
        }
    }

    /// Writes it, within the limits; what is too late for that is answered as its first request was, or refused.
    pub(super) async fn answer(
        self,
        state: &State,
        publisher: &Publisher,
        drafts: impl FnOnce(T) -> (Vec<Draft>, Vec<(UserId, usize)>),
    ) -> Result<Published, Problem> {
        let (drafts, to) = drafts(self.body);
        match (self.too_late, &self.key) {
            (Some(problem), Some(key)) => {
                let first = state.publisher.replay(drafts, to, key).await?;
                first.ok_or(problem)
            }
            (Some(problem), None) => Err(problem),
            (None, _) => {
                let users = to.iter().map(|(user, _)| user);
                state.limits.count(publisher, users)?;
                Ok(state.publisher.publish(drafts, to, self.key).await?)
            }
        }
    }
}

/// `POST /api/notifications/test`
#[utoipa::path(
    post,
    path = "/api/notifications/test",
    operation_id = "createTestNotification",
    tag = "inbox",
    summary = "Notify oneself, to try it out",
    security(("bearer" = [])),
    request_body(content = ref("#/components/schemas/TestNotification"), content_type = "application/json"),
    responses(
        (status = 201, description = "Committed", body = ref("#/components/schemas/CreatedOne")),
        openapi::UserRefusals,
        openapi::BodyRefusals,
        openapi::RateRefusal,
    ),
)]
pub(super) async fn test(
    extract::State(state): extract::State<Arc<State>>,
    Actor(user): Actor,
    Small(body): Small,
) -> Result<Response, Problem> {
    let draft = test_draft(&body, state.rules())?;
    state.limits.count_own(&user)?;
    let published = state
        .publisher
        .publish(vec![draft], vec![(user, 0)], None)
        .await?;
    created_one(&published)
}

/// The notification as its event has it, and one member more, which no notification has.
fn created_one(published: &Published) -> Result<Response, Problem> {
    let item = published.items.first();
    let members = item.and_then(|item| item.event.payload.get().strip_suffix('}'));
    let members = members.ok_or(Problem::Defect("nothing was created"))?;
    let delivery = delivery(published.delivery);
    let body = [members, r#","delivery":""#, delivery, r#""}"#].concat();
    Ok(mark_replay(published, json_text(StatusCode::CREATED, body)))
}

pub(super) fn created_many<'a>(published: &'a Published) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Item<'i> {
        user_id: &'i UserId,
        id: Uuid,
        seq: u64,
    }
    #[derive(Serialize)]
    struct Many<'i> {
        items: Vec<Item<'i>>,
        delivery: &'static str,
    }
    let item = |one: &'a publish::Item| Item {
        user_id: &one.user,
        id: one.id,
        seq: one.seq,
    };
    let items = published.items.iter().map(item);
    let many = Many {
        items: items.collect(),
        delivery: delivery(published.delivery),
    };
    mark_replay(published, json(StatusCode::CREATED, &many))
}

pub(super) fn delivery(sent: Sent) -> &'static str {
    match sent {
        Sent::Live => "live",
        Sent::Deferred => "deferred",
    }
}

fn mark_replay(published: &Published, mut response: Response) -> Response {
    if published.replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The one `Idempotency-Key`, if there is one: 1 to 255 visible ASCII characters.
///
/// What is the same request is decided by its publisher, its path and the bytes of its body.
pub(super) fn idempotency_key(
    headers: &HeaderMap,
    publisher: &Publisher,
    path: &str,
    body: &Bytes,
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    let fits = (1..=MAX_KEY).contains(&value.len());
    let key = value
        .to_str()
        .ok()
        .filter(|_| visible && fits && values.next().is_none());
    let Some(key) = key else {
        let detail = "Idempotency-Key is 1 to 255 visible ASCII characters, once.";
        return Err(Problem::malformed("idempotency_key_invalid", detail));
    };
    let scope = format!("{} {path}", publisher.name);
    Ok(Some(IdempotencyKey {
        scope,
        key: key.to_owned(),
        body: Sha256::digest(body).into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, &'static str> {
        let publisher = Publisher {
            name: "token:shop".to_owned(),
        };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        let key = idempotency_key(&headers, &publisher, "/api/x", &Bytes::from_static(b"{}"));
        key.map(|key| key.map(|key| format!("{}|{}", key.scope, key.key)))
            .map_err(|problem| problem.code())
    }

    #[test]
    fn an_idempotency_key_belongs_to_its_publisher_and_path() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(
            key(&[b"order-7"]),
            Ok(Some("token:shop /api/x|order-7".to_owned()))
        );
        assert!(key(&[&[b'k'; 255]]).is_ok());
        for values in [
            &[&b""[..]][..],
            &[&[b'k'; 256]],
            &[b"a b"],
            &[b"\xc3\xa9"],
            &[b"a", b"a"],
        ] {
            assert_eq!(key(values), Err("idempotency_key_invalid"), "{values:?}");
        }
    }
}
