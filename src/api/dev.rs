//! The development sign-in of the embedded default: a token for any user, to whoever sits at this machine.

use std::sync::Arc;
use std::time::Duration;

use axum::extract;
use axum::response::Response;
use chrono::Utc;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};

use super::body::Small;
use super::fields::Fields;
use super::origin::{Origins, is_loopback};
use super::problem::Problem;
use super::query::NoParameters;
use super::{State, json, openapi};
use crate::auth;
use crate::config::{self, Secret};
use crate::notification::timestamp;
use crate::user::UserId;

/// Long enough for a day's work.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// What a proxy adds: whoever comes through one does not sit at this machine.
const FORWARDED: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

/// Signs tokens with the generated secret of the embedded default. Only that may have one.
#[derive(Clone, Debug)]
pub struct DevSignIn {
    pub auth: config::Auth,
    pub secret: Secret,
}

/// `POST /api/dev/token`
#[utoipa::path(
    post,
    path = "/api/dev/token",
    operation_id = "createDevToken",
    tag = "client",
    summary = "A token for any user: on this machine, in the embedded default",
    request_body(content = ref("#/components/schemas/DevSignIn"), content_type = "application/json"),
    responses(
        (status = 200, description = "Good for 12 hours", body = ref("#/components/schemas/DevToken")),
        openapi::BodyRefusals,
        openapi::NotFound,
    ),
)]
pub(super) async fn token(
    extract::State(state): extract::State<Arc<State>>,
    headers: HeaderMap,
    uri: Uri,
    _: NoParameters,
    Small(body): Small,
) -> Result<Response, Problem> {
    let sign_in = state
        .dev
        .as_ref()
        .filter(|_| is_at_this_machine(&headers, &uri));
    let sign_in = sign_in.ok_or(Problem::NotFound)?;
    let user = parse(&body)?;

    let lifetime = lifetime(&sign_in.auth);
    let token = auth::sign_hs256(&sign_in.auth, &sign_in.secret, &user, None, lifetime);
    let Ok(token) = token else {
        return Err(Problem::Defect("a development token could not be signed"));
    };
    let expires_at = timestamp(Utc::now() + lifetime);
    let body = serde_json::json!({ "token": token, "userId": user, "expiresAt": expires_at });
    Ok(json(StatusCode::OK, &body))
}

fn lifetime(auth: &config::Auth) -> Duration {
    match auth.token_max_lifetime_seconds {
        0 => LIFETIME,
        seconds => LIFETIME.min(Duration::from_secs(seconds)),
    }
}

fn parse(body: &[u8]) -> Result<UserId, Problem> {
    let mut fields = Fields::of(body)?;
    let user = fields
        .take("userId")
        .map(|json| fields.user("userId", json));
    if user.is_none() {
        fields.refuse("userId", "required", "a user id");
    }
    fields.finish()?;
    user.flatten()
        .ok_or(Problem::Defect("a user id without an error"))
}

/// Whether a page of this node, or a command, asks from this machine: the name it was reached by is
/// loopback, which a page of elsewhere cannot state (DNS rebinding), and no proxy stands in between.
fn is_at_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers
        .get_all(header::HOST)
        .into_iter()
        .map(|host| host.to_str().ok());
    let (Some(Some(host)), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let is_local =
        |authority: &Authority| is_loopback(authority.host()) && !authority.as_str().contains('@');
    let by_name = host.parse().is_ok_and(|authority| is_local(&authority))
        && uri.authority().is_none_or(is_local);
    let same_origin = match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => origin
            .to_str()
            .is_ok_and(|origin| Origins::new(&[], false).allows(origin, Some(host))),
    };
    // Browsers that state it cannot be made to state another (Fetch Metadata).
    let site = headers
        .get("sec-fetch-site")
        .map(http::HeaderValue::as_bytes);
    let same_site = site.is_none_or(|site| site == b"same-origin" || site == b"none");
    let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
    by_name && same_origin && same_site && !forwarded
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn allowed(headers: &[(&'static str, &'static str)], uri: &'static str) -> bool {
        let pairs = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        is_at_this_machine(&pairs.collect(), &Uri::from_static(uri))
    }

    #[test]
    fn only_who_sits_at_this_machine_signs_in() {
        let path = "/api/dev/token";
        for host in [
            "localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "LOCALHOST",
        ] {
            assert!(allowed(&[("host", host)], path), "{host}");
        }
        let own = ("origin", "http://localhost:3000");
        assert!(allowed(
            &[
                ("host", "localhost:3000"),
                own,
                ("sec-fetch-site", "same-origin")
            ],
            path
        ));

        for headers in [
            &[][..],
            &[("host", "evil:3000")],
            &[("host", "localhost.evil:3000")],
            &[("host", "x@localhost:3000")],
            &[("host", "192.168.0.7:3000")],
            &[("host", "localhost:3000"), ("host", "localhost:3000")],
            &[
                ("host", "localhost:3000"),
                ("origin", "http://localhost:5173"),
            ],
            &[("host", "localhost:3000"), ("origin", "null")],
            &[("host", "localhost:3000"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:3000"), ("x-forwarded-for", "10.0.0.1")],
            &[("host", "localhost:3000"), ("forwarded", "for=10.0.0.1")],
        ] {
            assert!(!allowed(headers, path), "{headers:?}");
        }
        assert!(!allowed(
            &[("host", "localhost:3000")],
            "http://evil/api/dev/token"
        ));
    }

    #[test]
    fn a_sign_in_names_one_user() {
        assert_eq!(parse(br#"{"userId": 42}"#).unwrap().as_str(), "42");
        for body in [
            "{}",
            r#"{"userId": null}"#,
            r#"{"userId": "a b"}"#,
            r#"{"userId": "a", "scope": "x"}"#,
            "[]",
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().status(), 422, "{body}");
        }
    }
}
