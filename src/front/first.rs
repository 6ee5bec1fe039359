//! The next request of a connection. A WebSocket handshake (RFC 6455 section 4.2) and a publish that need nothing more are
//! taken apart here: the one so that the connection never passes the HTTP stack, whose buffers would stay with it, the other
//! for speed. All else is left to that.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::{HEADER_BYTES, HEADER_COUNT, HEADERS, is_below};
use crate::api::Publish;
use crate::hub::transport::query;

/// What every server appends to the client's key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is read at a time: a handshake is seldom longer.
const CHUNK: usize = 2_048;

/// How long the rest of a publish is waited for here.
const BODY: Duration = Duration::from_secs(1);

/// What ends the head of a request.
const END: &[u8] = b"\n\r\n";

/// A handshake of a new session, with copies of what is looked at later.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) request: Request<()>,
    /// `Sec-WebSocket-Accept`.
    accept: String,
    /// So many bytes of the connection it took.
    pub(super) length: usize,
}

impl Handshake {
    /// The request, and `Sec-WebSocket-Accept`.
    pub(super) fn into_parts(self: Box<Self>) -> (Request<()>, String) {
        let Self {
            request, accept, ..
        } = *self;
        (request, accept)
    }
}

/// A request.
#[derive(Debug)]
pub(super) enum First {
    /// Of a new session below the socket path.
    Handshake(Box<Handshake>),
    /// With its whole body.
    Publish(Box<Publish>, Bytes),
    /// Anything else, or nothing.
    Other,
}

/// What the bytes of a connection begin with.
enum Head {
    Handshake(Box<Handshake>),
    /// So many bytes of the connection the head took.
    Publish(Box<Publish>, usize),
    Other,
    /// It cannot be told yet.
    Partial,
}

/// Reads until it is known what the next request is. All that was read, and is not of a publish that came as a whole, is in
/// `early`; what was there before is the request's beginning. Fails when its head takes too long.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    path: &str,
    early: &mut Vec<u8>,
) -> io::Result<First> {
    let (mut seen, deadline) = (0, Instant::now() + HEADERS);
    loop {
        // Whatever comes in small pieces is taken apart when it may be whole, and not each time.
        if seen == 0 || ends_a_head(&early[seen..]) {
            match head(early, path) {
                Head::Handshake(handshake) => return Ok(First::Handshake(handshake)),
                Head::Publish(publish, start) => {
                    let end = start + publish.length;
                    let filling = tokio::time::timeout(BODY, fill(stream, early, end));
                    if filling.await.is_ok_and(|filled| filled.is_ok()) && early.len() >= end {
                        let body = Bytes::copy_from_slice(&early[start..end]);
                        early.drain(..end);
                        // What an idle connection holds is small, whatever its last request was.
                        early.shrink_to(CHUNK);
                        return Ok(First::Publish(publish, body));
                    }
                    // The HTTP stack says what is wrong with it, or waits for longer.
                    return Ok(First::Other);
                }
                Head::Other => return Ok(First::Other),
                Head::Partial => {}
            }
        }
        let room = HEADER_BYTES.saturating_sub(early.len());
        if room == 0 {
            return Ok(First::Other);
        }
        // The end of a head may be cut: its last bytes are looked at again.
        seen = early.len().saturating_sub(END.len());
        early.reserve(CHUNK.min(room));
        let mut limited = stream.take(room as u64);
        let reading = tokio::time::timeout_at(deadline, limited.read_buf(early));
        if reading.await?? == 0 {
            return Ok(First::Other);
        }
    }
}

/// Reads until there are so many bytes, or no more come.
async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    end: usize,
) -> io::Result<()> {
    while let Some(missing) = end.checked_sub(bytes.len()).filter(|missing| *missing > 0) {
        bytes.reserve(missing);
        if stream.take(missing as u64).read_buf(bytes).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether an empty line is in these bytes, however lines are ended.
fn ends_a_head(bytes: &[u8]) -> bool {
    bytes.windows(END.len()).any(|window| window == END)
        || bytes.windows(2).any(|window| window == b"\n\n")
}

fn head(bytes: &[u8], path: &str) -> Head {
    let is_post = begins_alike(bytes, &[b"POST /api/"]);
    if !is_post && !begins_alike(bytes, &[b"GET ", path.trim_end_matches('/').as_bytes()]) {
        return Head::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if is_post => {
            let publish = publish(&request);
            publish.map_or(Head::Other, |publish| {
                Head::Publish(Box::new(publish), length)
            })
        }
        Ok(httparse::Status::Complete(length)) => {
            let handshake = handshake(&request, path, length);
            handshake.map_or(Head::Other, |handshake| {
                Head::Handshake(Box::new(handshake))
            })
        }
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_malformed) => Head::Other,
    }
}

/// Whether these bytes begin, or may go on, like those wanted.
fn begins_alike(bytes: &[u8], wanted: &[&[u8]]) -> bool {
    let wanted = wanted.iter().copied().flatten();
    wanted.zip(bytes).all(|(wanted, byte)| wanted == byte)
}

fn publish(request: &httparse::Request<'_, '_>) -> Option<Publish> {
    if request.method != Some("POST") || request.version != Some(1) {
        return None;
    }
    let headers = request.headers.iter();
    Publish::read(
        request.path?,
        headers.map(|header| (header.name, header.value)),
    )
}

fn handshake(request: &httparse::Request<'_, '_>, path: &str, length: usize) -> Option<Handshake> {
    let is_http_1_1 = request.version == Some(1);
    let uri: Uri = request.path?.parse().ok()?;
    // What the library would refuse, it is to refuse with an answer.
    let is_new = query(&uri, "transport") == Some("websocket")
        && query(&uri, "EIO") == Some("4")
        && query(&uri, "sid").is_none();
    if request.method != Some("GET") || !is_http_1_1 || !is_new || !is_below(uri.path(), path) {
        return None;
    }
    let headers = Headers(request.headers);
    let is_handshake = headers.has_token(&header::UPGRADE, "websocket")
        && headers.has_token(&header::CONNECTION, "upgrade")
        && headers.one(&header::SEC_WEBSOCKET_VERSION)? == b"13"
        && headers.all(&header::CONTENT_LENGTH).next().is_none()
        && headers.all(&header::TRANSFER_ENCODING).next().is_none();
    let key = headers.one(&header::SEC_WEBSOCKET_KEY)?;
    let is_key = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    if !is_handshake || !is_key {
        return None;
    }
    let mut kept = Request::new(());
    *kept.uri_mut() = uri;
    *kept.headers_mut() = headers.kept()?;
    let accept = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    Some(Handshake {
        request: kept,
        accept: STANDARD.encode(accept),
        length,
    })
}

struct Headers<'h>(&'h [httparse::Header<'h>]);

impl Headers<'_> {
    fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let named = self.0.iter();
        let named = named.filter(move |header| header.name.eq_ignore_ascii_case(name.as_str()));
        named.map(|header| header.value)
    }

    /// The only one of this name.
    fn one(&self, name: &HeaderName) -> Option<&[u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    fn has_token(&self, name: &HeaderName, token: &str) -> bool {
        let mut tokens = self
            .all(name)
            .flat_map(|value| value.split(|byte| *byte == b','));
        tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// What the gate and the session look at.
    fn kept(&self) -> Option<HeaderMap> {
        let mut kept = HeaderMap::new();
        for name in [header::HOST, header::ORIGIN, header::AUTHORIZATION] {
            for value in self.all(&name) {
                kept.append(name.clone(), HeaderValue::from_bytes(value).ok()?);
            }
        }
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://a\r\nCookie: c\r\n\r\n";

    async fn first(bytes: &str) -> (Option<Box<Handshake>>, Vec<u8>) {
        let mut early = Vec::new();
        let mut stream = bytes.as_bytes();
        let first = read(&mut stream, "/socket.io/", &mut early).await.unwrap();
        early.extend_from_slice(stream);
        let handshake = match first {
            First::Handshake(handshake) => Some(handshake),
            First::Publish(..) | First::Other => None,
        };
        (handshake, early)
    }

    /// The key and its answer are those of RFC 6455 section 1.3.
    #[tokio::test]
    async fn a_handshake_is_taken_apart_and_what_comes_behind_it_is_left() {
        let (handshake, early) = first(&format!("{HANDSHAKE}behind")).await;
        let handshake = handshake.unwrap();
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.request.headers().len(), 2);
        assert_eq!(
            handshake.request.uri().query(),
            Some("EIO=4&transport=websocket")
        );
        assert_eq!(&early[handshake.length..], b"behind");
    }

    #[tokio::test]
    async fn whatever_else_it_is_the_http_stack_gets_it_whole() {
        for (from, to) in [
            ("GET", "POST"),
            ("/socket.io/", "/api/"),
            ("/socket.io/", "/socket.iox/"),
            ("websocket HTTP", "polling HTTP"),
            ("websocket HTTP", "websocket&sid=x HTTP"),
            ("EIO=4", "EIO=3"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("Version: 13", "Version: 12"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            ("Cookie: c", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            ("Cookie: c", "Content-Length: 1"),
            ("Cookie: c", "Content-Length: 1\r\nContent-Length: 2"),
            (
                "Cookie: c",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            ),
            ("Host: h", "Host h"),
        ] {
            let request = HANDSHAKE.replacen(from, to, 1);
            assert_ne!(request, HANDSHAKE);
            let (handshake, early) = first(&request).await;
            assert!(handshake.is_none(), "{request}");
            assert_eq!(String::from_utf8(early).unwrap(), request);
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_ends_early_the_http_stack_answers() {
        let endless = HANDSHAKE.replace(
            "Cookie: c",
            &format!("Cookie: {}", "c".repeat(HEADER_BYTES)),
        );
        assert!(first(&endless).await.0.is_none());
        let (handshake, early) = first(&HANDSHAKE[..40]).await;
        assert!(handshake.is_none());
        assert_eq!(early, &HANDSHAKE.as_bytes()[..40]);
    }
}
