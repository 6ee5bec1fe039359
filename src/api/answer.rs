//! Problems become answers here, in the form of RFC 9457; the one place where failed requests are logged.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

use super::problem::{FieldError, Problem};
use crate::auth::Refusal;
use crate::metrics;

/// How long a caller waits before it repeats what a retry cures.
const RETRY_AFTER_SECONDS: &str = "1";

impl Problem {
    /// The headers that the status asks for (RFC 9110 sections 10.2.3 and 11.6.1, RFC 6750 section 3).
    fn headers(&self) -> HeaderMap {
        if let Self::RateLimited(exceeded) = self {
            return exceeded.headers();
        }
        let pair = match (self.status(), self) {
            (StatusCode::SERVICE_UNAVAILABLE, _) => (header::RETRY_AFTER, RETRY_AFTER_SECONDS),
            (StatusCode::UNAUTHORIZED, Self::Refused(Refusal::Missing)) => {
                (header::WWW_AUTHENTICATE, "Bearer")
            }
            (StatusCode::UNAUTHORIZED, _) => {
                (header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)
            }
            // The rest of the body is not read, so the connection is good for nothing more.
            (StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE, _) => {
                (header::CONNECTION, "close")
            }
            _ => return HeaderMap::new(),
        };
        HeaderMap::from_iter([(pair.0, HeaderValue::from_static(pair.1))])
    }

    /// RFC 9457. The `type` is the code as a name that leads nowhere, which section 3.1.1 allows.
    pub(super) fn text(&self, request_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Rendered<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            code: &'static str,
            detail: &'a str,
            errors: &'a [FieldError],
            request_id: &'a str,
        }
        let (status, code, detail) = (self.status(), self.code(), self.detail());
        let rendered = Rendered {
            r#type: format!("urn:bellhop:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: &detail,
            errors: self.errors(),
            request_id,
        };
        serde_json::to_vec(&rendered).unwrap_or_default()
    }

    fn render(&self, request_id: &str) -> Response {
        let body = Body::from(self.text(request_id));
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status(), content_type, self.headers(), body).into_response()
    }

    /// What an error answer without a body of ours means: those of axum and tower-http.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            status if status.is_client_error() => {
                Self::malformed("request_invalid", "The request cannot be read.")
            }
            _ => Self::Defect("an answer without a body"),
        }
    }

    /// Logs what someone should look at, with its whole chain of causes, and counts what the store did.
    fn report(&self, request_id: &str, metrics: &metrics::Metrics) {
        let error: &dyn Error = self;
        match self {
            Self::StoreAway(_) => metrics
                .store_errors
                .of(metrics::StoreError::Unavailable)
                .increment(1),
            Self::StoreFailed(_) => metrics
                .store_errors
                .of(metrics::StoreError::Failed)
                .increment(1),
            Self::Overloaded
            | Self::TimedOut
            | Self::Interrupted(_)
            | Self::Panicked
            | Self::Defect(_) => {}
            Self::Refused(Refusal::Invalid(rule)) => {
                tracing::info!(request = request_id, rule, "token refused");
            }
            Self::Malformed { .. }
            | Self::Invalid(_)
            | Self::Refused(Refusal::Missing | Refusal::Expired | Refusal::Revoked)
            | Self::Forbidden(_)
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::BodyTimeout
            | Self::TooLarge
            | Self::UnsupportedMediaType(_)
            | Self::KeyReused
            | Self::RateLimited(_)
            | Self::TooManyForLimit => {}
        }
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                tracing::warn!(request = request_id, error, "request not served");
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(request = request_id, error, "request failed");
            }
            _ => {}
        }
    }
}

/// Carries the problem to `answer_problems`, which knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Where the one who found out which publisher acts tells the one who logs that it was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Acting(Arc<OnceLock<String>>);

impl Acting {
    /// Notes the publisher, as the log may show it.
    pub(super) fn is(parts: &Parts, publisher: &str) {
        if let Some(acting) = parts.extensions.get::<Self>() {
            acting.0.get_or_init(|| publisher.to_owned());
        }
    }

    /// One line for what a publisher will ask about: who was refused, and by which code. Never what was in it.
    fn log_refusal(&self, request_id: &str, problem: &Problem) {
        let publisher = self.0.get().map_or("-", String::as_str);
        let code = problem.code();
        tracing::info!(request = request_id, publisher, code, "publish refused");
    }
}

/// Whether the request hands something in, changes it or takes it back for a user.
fn is_publishing(request: &Request) -> bool {
    // The route is not known yet; the path is.
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/notifications" | "/api/notifications/batch" | "/api/emit") => true,
        (&Method::PATCH | &Method::DELETE, path) => path
            .strip_prefix("/api/users/")
            .and_then(|rest| rest.split_once("/notifications/"))
            .is_some_and(|(user, id)| {
                [user, id]
                    .iter()
                    .all(|part| !part.is_empty() && !part.contains('/'))
            }),
        _ => false,
    }
}

/// Reports a problem, and answers what the caller is told of it.
pub(super) fn answer_problem(
    problem: &Problem,
    request_id: &str,
    acting: Option<&Acting>,
    metrics: &metrics::Metrics,
) -> Response {
    problem.report(request_id, metrics);
    if let Some(acting) = acting.filter(|_| problem.status().is_client_error()) {
        acting.log_refusal(request_id, problem);
    }
    problem.render(request_id)
}

/// Gives every error answer of the layers and handlers within its body, and reports it.
pub(super) async fn answer_problems(
    State(metrics): State<Arc<metrics::Metrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let acting = is_publishing(&request).then(Acting::default);
    if let Some(acting) = &acting {
        request.extensions_mut().insert(acting.clone());
    }
    let request_id = request.headers().get("x-request-id").cloned();
    let mut response = next.run(request).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }

    let problem = response.extensions_mut().remove::<Arc<Problem>>();
    let problem = problem.unwrap_or_else(|| Arc::new(Problem::of_status(response.status())));
    let request_id = request_id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let mut answer = answer_problem(&problem, request_id, acting.as_ref(), &metrics);
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::StoreError;

    async fn rendered(problem: Problem) -> (StatusCode, HeaderMap, Value) {
        let response = problem.render("r-1");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 64 * 1024).await.unwrap();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&body).unwrap(),
        )
    }

    #[tokio::test]
    async fn a_problem_has_the_members_of_the_contract() {
        let pointer = "/title".to_owned();
        let errors = vec![FieldError {
            pointer,
            code: "required",
            expected: "1 to 200 characters",
        }];
        let (status, headers, body) = rendered(Problem::Invalid(errors)).await;

        assert_eq!(status, 422);
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "type": "urn:bellhop:problem:body_invalid", "title": "Unprocessable Entity", "status": 422,
                "code": "body_invalid",
                "detail": "Each entry of errors names a field and what is expected of it. Nothing was written.",
                "errors": [{"pointer": "/title", "code": "required", "expected": "1 to 200 characters"}],
                "requestId": "r-1"
            })
        );
    }

    #[tokio::test]
    async fn a_cause_is_never_shown() {
        let away = Problem::StoreAway(StoreError::Refused("hunter2".to_owned()));
        let (status, headers, body) = rendered(away).await;
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (503, &json!("storage_unavailable"))
        );
        assert_eq!(headers[header::RETRY_AFTER], "1");
        assert!(!body.to_string().contains("hunter2"), "{body}");

        let failed = Problem::from(StoreError::Refused("hunter2".to_owned()));
        let (status, _, body) = rendered(failed).await;
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (500, &json!("internal_error"))
        );
        assert!(!body.to_string().contains("hunter2"), "{body}");
    }

    #[tokio::test]
    async fn a_refused_token_is_told_the_code_and_not_the_rule() {
        for (refusal, code, challenge) in [
            (Refusal::Missing, "token_missing", "Bearer"),
            (
                Refusal::Invalid("the rule"),
                "token_invalid",
                r#"Bearer error="invalid_token""#,
            ),
            (
                Refusal::Expired,
                "token_expired",
                r#"Bearer error="invalid_token""#,
            ),
        ] {
            let (status, headers, body) = rendered(refusal.into()).await;
            assert_eq!((status.as_u16(), &body["code"]), (401, &json!(code)));
            assert_eq!(headers[header::WWW_AUTHENTICATE], challenge);
            assert!(!body.to_string().contains("the rule"), "{body}");
        }
    }
}
