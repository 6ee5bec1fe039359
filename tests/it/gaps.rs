//! What a socket makes of the bus: a gap is read from the store, and what is of another history is not believed.

use std::sync::Arc;
use std::time::Duration;

use bellhop::bus::{Bus, Receiver, redis};
use bellhop::event::{Body, Event, Message, Position};
use bellhop::metrics::Metrics;
use bellhop::tasks::Tasks;
use serde_json::json;

use crate::cluster::Backing;
use crate::databases;
use crate::feed::{create_unheard, user};

const GAP_REPAIRS: &str = r#"bellhop_repairs_total{kind="gap"}"#;

/// Another member of the nodes' bus, which says what the test wants.
async fn member(backing: &Backing) -> (Bus, Receiver, Tasks) {
    let (metrics, tasks) = (Arc::new(Metrics::new()), Tasks::default());
    if let Some(exchange) = backing.exchange() {
        let (bus, incoming) = exchange.join(metrics);
        return (bus, incoming, tasks);
    }
    let config = backing.config(&[]);
    let url = databases::setting("TEST_REDIS_URL").unwrap();
    let config = redis::Config::new(&url, &config.backends.bus_prefix);
    let (bus, incoming) = redis::Bus::connect(&config, "ended".into(), metrics, &tasks).unwrap();
    let mut healthy = bus.healthy();
    let joined = healthy.wait_for(|healthy| *healthy);
    tokio::time::timeout(Duration::from_secs(10), joined)
        .await
        .expect("the bus is not joined")
        .unwrap();
    (bus, incoming, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_change_shows_to_be_missing_is_read_at_once() {
    let backing = Backing::fresh().await;
    let a = backing.node(&[]).await;
    let mut device = a.connect("42").await;
    let store = backing.store().await;
    create_unheard(&store, "42").await;
    a.publish("42", "two").await;
    for (seq, title) in [(1, "unheard"), (2, "two")] {
        let new = device.expect("notification:new").await;
        assert_eq!((&new["seq"], &new["title"]), (&json!(seq), &json!(title)));
    }
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 2, "seq": 2 })
    );
    device.hears_nothing(&a, "42").await;
    assert_eq!(a.metric(GAP_REPAIRS).await, 1.0);
}

/// As when a node that still reaches the old primary after a failover goes on committing there.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_history_that_ended_moves_no_socket() {
    let backing = Backing::fresh().await;
    let a = backing.node(&[]).await;
    a.publish("42", "one").await;
    let mut device = a.connect("42").await;
    let (bus, _incoming, tasks) = member(&backing).await;
    bus.send(&Message {
        to: Some(user("42")),
        published_at: 1,
        epoch: "ended".into(),
        body: Body::Change(
            Position { seq: 2, unread: 2 },
            Arc::new(Event::new(
                "notification:new",
                &json!({ "title": "phantom" }),
            )),
        ),
    });
    // Behind it on the same way.
    let marker = Event::new("test:marker", &json!({}));
    bus.send(&Message {
        to: Some(user("42")),
        published_at: 1,
        epoch: "ended".into(),
        body: Body::Emit(Arc::new(marker)),
    });
    device.expect("test:marker").await;
    a.publish("42", "two").await;
    let new = device.expect("notification:new").await;
    assert_eq!((&new["seq"], &new["title"]), (&json!(2), &json!("two")));
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 2, "seq": 2 })
    );
    device.hears_nothing(&a, "42").await;
    tasks.stopping().cancel();
}
