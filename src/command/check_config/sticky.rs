//! Whether a balancer sends every request of a polling session to the node that holds it: tried, by such sessions.

use std::time::Duration;

use http::{Method, StatusCode, header};
use reqwest::{Client, Response};
use serde::Deserialize;

use crate::command::Failure;

const SESSIONS: usize = 4;
/// Of each session, after its handshake.
const REQUESTS: usize = 4;
/// For one request.
const DEADLINE: Duration = Duration::from_secs(5);

/// Packets of Engine.IO: an answer to a ping, which may come at any time, and the end of the session.
const PONG: &str = "3";
const CLOSE: &str = "1";

#[derive(Debug)]
pub(super) enum Outcome {
    /// Every request found its session.
    Held { sessions: usize, requests: usize },
    /// One reached a node that does not know its session.
    Lost,
    /// Nothing is known: there was no session, or no answer.
    NotTried(String),
}

/// Opens sessions by the balancer at `url`, and goes on with each on new connections, with the cookies that it got.
pub(super) async fn attempt(url: &str, path: &str) -> Outcome {
    for _ in 0..SESSIONS {
        match session(url, path).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Lost,
            Err(Failure(reason)) => return Outcome::NotTried(reason),
        }
    }
    Outcome::Held {
        sessions: SESSIONS,
        requests: SESSIONS * REQUESTS,
    }
}

/// `false`: it was lost.
async fn session(url: &str, path: &str) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Open {
        sid: String,
    }
    let base = url.trim_end_matches('/');
    let base = match base.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => base.to_owned(),
    };
    let address = format!("{base}{path}?EIO=4&transport=polling");
    let opened = request(Method::GET, &address, "", "").await?;
    let (status, cookies) = (opened.status(), cookies(&opened));
    let text = opened.text().await?;
    let open = text.strip_prefix('0').filter(|_| status.is_success());
    let open = open.and_then(|open| serde_json::from_str::<Open>(open).ok());
    let Some(Open { sid }) = open else {
        return Err(Failure(format!("its handshake is answered {status}")));
    };

    let address = format!("{address}&sid={sid}");
    let mut is_held = true;
    for _ in 0..REQUESTS {
        let status = request(Method::POST, &address, &cookies, PONG)
            .await?
            .status();
        match status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => is_held = false,
            other => return Err(Failure(format!("a request is answered {other}"))),
        }
    }
    // Where it is not found, it ends by itself.
    let _closed = request(Method::POST, &address, &cookies, CLOSE).await;
    Ok(is_held)
}

/// On a connection of its own: a balancer that is sticky by connection would hide that it is not by session.
async fn request(
    method: Method,
    address: &str,
    cookies: &str,
    body: &'static str,
) -> Result<Response, Failure> {
    let client = Client::builder().timeout(DEADLINE).build()?;
    let mut request = client.request(method, address);
    if !cookies.is_empty() {
        request = request.header(header::COOKIE, cookies);
    }
    if !body.is_empty() {
        request = request
            .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8")
            .body(body);
    }
    // The address would be said twice.
    Ok(request.send().await.map_err(reqwest::Error::without_url)?)
}

/// The cookies that the answer sets, as the next request sends them.
fn cookies(response: &Response) -> String {
    let values = response.headers().get_all(header::SET_COOKIE).into_iter();
    let pairs = values.filter_map(|value| value.to_str().ok()?.split(';').next());
    pairs.collect::<Vec<_>>().join("; ")
}
