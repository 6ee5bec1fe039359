//! Connections on real TCP streams, with a client beside them that speaks RFC 6455.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::frame::tests::masked;
use super::{Connection, Heart, Packet, Pushed, Reader, Terms};
use crate::event::Event;
use crate::metrics::Closed;

const ANSWER: &[u8] = b"101\r\n\r\n";
const TEXT: u8 = 0x81;

const TERMS: Terms = Terms {
    ping_interval: Duration::from_millis(200),
    ping_timeout: Duration::from_millis(200),
    limit: 100,
};

/// A connection, its reader, and the client's end, from which the answer to the handshake and the first packet were read.
async fn opened() -> (Arc<Connection>, Reader, TcpStream) {
    opened_by(&Arc::new(Heart::new(TERMS))).await
}

async fn opened_by(heart: &Arc<Heart>) -> (Arc<Connection>, Reader, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (mut client, (stream, _)) = (client.unwrap(), accepted.unwrap());
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    // What came with the handshake is read first.
    let early = masked(TEXT, b"40");
    let (connection, reader) = Connection::open(stream, early, ANSWER.to_vec(), heart, place);
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, ANSWER);
    let [_text, length] = [
        client.read_u8().await.unwrap(),
        client.read_u8().await.unwrap(),
    ];
    let mut open = vec![0; usize::from(length)];
    client.read_exact(&mut open).await.unwrap();
    assert!(open.starts_with(b"0{"));
    (connection, reader, client)
}

async fn speaking(client: TcpStream) -> WebSocketStream<TcpStream> {
    WebSocketStream::from_raw_socket(client, Role::Client, None).await
}

fn event(payload: &str) -> Event {
    Event::new("e", &payload)
}

#[tokio::test]
async fn packets_are_read_in_order_whole_or_in_parts() {
    let (_connection, mut reader, mut client) = opened().await;
    assert_eq!(reader.next().await, Ok(Packet::Connect(json!(null))));

    let mut sent = masked(0x01, b"42[\"a\"");
    sent.extend(masked(0x89, b"are you there"));
    sent.extend(masked(0x00, b",1"));
    sent.extend(masked(0x8a, b""));
    sent.extend(masked(0x80, b"]"));
    sent.extend(masked(TEXT, b"41"));
    for byte in sent {
        client.write_u8(byte).await.unwrap();
    }
    let event = Packet::Event {
        name: "a".to_owned(),
        data: json!(1),
        ack: None,
    };
    assert_eq!(reader.next().await, Ok(event));
    assert_eq!(reader.next().await, Ok(Packet::Disconnect));
    // With the next look at what has come.
    let hearing = async {
        let mut client = speaking(client).await;
        let pong = client.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(b"are you there".as_slice().into()));
    };
    let (ended, ()) = tokio::join!(reader.next(), hearing);
    assert_eq!(ended, Err(Closed::TransportError));
}

#[tokio::test]
async fn what_a_client_may_not_send_ends_it_with_a_code_that_says_why() {
    let long = vec![b'x'; TERMS.limit + 1];
    let part = &long[..60];
    for (sent, code) in [
        (masked(TEXT, b"9"), 1_002),
        (masked(TEXT, b"44{}"), 1_002),
        (masked(0x82, b"attachment"), 1_002),
        (masked(0x80, b"of nothing"), 1_002),
        ([masked(0x01, part), masked(TEXT, b"3")].concat(), 1_002),
        (vec![TEXT, 1, b'3'], 1_002),
        (masked(TEXT, b"4\xff"), 1_007),
        (masked(TEXT, b"40/there-is-none,").repeat(9), 1_002),
        (masked(TEXT, &long), 1_009),
        ([masked(0x01, part), masked(0x80, part)].concat(), 1_009),
    ] {
        let (_connection, mut reader, mut client) = opened().await;
        reader.next().await.unwrap();
        client.write_all(&sent).await.unwrap();
        assert_eq!(reader.next().await, Err(Closed::Protocol), "{sent:?}");
        let closing = async {
            let mut client = speaking(client).await;
            let mut next = client.next().await;
            while let Some(Ok(Message::Text(_refused))) = &next {
                next = client.next().await;
            }
            let Some(Ok(Message::Close(Some(close)))) = next else {
                panic!("no close frame after {sent:?}");
            };
            assert_eq!(u16::from(close.code), code, "{sent:?}");
        };
        tokio::join!(reader.finish(), closing);
    }
}

#[tokio::test]
async fn who_says_so_has_left_and_who_does_not_was_lost() {
    for (last, reason) in [
        (masked(0x88, &1_001_u16.to_be_bytes()), Closed::Client),
        (masked(TEXT, b"1"), Closed::Client),
        (masked(0x01, b"42["), Closed::TransportError),
        (Vec::new(), Closed::TransportError),
    ] {
        let (connection, mut reader, mut client) = opened().await;
        reader.next().await.unwrap();
        client.write_all(&last).await.unwrap();
        drop(client);
        assert_eq!(reader.next().await, Err(reason));
        reader.finish().await;
        assert!(connection.has_ended());
        assert_eq!(connection.event(&event("late")), Pushed::Ended);
        assert_eq!(connection.account().outstanding().packets, 0);
    }
}

/// Hands over more than the kernel takes while the client does not read, and answers how many events.
fn fill(connection: &Connection, payload: &str) -> u64 {
    let mut events = 0;
    loop {
        assert_eq!(connection.event(&event(payload)), Pushed::Taken);
        connection.flush();
        events += 1;
        if connection.account().outstanding().packets > 100 {
            return events;
        }
    }
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_written_when_the_client_reads_again() {
    let (connection, mut reader, client) = opened().await;
    reader.next().await.unwrap();
    let payload = "x".repeat(10_000);
    let sent = fill(&connection, &payload);
    let is_blocked = |time| connection.outbox.lock().is_blocked_for(time);
    assert!(is_blocked(Duration::ZERO) && !is_blocked(Duration::from_secs(60)));

    let reading = async {
        let mut client = speaking(client).await;
        for _ in 0..sent {
            let heard = client.next().await.unwrap().unwrap();
            assert_eq!(
                heard.into_text().unwrap(),
                format!(r#"42["e","{payload}"]"#)
            );
        }
        connection.account().drained(2).await;
        client.send(Message::text("41")).await.unwrap();
        client
    };
    // The reader's task writes it.
    let (next, _client) = tokio::join!(reader.next(), reading);
    assert_eq!(next, Ok(Packet::Disconnect));
    assert_eq!(connection.account().outstanding().bytes, 0);
    assert!(!is_blocked(Duration::ZERO));
}

#[tokio::test]
async fn a_client_that_wants_more_answers_than_it_reads_is_closed() {
    let (connection, mut reader, _client) = opened().await;
    reader.next().await.unwrap();
    fill(&connection, &"x".repeat(10_000));
    (0..1_024).for_each(|number| connection.ack(number, &json!({})));
    assert_eq!(reader.next().await, Err(Closed::SlowConsumer));
    assert_eq!(connection.event(&event("more")), Pushed::Full);
}

#[tokio::test]
async fn a_closed_connection_still_says_what_it_was_handed() {
    let (connection, mut reader, client) = opened().await;
    reader.next().await.unwrap();
    connection.event(&event("last"));
    connection.close(Closed::Drain);
    assert_eq!(reader.next().await, Err(Closed::Drain));

    let hearing = async {
        let mut client = speaking(client).await;
        let last = client.next().await.unwrap().unwrap();
        assert_eq!(last, Message::text(r#"42["e","last"]"#));
        // Like a broken connection, from which every client comes back.
        assert!(client.next().await.unwrap().is_err());
        assert_eq!(connection.event(&event("too late")), Pushed::Ended);
    };
    tokio::join!(reader.finish(), hearing);
}

#[tokio::test]
async fn a_client_that_closes_is_answered_and_nothing_follows() {
    let (connection, mut reader, client) = opened().await;
    reader.next().await.unwrap();
    let mut client = speaking(client).await;
    client.close(None).await.unwrap();
    assert_eq!(reader.next().await, Err(Closed::Client));
    let hearing = async {
        let answer = client.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::Close(None));
        assert_eq!(connection.event(&event("too late")), Pushed::Ended);
        assert!(client.next().await.is_none());
    };
    tokio::join!(reader.finish(), hearing);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_end_does_not_keep_the_connection() {
    let (connection, mut reader, _client) = opened().await;
    reader.next().await.unwrap();
    fill(&connection, &"x".repeat(10_000));
    connection.close(Closed::SlowConsumer);
    reader.finish().await;
    assert!(connection.has_ended());
}

#[tokio::test]
async fn nobody_waits_for_a_connection_whose_task_has_ended() {
    let (connection, reader, _client) = opened().await;
    fill(&connection, &"x".repeat(10_000));
    tokio::join!(connection.account().drained(2), async { drop(reader) });
    assert!(connection.has_ended());
}

#[tokio::test]
async fn who_answers_pings_stays_and_who_does_not_is_ended() {
    let heart = Arc::new(Heart::new(TERMS));
    let (_alive, mut reader, client) = opened_by(&heart).await;
    let (_silent, mut silent_reader, _client) = opened_by(&heart).await;
    reader.next().await.unwrap();
    silent_reader.next().await.unwrap();

    let stop = CancellationToken::new();
    let answering = async {
        let mut client = speaking(client).await;
        for _ in 0..5 {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text("2"));
            client.send(Message::text("3")).await.unwrap();
        }
        client.send(Message::text("41")).await.unwrap();
        stop.cancel();
    };
    let (next, ended, (), ()) = tokio::join!(
        reader.next(),
        silent_reader.next(),
        answering,
        Arc::clone(&heart).run(stop.clone())
    );
    assert_eq!(next, Ok(Packet::Disconnect));
    assert_eq!(ended, Err(Closed::PingTimeout));
}

#[tokio::test]
async fn a_ping_that_left_with_something_else_is_not_sent_again_when_it_would_be_due() {
    let heart = Arc::new(Heart::new(TERMS));
    let (connection, mut reader, client) = opened_by(&heart).await;
    reader.next().await.unwrap();
    let opened = Instant::now();
    connection.event(&event("first"));
    connection.ping();
    connection.flush();

    let stop = CancellationToken::new();
    let hearing = async {
        let mut client = speaking(client).await;
        let first = client.next().await.unwrap().unwrap();
        assert_eq!(first, Message::text(r#"42["e","first"]"#));
        for pings in 1..=3 {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text("2"));
            assert!(opened.elapsed() >= TERMS.ping_interval * (pings - 1));
            client.send(Message::text("3")).await.unwrap();
        }
        client.send(Message::text("41")).await.unwrap();
        stop.cancel();
    };
    let (next, (), ()) = tokio::join!(reader.next(), hearing, Arc::clone(&heart).run(stop.clone()));
    assert_eq!(next, Ok(Packet::Disconnect));
}
