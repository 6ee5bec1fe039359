//! Publishes, one after another on their connection, without the HTTP stack: the head is read, the answer written, and nothing
//! more. Whatever is not a plain publish, the stack gets, and with it the rest of the connection.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Front, LAST_REQUEST};
use crate::announce::now_ms;
use crate::api::{Answer, Publish};
use crate::hub::line::Watched;

/// How long a client may leave no room for an answer.
const WRITE: Duration = Duration::from_secs(30);

impl Front {
    /// Answers a publish. Whether others may follow on this connection.
    pub(super) async fn express(
        &self,
        stream: &mut TcpStream,
        publish: Publish,
        body: Bytes,
        stop: &CancellationToken,
    ) -> io::Result<bool> {
        let answer = self.lane.answer(publish, body).await;
        // The caller's next request finds another node.
        let is_last = self.health.is_draining() || closes(&answer);
        let bytes = written(&answer, is_last);
        let writing = async {
            stream.write_all(&bytes).await?;
            if is_last {
                // And wait for the caller to have read it, who may be sending the next one.
                let place = ();
                let mut leaving = Watched::new(stream, Bytes::new(), Arc::default(), place);
                leaving.shutdown().await?;
            }
            Ok(!is_last)
        };
        let late = async {
            tokio::select! {
                () = tokio::time::sleep(WRITE) => {}
                () = async { stop.cancelled().await; tokio::time::sleep(LAST_REQUEST).await } => {}
            }
        };
        // At once, most of the time: the kernel takes it.
        tokio::select! {
            biased;
            written = writing => written,
            () = late => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn closes(answer: &Answer) -> bool {
    let connection = answer.headers.get(header::CONNECTION);
    connection.is_some_and(|value| value == "close")
}

/// RFC 9112 section 4.
fn written(answer: &Answer, is_last: bool) -> Vec<u8> {
    let mut head = String::with_capacity(640 + answer.body.len());
    let (code, reason) = (answer.status.as_str(), answer.status.canonical_reason());
    let length = answer.body.len();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms());
    // Writing into memory does not fail.
    let _written = write!(
        head,
        "HTTP/1.1 {code} {}\r\ncontent-length: {length}\r\nx-request-id: {}\r\ndate: {}\r\n{}",
        reason.unwrap_or_default(),
        answer.request_id,
        httpdate::HttpDate::from(now),
        Answer::ALWAYS,
    );
    if is_last {
        head.push_str("connection: close\r\n");
    }
    let mut bytes = head.into_bytes();
    for (name, value) in &answer.headers {
        if name != header::CONTENT_LENGTH && name != header::CONNECTION {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&answer.body);
    bytes
}
