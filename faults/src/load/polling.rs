//! Engine.IO over long polling: one request that waits for packets, and one for each packet that is sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::socket::{DEADLINE, Lost, parse};
use crate::tasks::Task;

/// Between two packets in one answer.
const SEPARATOR: char = '\u{1e}';

pub(super) struct Polling {
    http: reqwest::Client,
    address: SocketAddr,
    session: String,
    /// The request that waits. It outlives whoever stops waiting for it, for packets that it brings are not sent again.
    waiting: Option<Task<Result<String, Lost>>>,
    packets: VecDeque<String>,
    silence: Duration,
}

impl Polling {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Lost> {
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| Lost::Unreachable(error.to_string()))?;
        let mut polling = Self {
            http,
            address,
            session: String::new(),
            waiting: None,
            packets: VecDeque::new(),
            silence: DEADLINE,
        };
        let open = polling.text().await?;
        let open: Value = parse(open.strip_prefix('0').unwrap_or_default())?;
        let period = |name: &str| open.get(name).and_then(Value::as_u64).unwrap_or_default();
        polling.silence = Duration::from_millis(period("pingInterval") + period("pingTimeout"));
        let session = open.get("sid").and_then(Value::as_str).unwrap_or_default();
        polling.session = format!("&sid={session}");
        Ok(polling)
    }

    pub(super) fn stray(&mut self, to: SocketAddr) {
        self.address = to;
    }

    fn url(&self) -> String {
        let Self {
            address, session, ..
        } = self;
        format!("http://{address}/socket.io/?EIO=4&transport=polling{session}")
    }

    /// The next packet. Dropping the future loses nothing.
    pub(super) async fn text(&mut self) -> Result<String, Lost> {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Ok(packet);
            }
            let request = self.http.get(self.url()).timeout(self.silence);
            let waiting = self
                .waiting
                .get_or_insert_with(|| Task::start(answer(request)));
            let answered = waiting.await;
            self.waiting = None;
            let packets = answered.unwrap_or(Err(Lost::Closed))?;
            self.packets
                .extend(packets.split(SEPARATOR).map(str::to_owned));
        }
    }

    pub(super) async fn send(&mut self, packet: String) -> Result<(), Lost> {
        let request = self.http.post(self.url()).timeout(DEADLINE);
        let request = request.header("content-type", "text/plain").body(packet);
        answer(request).await.map(drop)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<String, Lost> {
    let broken = |error: reqwest::Error| match (error.is_connect(), error.is_timeout()) {
        (true, _) => Lost::Unreachable("connect".to_owned()),
        (false, true) => Lost::Silent,
        (false, false) => Lost::Broken("poll".to_owned()),
    };
    let answer = request.send().await.map_err(broken)?;
    match answer.status().as_u16() {
        200 => answer.text().await.map_err(broken),
        status => Err(Lost::Status(status)),
    }
}
