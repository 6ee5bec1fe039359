//! The proxy itself: each mode does to a connection what its name says, and healing is healing.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and looks at the events that it is about"
)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use faults::proxy::{Class, Direction, Mode, Proxy};
use faults::tasks::Task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(5);
/// Long enough that what passes would have come.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that sends back what it gets.
async fn echo() -> (SocketAddr, Task) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = Task::start(async move {
        let mut connections = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.push(Task::start(async move {
                let (mut from, mut to) = stream.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await.map(drop);
                let _ended = to.shutdown().await;
            }));
        }
    });
    (address, task)
}

struct Line {
    proxy: Proxy,
    stream: TcpStream,
    _server: Task,
}

impl Line {
    async fn open() -> Self {
        let (server, task) = echo().await;
        let proxy = Proxy::before(server, 1).unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        Self {
            proxy,
            stream,
            _server: task,
        }
    }

    async fn says(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hears(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        let reading = tokio::time::timeout(DEADLINE, self.stream.read_exact(&mut heard));
        reading.await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let reading = tokio::time::timeout(SILENCE, self.stream.read(&mut byte));
        assert!(reading.await.is_err(), "heard {byte:?}");
    }

    /// Reads up to the end, which must be a reset; answers what came before it.
    async fn ends_by_reset(mut self) -> String {
        let mut heard = Vec::new();
        let reading = tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut heard));
        let end = reading.await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        String::from_utf8(heard).unwrap()
    }
}

#[tokio::test]
async fn what_passes_passes_and_so_does_its_end() {
    let mut line = Line::open().await;
    line.says("hello").await;
    line.hears("hello").await;
    line.says("bye").await;
    line.stream.shutdown().await.unwrap();
    let mut rest = String::new();
    line.stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_gives_it_back_when_it_closes() {
    let mut line = Line::open().await;
    line.says("a").await;
    line.hears("a").await;
    line.proxy.set(Class::Any, Mode::Blackhole);
    line.says("b").await;
    line.hears_nothing().await;
    let mut late = TcpStream::connect(line.proxy.address()).await.unwrap();
    late.write_all(b"c").await.unwrap();
    line.hears_nothing().await;
    line.proxy.set(Class::Any, Mode::Pass);
    line.hears("b").await;
    let mut heard = [0];
    late.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"c");
}

#[tokio::test]
async fn half_open_is_silent_in_one_direction() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let mut line = Line::open().await;
        line.says("a").await;
        line.hears("a").await;
        line.proxy.set(Class::Any, Mode::HalfOpen(direction));
        line.says("b").await;
        line.hears_nothing().await;
        line.proxy.set(Class::Any, Mode::Pass);
        line.hears("b").await;
    }
}

#[tokio::test]
async fn a_delay_is_a_delay_in_both_directions() {
    let mut line = Line::open().await;
    let delay = Duration::from_millis(100);
    let jitter = Duration::from_millis(50);
    line.proxy.set(Class::Any, Mode::Delay { delay, jitter });
    let asked = Instant::now();
    line.says("a").await;
    line.hears("a").await;
    let took = asked.elapsed();
    assert!(took >= 2 * delay && took < DEADLINE, "{took:?}");
}

#[tokio::test]
async fn a_throttle_lets_so_much_through_a_second() {
    let mut line = Line::open().await;
    line.proxy.set(
        Class::Any,
        Mode::Throttle {
            bytes_per_second: 10_000,
        },
    );
    let asked = Instant::now();
    let text = "x".repeat(4_000);
    line.says(&text).await;
    line.hears(&text).await;
    let took = asked.elapsed();
    assert!(took > Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn a_reset_ends_old_connections_and_new_ones() {
    let mut line = Line::open().await;
    line.says("a").await;
    line.hears("a").await;
    line.proxy.set(Class::Any, Mode::Reset);
    let address = line.proxy.address();
    let mut late = TcpStream::connect(address).await.unwrap();
    assert!(late.read(&mut [0]).await.is_err());
    let Line {
        proxy,
        stream,
        _server,
    } = line;
    let mut stream = stream;
    let end = tokio::time::timeout(DEADLINE, stream.read(&mut [0]))
        .await
        .unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_cut_comes_in_the_middle_of_what_was_sent() {
    let mut line = Line::open().await;
    line.says("a").await;
    line.hears("a").await;
    line.proxy.set(Class::Any, Mode::Cut(Direction::ToClient));
    line.says("0123456789").await;
    let heard = line.ends_by_reset().await;
    assert!(heard.is_empty() || heard == "01234", "{heard}");
}

#[tokio::test]
async fn subscribers_are_told_from_publishers_by_what_they_say() {
    let (server, _task) = echo().await;
    let proxy = Proxy::before(server, 1).unwrap();
    let mut heard = [0; 9];
    let mut subscriber = TcpStream::connect(proxy.address()).await.unwrap();
    let mut publisher = TcpStream::connect(proxy.address()).await.unwrap();
    subscriber.write_all(b"subscribe").await.unwrap();
    subscriber.read_exact(&mut heard).await.unwrap();
    publisher.write_all(b"PUBLISH a").await.unwrap();
    publisher.read_exact(&mut heard).await.unwrap();

    proxy.set(Class::Subscriber, Mode::Blackhole);
    subscriber.write_all(b"ping").await.unwrap();
    publisher.write_all(b"PUBLISH b").await.unwrap();
    publisher.read_exact(&mut heard).await.unwrap();
    let silence = tokio::time::timeout(SILENCE, subscriber.read(&mut heard));
    assert!(silence.await.is_err());
    proxy.set(Class::Subscriber, Mode::Reset);
    let end = tokio::time::timeout(DEADLINE, subscriber.read(&mut heard)).await;
    assert!(end.unwrap().is_err());
}
