//! Which node a command talks to, and with which token.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use http::{Method, StatusCode, header};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use crate::auth::{self, PUBLISH_SCOPE};
use crate::client::{Client, ClientError};
use crate::config::{Auth, Secret};
use crate::user::UserId;

/// How long a command's token is valid; `listen` makes a new one each time it connects.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// The publisher as which the commands sign.
const PUBLISHER: &str = "bellhop-cli";

/// What a publisher shows instead of a token.
#[derive(Debug, Args)]
pub(super) struct PublisherKey {
    /// API key to publish with, instead of a token; `bellhop key` makes one.
    #[arg(
        long,
        env = "BELLHOP_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<Secret>,
}

/// What a request is authorised by.
#[derive(Debug)]
pub(super) enum Credential {
    Token(String),
    Key(Secret),
}

impl Credential {
    fn added_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Token(token) => request.bearer_auth(token),
            Self::Key(key) => request.header("x-api-key", key.expose()),
        }
    }
}

#[derive(Debug, Args)]
#[command(mut_arg("api_keys", |node| node.hide(true)))]
#[expect(
    clippy::doc_markdown,
    reason = "the comments of fields are help text, in which backticks would show"
)]
pub(super) struct Target {
    /// Address of the node. Unset: where BELLHOP_LISTEN is on this machine, else http://127.0.0.1:3000.
    #[arg(long, env = "BELLHOP_URL", value_name = "URL")]
    url: Option<String>,

    /// The node's own setting, so that the commands find it with the same `.env`.
    #[arg(
        long,
        env = "BELLHOP_LISTEN",
        default_value = "127.0.0.1:3000",
        value_name = "ADDRESS",
        hide = true
    )]
    listen: SocketAddr,

    /// Path of the node's Socket.IO endpoint.
    #[arg(
        long,
        env = "SOCKET_IO_PATH",
        default_value = "/socket.io/",
        value_name = "PATH"
    )]
    socket_io_path: String,

    /// Token to use, where it is not to be signed here with the node's secret.
    #[arg(
        long,
        env = "BELLHOP_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<Secret>,

    #[command(flatten)]
    auth: Auth,
}

impl Target {
    /// The node's address.
    pub(super) fn url(&self) -> String {
        match &self.url {
            Some(url) => url.clone(),
            None => format!("http://{}", reachable(self.listen)),
        }
    }

    /// A token for `user`: the given one, or one signed here.
    pub(super) fn token(&self, user: &UserId, scope: Option<&str>) -> Result<String, Failure> {
        match &self.token {
            Some(token) => Ok(token.expose().to_owned()),
            None => sign(&self.auth, user, scope, TOKEN_LIFETIME),
        }
    }

    /// What a publisher acts by: the given key, else a token, the given one or one signed here.
    pub(super) fn publisher(&self, key: &PublisherKey) -> Result<Credential, Failure> {
        match &key.api_key {
            Some(key) => Ok(Credential::Key(key.clone())),
            None => {
                let publisher = UserId::try_from(PUBLISHER)?;
                let token = self.token(&publisher, Some(PUBLISH_SCOPE))?;
                Ok(Credential::Token(token))
            }
        }
    }

    /// The user of the token that is given, `None` where none is. Only the node knows whether it believes it.
    pub(super) fn token_user(&self) -> Result<Option<UserId>, Failure> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let claim = &self.auth.jwt_user_claim;
        let user = user_of(token.expose(), claim).ok_or_else(|| {
            Failure::new(format!(
                "the token of --token (BELLHOP_TOKEN) is no JWT with a user id in its claim {claim:?} (JWT_USER_CLAIM)"
            ))
        })?;
        Ok(Some(user))
    }

    /// Connects a socket to the node at `url`, which is [`Target::url`] or another of its cluster.
    pub(super) async fn connect(&self, url: &str, auth: &Value) -> Result<Client, ClientError> {
        Client::connect(url, &self.socket_io_path, auth).await
    }

    /// Why there is no connection to `url`, and what to do about it.
    pub(super) fn explain(&self, url: &str, error: ClientError) -> Failure {
        match error {
            ClientError::Connect(cause) => cannot_connect(url, &*cause),
            ClientError::Refused(code) => {
                let hint = self.hint(&code);
                Failure(format!("{}{hint}", ClientError::Refused(code)))
            }
            error @ ClientError::Address(_) => error.into(),
            error @ (ClientError::Lost(_) | ClientError::Protocol | ClientError::Timeout) => {
                let Failure(reason) = error.into();
                Failure(format!(
                    "{url}: {reason}; is a node running there? (bellhop serve)"
                ))
            }
        }
    }

    /// Sends a request with a body to the node, and answers the body of the answer.
    pub(super) async fn post(
        &self,
        path: &str,
        credential: &Credential,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<String, Failure> {
        let mut request = self.request(Method::POST, path)?.json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request, credential).await
    }

    /// Asks the node, and answers the body of the answer.
    pub(super) async fn get(&self, path: &str, credential: &Credential) -> Result<String, Failure> {
        let request = self.request(Method::GET, path)?;
        self.answer(request, credential).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        const DEADLINE: Duration = Duration::from_secs(10);
        let url = self.url();
        let base = url.trim_end_matches('/');
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(ClientError::Address(url).into());
        }
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        Ok(client.request(method, format!("{base}{path}")))
    }

    async fn answer(
        &self,
        request: RequestBuilder,
        credential: &Credential,
    ) -> Result<String, Failure> {
        let sent = credential.added_to(request).send().await;
        let response = sent.map_err(|error| unsent(&self.url(), &error))?;
        let status = response.status();
        let problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        let text = response.text().await?;
        if status.is_success() {
            return Ok(text);
        }
        let problem = problem.then(|| serde_json::from_str::<Problem>(&text).ok());
        Err(match problem.flatten() {
            Some(problem) => {
                let hint = match credential {
                    Credential::Token(_) => self.hint(&problem.code),
                    Credential::Key(_) if status == StatusCode::UNAUTHORIZED => {
                        " (is the key of --api-key in the node's BELLHOP_API_KEYS?)".to_owned()
                    }
                    Credential::Key(_) => String::new(),
                };
                Failure(problem.text(status, &hint))
            }
            None => Failure(format!("{status}: {}", beginning(&text))),
        })
    }

    /// What to do about a refusal with this code; empty where there is nothing to say.
    fn hint(&self, code: &str) -> String {
        match (code, &self.token, self.auth.is_embedded()) {
            ("token_invalid", None, false) => " (is JWT_SECRET the node's?)".to_owned(),
            ("token_invalid", None, true) => format!(
                " (is JWT_SECRET the node's? It is not set: ./{} signed)",
                Auth::SECRET_FILE
            ),
            ("disabled", _, _) => " (the node has ENABLE_WEBSOCKET=false, so there are no sockets: its clients poll GET /api/notifications/changes)".to_owned(),
            ("forbidden", Some(_), _) => format!(" (the token needs the scope {PUBLISH_SCOPE})"),
            _ => String::new(),
        }
    }
}

/// Where a node that listens on `address` is reached from its own machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The user that a token names, unverified.
fn user_of(token: &str, claim: &str) -> Option<UserId> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?);
    let claims: Value = serde_json::from_slice(&payload.ok()?).ok()?;
    UserId::deserialize(claims.get(claim)?).ok()
}

/// Signs a token as the node with these settings accepts it.
pub(super) fn sign(
    auth: &Auth,
    user: &UserId,
    scope: Option<&str>,
    lifetime: Duration,
) -> Result<String, Failure> {
    let secret = auth.secret(false)?.ok_or_else(|| {
        Failure::new("this node's tokens are signed elsewhere, with the private half of JWT_PUBLIC_KEY_FILE: give one with --token")
    })?;
    Ok(auth::sign_hs256(auth, &secret, user, scope, lifetime)?)
}

/// An answer that says what went wrong (RFC 9457).
#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Flaw>,
}

/// What is wrong with one field of the request.
#[derive(Debug, Deserialize)]
struct Flaw {
    pointer: String,
    expected: String,
}

impl Problem {
    /// One line for the problem, and one more for each field.
    fn text(&self, status: StatusCode, hint: &str) -> String {
        let mut text = format!("{} {}: {}{hint}", status.as_u16(), self.code, self.detail);
        for Flaw { pointer, expected } in &self.errors {
            text = format!("{text}\n  {pointer}: {expected}");
        }
        text
    }
}

/// As much of a foreign answer as fits on a screen.
fn beginning(text: &str) -> String {
    text.trim().chars().take(200).collect()
}

/// Why a request had no answer.
fn unsent(url: &str, error: &reqwest::Error) -> Failure {
    if error.is_builder() {
        ClientError::Address(url.to_owned()).into()
    } else if error.is_timeout() {
        Failure(format!("{url}: the node did not answer in time"))
    } else if error.is_connect() {
        cannot_connect(url, error)
    } else {
        error.into()
    }
}

fn cannot_connect(url: &str, error: &dyn Error) -> Failure {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    Failure(format!(
        "{url}: cannot connect ({root}); is a node running there? (bellhop serve)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_on_every_address_is_on_this_machine() {
        for (listens, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            let address = reachable(listens.parse().unwrap());
            assert_eq!(address.to_string(), reached);
        }
    }

    #[test]
    fn a_token_names_its_user_by_the_claim() {
        let token = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let of = |claims: &str, claim| user_of(&token(claims), claim).map(|id| id.to_string());
        assert_eq!(of(r#"{"sub":"a"}"#, "sub").as_deref(), Some("a"));
        assert_eq!(of(r#"{"uid":42}"#, "uid").as_deref(), Some("42"));
        assert_eq!(of(r#"{"sub":"a b"}"#, "sub"), None);
        assert_eq!(of(r#"{"sub":"a"}"#, "uid"), None);
        assert_eq!(user_of("opaque", "sub"), None);
    }
}
