//! A message reaches the nodes that hold its user, through whatever happens to Redis.

mod proxy;
pub mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellhop::bus::redis::{self, Config};
use bellhop::bus::{BACKLOG, Bus, Elsewhere, Exchange, Incoming, Receiver, Sent, Subscription};
use bellhop::event::{Body, Event, Message, Position};
use bellhop::metrics::Metrics;
use bellhop::tasks::Tasks;
use bellhop::user::UserId;
use fred::interfaces::{EventInterface, PubsubInterface};
use futures_util::FutureExt;
use proxy::Proxy;
use server::{Outsider, Server};
use tokio::time::Instant;

/// Longer than anything here takes, reconnecting and noticing included.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at a state that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A node, as far as the bus knows it. Its tasks end with the value.
struct Node {
    bus: Bus,
    incoming: Receiver,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Node {
    fn connect(config: &Config) -> Self {
        let (metrics, tasks) = (Arc::new(Metrics::new()), Tasks::default());
        let (bus, incoming) =
            redis::Bus::connect(config, "e1".into(), Arc::clone(&metrics), &tasks).unwrap();
        Self {
            bus,
            incoming,
            metrics,
            tasks,
        }
    }

    async fn joined(config: &Config) -> Self {
        let mut node = Self::connect(config);
        node.is_restored().await;
        eventually("the node is healthy", async || node.bus.is_healthy()).await;
        node
    }

    async fn next(&mut self) -> Incoming {
        within("the bus says something", self.incoming.recv())
            .await
            .unwrap()
    }

    async fn hears(&mut self) -> u64 {
        let next = self.next().await;
        let number = number(&next);
        assert!(number.is_some(), "instead of a message came {next:?}");
        number.unwrap()
    }

    /// The next message. `Restored` may come again before it: once from this node's own link, and once from
    /// each node that could not send.
    async fn hears_restored_or_not(&mut self) -> u64 {
        loop {
            match self.next().await {
                Incoming::Restored => {}
                next @ (Incoming::Message(_) | Incoming::OtherEpoch | Incoming::Asked { .. }) => {
                    return number(&next).unwrap();
                }
            }
        }
    }

    async fn is_restored(&mut self) {
        let next = self.next().await;
        assert!(
            matches!(next, Incoming::Restored),
            "instead of Restored came {next:?}"
        );
    }

    /// What a node's own loop does with questions, for as long as it is polled.
    async fn answers_with(&mut self, sockets: u64) {
        loop {
            match self.incoming.recv().await.unwrap() {
                Incoming::Asked { question, .. } => self.bus.answer(&question, sockets),
                Incoming::Message(_) | Incoming::Restored | Incoming::OtherEpoch => {}
            }
        }
    }

    async fn holds(&self, user: &UserId) -> Subscription {
        let subscription = self.bus.subscribe(user);
        confirmed(&subscription).await;
        subscription
    }

    fn shows(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    fn received(&self) -> u64 {
        self.shows(r#"bellhop_bus_messages_total{direction="received"}"#)
    }
}

/// Three nodes that share an exchange, or a Redis if there is one.
async fn three_nodes(what: &str) -> Vec<[Node; 3]> {
    let exchange = Exchange::default();
    let mut all = vec![std::array::from_fn(|_| {
        let (metrics, tasks) = (Arc::new(Metrics::new()), Tasks::default());
        let (bus, incoming) = exchange.join(Arc::clone(&metrics));
        Node {
            bus,
            incoming,
            metrics,
            tasks,
        }
    })];
    if let Some(url) = server::shared(what) {
        all.push(nodes(&config(&url)).await);
    }
    all
}

/// Asks, while two others answer.
async fn found(asker: &Bus, user: &UserId, others: [(&mut Node, u64); 2]) -> Elsewhere {
    let [(first, one), (second, two)] = others;
    let question = within("the question is answered", asker.sockets_elsewhere(user));
    tokio::select! {
        found = question => found,
        () = first.answers_with(one) => unreachable!("it does not end"),
        () = second.answers_with(two) => unreachable!("it does not end"),
    }
}

fn elsewhere(sockets: u64, complete: bool) -> Elsewhere {
    Elsewhere { sockets, complete }
}

async fn nodes<const N: usize>(config: &Config) -> [Node; N] {
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(Node::joined(config).await);
    }
    nodes.try_into().ok().unwrap()
}

async fn confirmed(subscription: &Subscription) {
    within("the subscription is confirmed", subscription.confirmed()).await;
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    assert!(result.is_ok(), "did not come true: {what}");
    result.unwrap()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        tokio::time::sleep(LOOK_AGAIN).await; // bounded: the pause of a poll with a deadline
    }
}

/// A prefix that no other test has.
fn config(url: &str) -> Config {
    Config::new(url, format!("it:{}", uuid::Uuid::now_v7()))
}

fn user(id: &str) -> UserId {
    UserId::try_from(id).unwrap()
}

/// One of many.
fn nth(number: u64) -> UserId {
    UserId::try_from(number).unwrap()
}

/// What a message bears.
fn number(incoming: &Incoming) -> Option<u64> {
    match incoming {
        Incoming::Message(message) => Some(message.published_at),
        Incoming::Restored | Incoming::OtherEpoch | Incoming::Asked { .. } => None,
    }
}

/// A message that bears `number`.
fn to(user: Option<&UserId>, number: u64) -> Message {
    Message {
        to: user.cloned(),
        published_at: number,
        epoch: "e1".into(),
        body: {
            let event = Arc::new(Event::new("number", &number));
            match user {
                Some(_) => Body::Change(
                    Position {
                        seq: number,
                        unread: 0,
                    },
                    event,
                ),
                None => Body::Emit(event),
            }
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_the_node_that_holds_its_user_and_no_other() {
    let Some(url) = server::shared("reach") else {
        return;
    };
    let [a, mut b, mut c, mut d] = nodes(&config(&url)).await;
    let alice = user("alice");
    let _held = b.holds(&alice).await;

    assert_eq!(a.bus.send(&to(Some(&alice), 1)), Sent::Live);
    assert_eq!(b.hears().await, 1);
    assert_eq!(a.bus.send(&to(None, 2)), Sent::Live);
    for node in [&mut b, &mut c, &mut d] {
        assert_eq!(node.hears().await, 2);
    }

    assert_eq!([&a, &b, &c, &d].map(Node::received), [0, 2, 1, 1]);
    let published = r#"bellhop_bus_messages_total{direction="published"}"#;
    eventually("both are counted as published", async || {
        a.shows(published) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_one_user_arrive_in_the_order_in_which_they_were_sent() {
    let Some(url) = server::shared("order") else {
        return;
    };
    let [a, mut b] = nodes(&config(&url)).await;
    let alice = user("alice");
    let _held = b.holds(&alice).await;
    for number in 0..2_000 {
        assert_eq!(a.bus.send(&to(Some(&alice), number)), Sent::Live);
    }
    for number in 0..2_000 {
        assert_eq!(b.hears().await, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_confirmed_receives_what_is_sent_from_then_on() {
    if server::shared("confirmed").is_none() {
        return;
    }
    let server = Server::started().await;
    let proxy = Proxy::before(&server).await;
    let near = config(&server.url());
    let far = Config::new(proxy.url(), &near.prefix);
    let a = Node::joined(&near).await;
    for (config, users) in [(near, 0..200), (far, 200..220)] {
        let mut b = Node::joined(&config).await;
        for number in users {
            let somebody = nth(number);
            let _held = b.holds(&somebody).await;
            a.bus.send(&to(Some(&somebody), number));
            assert_eq!(b.hears().await, number);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_subscribed_in_few_commands() {
    if server::shared("crowd").is_none() {
        return;
    }
    const CROWD: u64 = 20_000;
    let server = Server::started().await;
    let outsider = Outsider::at(&server.url()).await;
    let [node] = nodes(&config(&server.url())).await;
    let before = (
        outsider.calls("subscribe").await,
        outsider.calls("ping").await,
    );

    // However fast it answers: it does so when they are all there.
    server.signal("STOP");
    let held: Vec<_> = (0..CROWD)
        .map(|number| node.bus.subscribe(&nth(number)))
        .collect();
    server.signal("CONT");
    for subscription in &held {
        confirmed(subscription).await;
    }

    let most = CROWD / 1_000 + 2;
    assert!(outsider.calls("subscribe").await - before.0 <= most);
    assert!(outsider.calls("ping").await - before.1 <= most);
    assert_eq!(node.shows("bellhop_bus_subscriptions"), CROWD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_comes_back_with_all_its_subscriptions() {
    if server::shared("kill pubsub").is_none() {
        return;
    }
    let server = Server::started().await;
    let outsider = Outsider::at(&server.url()).await;
    let [a, mut b] = nodes(&config(&server.url())).await;
    let alice = user("alice");
    let held = b.holds(&alice).await;

    outsider.ask("CLIENT", &["KILL", "TYPE", "pubsub"]).await;
    b.is_restored().await;
    confirmed(&held).await;
    assert_eq!(a.bus.send(&to(Some(&alice), 1)), Sent::Live);
    assert_eq!(b.hears().await, 1);
    eventually("it is healthy again", async || b.bus.is_healthy()).await;
    assert_eq!(b.shows("bellhop_bus_reconnections_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_died_is_joined_again_when_it_is_back() {
    if server::shared("restart").is_none() {
        return;
    }
    let mut server = Server::started().await;
    let [a, mut b] = nodes(&config(&server.url())).await;
    let alice = user("alice");
    let held = b.holds(&alice).await;

    server.kill();
    eventually("both notice", async || {
        !a.bus.is_healthy() && !b.bus.is_healthy()
    })
    .await;
    let deferred = async || a.bus.send(&to(Some(&alice), 1)) == Sent::Deferred;
    eventually("sending is deferred", deferred).await;
    assert_eq!(a.shows("bellhop_redis_up"), 0);

    server.start().await;
    b.is_restored().await;
    confirmed(&held).await;
    eventually("all is well", async || {
        a.bus.is_healthy() && b.bus.is_healthy()
    })
    .await;
    assert_eq!(a.bus.send(&to(Some(&alice), 2)), Sent::Live);
    assert_eq!(b.hears_restored_or_not().await, 2);
    assert_eq!(a.shows("bellhop_redis_up"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_noticed_and_nobody_waits_for_it() {
    if server::shared("hang").is_none() {
        return;
    }
    let server = Server::started().await;
    let [a, mut b] = nodes(&config(&server.url())).await;
    let alice = user("alice");
    let held = b.holds(&alice).await;

    server.signal("STOP");
    let deferred = async || a.bus.send(&to(Some(&alice), 1)) == Sent::Deferred;
    eventually("sending is deferred", deferred).await;
    eventually("both notice", async || {
        !a.bus.is_healthy() && !b.bus.is_healthy()
    })
    .await;

    server.signal("CONT");
    eventually("all is well", async || {
        a.bus.is_healthy() && b.bus.is_healthy()
    })
    .await;
    confirmed(&held).await;
    assert_eq!(a.bus.send(&to(None, 2)), Sent::Live);
    // What Redis still had may come as well; what was deferred does not, and that is said before the first new message.
    let mut is_restored = false;
    loop {
        let next = b.next().await;
        is_restored |= matches!(next, Incoming::Restored);
        if number(&next) == Some(2) {
            break;
        }
    }
    assert!(is_restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_links_are_whole_are_told_what_another_could_not_send() {
    if server::shared("cut publishing").is_none() {
        return;
    }
    let server = Server::started().await;
    let proxy = Proxy::before(&server).await;
    let near = config(&server.url());
    let mut a = Node::joined(&Config::new(proxy.url(), &near.prefix)).await;
    let [mut b, mut c] = nodes(&near).await;
    let alice = user("alice");
    let _held = b.holds(&alice).await;

    proxy.cut_publishing();
    let deferred = async || a.bus.send(&to(Some(&alice), 1)) == Sent::Deferred;
    eventually("sending is deferred", deferred).await;
    proxy.mend();
    eventually("it can send again", async || a.bus.is_healthy()).await;
    assert_eq!(a.bus.send(&to(None, 2)), Sent::Live);

    for node in [&mut b, &mut c] {
        // What was sent before the cut was noticed may have come as well.
        let mut restored = 0;
        loop {
            let next = node.next().await;
            match number(&next) {
                Some(2) => break,
                Some(_) => assert_eq!(restored, 0, "after it came {next:?}"),
                None => restored += 1,
            }
        }
        assert_eq!(restored, 1);
        assert!(node.bus.is_healthy());
        assert_eq!(node.shows("bellhop_bus_reconnections_total"), 0);
    }
    assert_eq!(c.received(), 1);
    // Its own link was lost, in one direction; it does not hear its own word.
    assert_eq!(a.shows("bellhop_bus_reconnections_total"), 1);
    a.is_restored().await;
    b.bus.send(&to(None, 3));
    assert_eq!(a.hears().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_found_no_room_is_told_and_not_too_often() {
    let Some(url) = server::shared("no room") else {
        return;
    };
    let [mut a, mut b] = nodes(&config(&url)).await;
    let mut too_large = to(None, 1);
    too_large.body = Body::Emit(Arc::new(Event::new("large", &"x".repeat(20_000_000))));
    let start = Instant::now();
    for _ in 0..2 {
        for _ in 0..100 {
            assert_eq!(a.bus.send(&too_large), Sent::Deferred);
        }
        b.is_restored().await;
    }
    assert!(start.elapsed() >= Duration::from_secs(1));

    a.bus.send(&to(None, 2));
    assert_eq!(b.hears_restored_or_not().await, 2);
    b.bus.send(&to(None, 3));
    assert_eq!(a.hears().await, 3);
    assert_eq!((a.received(), b.received()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_what_it_could_not_send() {
    let Some(url) = server::shared("stop with losses") else {
        return;
    };
    let [a, mut b] = nodes(&config(&url)).await;
    let mut too_large = to(None, 1);
    too_large.body = Body::Emit(Arc::new(Event::new("large", &"x".repeat(20_000_000))));
    // The first is told at once; the second would have to wait for its turn.
    a.bus.send(&too_large);
    b.is_restored().await;
    a.bus.send(&too_large);
    assert!(a.tasks.finish(PATIENCE).await);
    b.is_restored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_redis_refuses_is_noticed_and_tried_again() {
    if server::shared("refused").is_none() {
        return;
    }
    let server = Server::started().await;
    let outsider = Outsider::at(&server.url()).await;
    let [mut node] = nodes(&config(&server.url())).await;
    let held = node.holds(&user("alice")).await;
    let permit = async |channels| outsider.ask("ACL", &["SETUSER", "default", channels]).await;

    permit("resetchannels").await;
    let refused = r#"bellhop_bus_errors_total{kind="subscribe"}"#;
    eventually("it is noticed", async || node.shows(refused) >= 2).await;
    assert!(!node.bus.is_healthy());

    permit("allchannels").await;
    node.is_restored().await;
    confirmed(&held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_the_address_are_used_on_every_connection() {
    if server::shared("credentials").is_none() {
        return;
    }
    let server = Server::started().await;
    let outsider = Outsider::at(&server.url()).await;
    let alice = user("alice");
    let all = ["on", ">pass@1", "allchannels", "+@all"];
    outsider
        .ask("ACL", &[&["SETUSER", "own"], &all[..]].concat())
        .await;
    outsider
        .ask("CONFIG", &["SET", "requirepass", "pass@2"])
        .await;
    for credentials in ["own:pass%401", ":pass%402"] {
        let url = server.url().replace("://", &format!("://{credentials}@"));
        let [a, mut b] = nodes(&config(&url)).await;
        let _held = b.holds(&alice).await;
        assert_eq!(a.bus.send(&to(Some(&alice), 1)), Sent::Live);
        assert_eq!(b.hears().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_silently_carries_nothing_is_found_by_a_probe() {
    if server::shared("probe").is_none() {
        return;
    }
    let server = Server::started().await;
    let proxy = Proxy::before(&server).await;
    let prefix = config("").prefix;
    let a = Node::joined(&Config::new(server.url(), &prefix)).await;
    let mut b = Node::joined(&Config::new(proxy.url(), &prefix)).await;
    let alice = user("alice");
    let held = b.holds(&alice).await;

    proxy.swallow_subscriptions();
    let silent = r#"bellhop_bus_errors_total{kind="probe"}"#;
    eventually("it is noticed", async || {
        b.shows(silent) == 1 && !b.bus.is_healthy()
    })
    .await;
    b.is_restored().await;
    confirmed(&held).await;
    assert_eq!(a.bus.send(&to(Some(&alice), 1)), Sent::Live);
    assert_eq!(b.hears().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_redis_joins_when_it_comes() {
    if server::shared("away at start").is_none() {
        return;
    }
    let mut server = Server::new();
    let config = config(&server.url());
    let (a, mut b) = (Node::connect(&config), Node::connect(&config));
    let alice = user("alice");
    let held = b.bus.subscribe(&alice);
    assert!(!b.bus.is_healthy());
    assert_eq!(a.bus.send(&to(Some(&alice), 1)), Sent::Deferred);

    server.start().await;
    b.is_restored().await;
    confirmed(&held).await;
    eventually("all is well", async || {
        a.bus.is_healthy() && b.bus.is_healthy()
    })
    .await;
    assert_eq!(a.bus.send(&to(Some(&alice), 2)), Sent::Live);
    assert_eq!(b.hears_restored_or_not().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_counted_and_changes_nothing() {
    let Some(url) = server::shared("garbage") else {
        return;
    };
    let config = config(&url);
    let [a, mut b] = nodes(&config).await;
    let (alice, mallory) = (user("alice"), user("mallory"));
    let _held = b.holds(&alice).await;
    let outsider = Outsider::at(&url).await;
    let channel = |user: &UserId| format!("{}:u:{user}", config.prefix);

    // What was sent to somebody else, word for word.
    let mut overheard = outsider.0.message_rx();
    outsider.0.subscribe(channel(&mallory)).await.unwrap();
    let taps = Outsider::at(&url).await;
    eventually("the tap is in", async || {
        taps.subscribers(&channel(&mallory)).await == 1
    })
    .await;
    a.bus.send(&to(Some(&mallory), 1));
    let theirs = tokio::time::timeout(PATIENCE, overheard.recv())
        .await
        .unwrap()
        .unwrap();
    let theirs = theirs.value.as_bytes().unwrap().to_vec();
    let mut later_version = theirs.clone();
    later_version[0] = 99;

    let bad: [&[u8]; 5] = [b"", b"{}", &[1; 400], &theirs, &theirs[..theirs.len() - 1]];
    for bytes in bad {
        taps.publish(&channel(&alice), bytes).await;
        taps.publish(&format!("{}:all", config.prefix), bytes).await;
    }
    taps.publish(&channel(&alice), &later_version).await;
    taps.publish(&channel(&alice), &vec![1; 1_000_000]).await;

    a.bus.send(&to(Some(&alice), 2));
    assert_eq!(b.hears().await, 2);
    let counts = BTreeMap::from(["bad_envelope", "unknown_version"].map(|reason| {
        (
            reason,
            b.shows(&format!(
                r#"bellhop_messages_dropped_total{{reason="{reason}"}}"#
            )),
        )
    }));
    assert_eq!(counts.values().sum::<u64>(), 12);
    assert!(counts["unknown_version"] >= 1, "{counts:?}");
    assert!(b.bus.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_outlives_its_last_socket_by_the_linger() {
    if server::shared("linger").is_none() {
        return;
    }
    let server = Server::started().await;
    let outsider = Outsider::at(&server.url()).await;
    let mut config = config(&server.url());
    config.linger = Duration::from_millis(300);
    let [a, mut b] = nodes(&config).await;
    let alice = user("alice");
    let channel = format!("{}:u:alice", config.prefix);

    let held = b.holds(&alice).await;
    let commands = outsider.calls("subscribe").await;
    drop(held);
    let held = b.holds(&alice).await;
    a.bus.send(&to(Some(&alice), 1));
    assert_eq!(b.hears().await, 1);
    assert_eq!(outsider.calls("subscribe").await, commands);
    assert_eq!(outsider.subscribers(&channel).await, 1);

    drop(held);
    a.bus.send(&to(Some(&alice), 2));
    let ignored = r#"bellhop_bus_messages_total{direction="ignored"}"#;
    eventually("nobody is there to hear it", async || b.shows(ignored) == 1).await;
    eventually("the channel is gone", async || {
        outsider.subscribers(&channel).await == 0
    })
    .await;
    assert_eq!(b.shows("bellhop_bus_subscriptions"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_behind_is_told_so() {
    let Some(url) = server::shared("backlog") else {
        return;
    };
    let [a, mut b] = nodes(&config(&url)).await;
    let most = BACKLOG as u64;
    for number in 0..most + 100 {
        assert_eq!(a.bus.send(&to(None, number)), Sent::Live);
    }
    let lagged = r#"bellhop_bus_errors_total{kind="lagged"}"#;
    eventually("the last ones find no room", async || {
        b.shows(lagged) == 100
    })
    .await;

    for number in 0..most {
        assert_eq!(b.hears().await, number);
    }
    b.is_restored().await;
    a.bus.send(&to(None, 7));
    assert_eq!(b.hears().await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_sends_what_it_has_taken() {
    let Some(url) = server::shared("stop") else {
        return;
    };
    let [a, mut b] = nodes(&config(&url)).await;
    for number in 0..1_000 {
        assert_eq!(a.bus.send(&to(None, number)), Sent::Live);
    }
    assert!(a.tasks.finish(PATIENCE).await);
    for number in 0..1_000 {
        assert_eq!(b.hears().await, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_counted_on_all_nodes_that_hold_the_user() {
    for [a, mut b, mut c] in three_nodes("presence").await {
        let alice = user("alice");
        // The node that asks hears its own question, and counts as answered.
        let _on_a = a.holds(&alice).await;
        let _on_b = b.holds(&alice).await;
        let on_c = c.holds(&alice).await;
        for _ in 0..20 {
            let count = found(&a.bus, &alice, [(&mut b, 2), (&mut c, 3)]).await;
            assert_eq!(count, elsewhere(5, true));
        }

        // Its channel may linger, where nobody is left.
        drop(on_c);
        let count = found(&a.bus, &alice, [(&mut b, 2), (&mut c, 0)]).await;
        assert_eq!(count, elsewhere(2, true));

        let nobody = a.bus.sockets_elsewhere(&user("nobody")).await;
        assert_eq!(nobody, elsewhere(0, true));
        assert_eq!(
            b.shows("bellhop_messages_dropped_total{reason=\"bad_envelope\"}"),
            0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_makes_the_count_incomplete_and_nobody_waits_for_it() {
    for [a, mut b, c] in three_nodes("silent node").await {
        let alice = user("alice");
        let _on_b = b.holds(&alice).await;
        let _on_c = c.holds(&alice).await;
        let start = Instant::now();
        let count = tokio::select! {
            count = a.bus.sockets_elsewhere(&alice) => count,
            () = b.answers_with(2) => unreachable!("it does not end"),
        };
        assert_eq!(count, elsewhere(2, false));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(250), "{waited:?}");
        assert!(waited < Duration::from_millis(1_500), "{waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_ask_at_once_and_too_many_are_not_answered() {
    for [a, mut b, mut c] in three_nodes("crowd of questions").await {
        let alice = user("alice");
        let _on_b = b.holds(&alice).await;
        let _on_c = c.holds(&alice).await;
        let askers = (0..1_100).map(|_| a.bus.sockets_elsewhere(&alice));
        let all = futures_util::future::join_all(askers);
        let counts = tokio::select! {
            counts = within("all are answered", all) => counts,
            () = b.answers_with(1) => unreachable!("it does not end"),
            () = c.answers_with(1) => unreachable!("it does not end"),
        };
        let refused = counts.iter().filter(|count| **count == elsewhere(0, false));
        assert!(refused.count() >= 76);
        // The crowd may have used up its time on a slow machine; the next one has a time of its own.
        let again = async {
            let complete = elsewhere(2, true);
            while found(&a.bus, &alice, [(&mut b, 1), (&mut c, 1)]).await != complete {}
        };
        within("questions are answered again", again).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_presence_is_incomplete_and_quickly_so() {
    if server::shared("presence away").is_none() {
        return;
    }
    let mut server = Server::started().await;
    let [a, b] = nodes(&config(&server.url())).await;
    let alice = user("alice");
    let _held = b.holds(&alice).await;

    server.kill();
    let start = Instant::now();
    assert_eq!(
        a.bus.sockets_elsewhere(&alice).await,
        elsewhere(0, false),
        "whether it is noticed or not"
    );
    assert!(start.elapsed() < Duration::from_millis(1_500));
    eventually("it is noticed", async || !a.bus.is_healthy()).await;
    let asked = a.bus.sockets_elsewhere(&alice);
    assert_eq!(asked.now_or_never(), Some(elsewhere(0, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_answer_changes_nothing() {
    let Some(url) = server::shared("forged answers") else {
        return;
    };
    let config = config(&url);
    let [a, mut b, mut c] = nodes(&config).await;
    let alice = user("alice");
    let _on_b = b.holds(&alice).await;
    let _on_c = c.holds(&alice).await;
    let outsider = Outsider::at(&url).await;

    // A true answer, overheard.
    let mut overheard = outsider.0.message_rx();
    let all_nodes = format!("{}:node:*", config.prefix);
    outsider.0.psubscribe(all_nodes).await.unwrap();
    let count = found(&a.bus, &alice, [(&mut b, 1), (&mut c, 2)]).await;
    assert_eq!(count, elsewhere(3, true));
    let (own, true_answer) = loop {
        let message = within("it is overheard", overheard.recv()).await.unwrap();
        let bytes = message.value.as_bytes().unwrap().to_vec();
        if bytes[1] == 7 {
            break (message.channel.to_string(), bytes);
        }
    };

    let taps = Outsider::at(&url).await;
    let ignored = r#"bellhop_bus_messages_total{direction="ignored"}"#;
    let bad = r#"bellhop_messages_dropped_total{reason="bad_envelope"}"#;
    let before = a.shows(ignored);
    taps.publish(&own, &true_answer).await;
    taps.publish(&format!("{}:all", config.prefix), &true_answer)
        .await;
    eventually(
        "the late one is ignored, the misplaced one dropped",
        async || a.shows(ignored) == before + 1 && a.shows(bad) == 1,
    )
    .await;
    let count = found(&a.bus, &alice, [(&mut b, 1), (&mut c, 2)]).await;
    assert_eq!(count, elsewhere(3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_event_travels_as_well() {
    for [a, mut b, _c] in three_nodes("without event").await {
        let alice = user("alice");
        let _held = b.holds(&alice).await;
        let position = Position { seq: 7, unread: 0 };
        for body in [Body::Revoked(position, 99), Body::Reached(12)] {
            let message = Message {
                to: Some(alice.clone()),
                published_at: 5,
                epoch: "e1".into(),
                body,
            };
            assert_eq!(a.bus.send(&message), Sent::Live);
        }
        let mut heard = Vec::new();
        for _ in 0..2 {
            let next = b.next().await;
            assert!(
                matches!(next, Incoming::Message(_)),
                "instead came {next:?}"
            );
            if let Incoming::Message(message) = next {
                heard.push((message.published_at, message.body));
            }
        }
        assert!(matches!(heard[0], (5, Body::Revoked(at, 99)) if at == position));
        assert!(matches!(heard[1], (5, Body::Reached(12))));
    }
}
