//! Random histories: whatever publishers, users, time, imports and erasures do at once, in the end every
//! device shows what the database has.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop::notification::{Kind, Notification, Priority};
use bellhop::store::Store;
use bellhop::user::UserId;
use chrono::{TimeDelta, Utc};
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::TestClient;
use crate::cluster::{Backing, TestNode};
use crate::databases::setting;

const USERS: [&str; 2] = ["42", "7"];

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// What happens to one user's inbox; `nth` picks one of what is there.
#[derive(Clone, Debug)]
enum Act {
    Publish,
    /// Ends so many milliseconds later.
    PublishShort(u16),
    Batch(u8),
    Read(u8),
    Unread(u8),
    Click(u8),
    Edit(u8),
    Delete(u8),
    Withdraw(u8),
    ReadAll,
    Clear,
    Import(u8),
    Erase,
    /// A device loses its connection, and comes back with what it has.
    Reconnect,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Publish),
        3 => (1..1_500_u16).prop_map(Act::PublishShort),
        2 => (1..4_u8).prop_map(Act::Batch),
        3 => any::<u8>().prop_map(Act::Read),
        1 => any::<u8>().prop_map(Act::Unread),
        2 => any::<u8>().prop_map(Act::Click),
        2 => any::<u8>().prop_map(Act::Edit),
        2 => any::<u8>().prop_map(Act::Delete),
        2 => any::<u8>().prop_map(Act::Withdraw),
        1 => Just(Act::ReadAll),
        1 => Just(Act::Clear),
        2 => (1..5_u8).prop_map(Act::Import),
        1 => Just(Act::Erase),
        3 => Just(Act::Reconnect),
    ]
}

/// Three hands that work at once, each on its own node, on users that they share.
fn history() -> impl Strategy<Value = [Vec<(usize, Act)>; 3]> {
    let hand = || prop::collection::vec((0..USERS.len(), act()), 1..12);
    [hand(), hand(), hand()]
}

/// A client as the documentation describes it: it keeps items, a count and `lastSeq`.
struct Device {
    user: &'static str,
    socket: TestClient,
    items: BTreeMap<String, Value>,
    count: Option<(u64, u64)>,
    last_seq: Option<u64>,
    epoch: Option<String>,
}

impl Device {
    async fn connect(node: &TestNode, user: &'static str) -> Self {
        let socket = node
            .connect_with(json!({ "token": node.token(user) }))
            .await;
        Self {
            user,
            socket,
            items: BTreeMap::new(),
            count: None,
            last_seq: None,
            epoch: None,
        }
    }

    async fn reconnect(&mut self, node: &TestNode) {
        let auth = json!({ "token": node.token(self.user), "lastSeq": self.last_seq, "epoch": self.epoch });
        self.socket = node.connect_with(auth).await;
    }

    /// Takes in what comes until it shows `marker`, and the count of that moment.
    async fn until_it_shows(&mut self, marker: &str, node: &TestNode) {
        while !self.items.contains_key(marker) || self.count.map(|count| count.1) < self.last_seq {
            self.hear(node).await;
        }
    }

    async fn hear(&mut self, node: &TestNode) {
        let heard = self.socket.next().await;
        let (data, seq) = (heard.data.clone(), heard.data["seq"].as_u64());
        let id = || data["id"].as_str().unwrap().to_owned();
        match heard.event.as_str() {
            "notification:new" | "notification:updated" => {
                if self.is_news(seq) {
                    self.items.insert(id(), data.clone());
                }
            }
            "notification:deleted" => {
                if self.is_news(seq) {
                    self.items.remove(&id());
                }
            }
            "notification:unread-count" => {
                let count = (data["count"].as_u64().unwrap(), seq.unwrap());
                if self.count.is_none_or(|held| held.1 <= count.1) {
                    self.count = Some(count);
                }
            }
            "notification:refresh" => self.refresh(&data, seq, node).await,
            "notification:synced" => {
                self.last_seq = self.last_seq.max(seq);
                self.epoch = data["epoch"].as_str().map(ToOwned::to_owned);
            }
            other => panic!("heard {other}"),
        }
    }

    /// Whether a change was not seen before; then it is now.
    fn is_news(&mut self, seq: Option<u64>) -> bool {
        let news = self.last_seq < seq;
        self.last_seq = self.last_seq.max(seq);
        news
    }

    async fn refresh(&mut self, data: &Value, seq: Option<u64>, node: &TestNode) {
        match data["reason"].as_str().unwrap() {
            "read-all" => {
                if self.is_news(seq) {
                    let read = |item: &mut Value| item["isRead"] = json!(true);
                    self.items.values_mut().for_each(read);
                }
            }
            "cleared" => {
                if self.is_news(seq) {
                    self.items.clear();
                }
            }
            reason => {
                assert!(matches!(reason, "connect" | "gap"), "{reason}");
                let list = list(node, self.user).await;
                self.items = list.items;
                self.last_seq = self.last_seq.max(Some(list.seq));
                self.epoch = data["epoch"].as_str().map(ToOwned::to_owned);
            }
        }
    }
}

struct List {
    items: BTreeMap<String, Value>,
    unread: u64,
    seq: u64,
}

async fn list(node: &TestNode, user: &str) -> List {
    let path = "/api/notifications?limit=200";
    let (status, body) = node.as_user(user, Method::GET, path).await;
    assert!(status.is_success(), "{body}");
    let items = body["items"].as_array().unwrap();
    let keyed = items
        .iter()
        .map(|item| (item["id"].as_str().unwrap().to_owned(), item.clone()));
    List {
        items: keyed.collect(),
        unread: body["unreadCount"].as_u64().unwrap(),
        seq: body["seq"].as_u64().unwrap(),
    }
}

/// One hand: does its acts one after the other. Answers of acts on what is gone by now do not matter.
async fn work(node: &TestNode, store: &Store, acts: &[(usize, Act)], devices: &mut [Device]) {
    for (user, act) in acts {
        let user = USERS[*user];
        if matches!(act, Act::Reconnect) {
            for device in devices.iter_mut().filter(|device| device.user == user) {
                device.reconnect(node).await;
            }
            continue;
        }
        perform(node, store, user, act).await;
    }
}

async fn perform(node: &TestNode, store: &Store, user: &str, act: &Act) {
    let one = async |nth: u8| {
        let items = list(node, user).await.items;
        let at = usize::from(nth) % items.len().max(1);
        items
            .into_keys()
            .nth(at)
            .unwrap_or_else(|| Uuid::now_v7().to_string())
    };
    let publisher = node.publisher_token();
    let own = async |method: Method, path: String| {
        let (status, body) = node.as_user(user, method, &path).await;
        assert!(!status.is_server_error(), "{path}: {body}");
    };
    let others = async |method: Method, path: String, body: Option<Value>| {
        let (status, body) = node.call(method, &path, &publisher, body).await;
        assert!(!status.is_server_error(), "{path}: {body}");
        assert_ne!(status.as_u16(), 422, "{path}: {body}");
    };
    let (mine, theirs) = ("/api/notifications", format!("/api/users/{user}"));
    match act {
        Act::Publish => drop(node.publish(user, "one").await),
        Act::PublishShort(after) => {
            let end = Utc::now() + TimeDelta::milliseconds(i64::from(*after) + 50);
            let body = json!({ "userId": user, "title": "short", "expiresAt": end.to_rfc3339() });
            others(Method::POST, mine.to_owned(), Some(body)).await;
        }
        Act::Batch(number) => {
            let one = |n| json!({ "userId": user, "title": format!("batch {n}") });
            let many: Vec<_> = (0..*number).map(one).collect();
            let body = Some(json!({ "notifications": many }));
            others(Method::POST, format!("{mine}/batch"), body).await;
        }
        Act::Read(nth) => own(Method::PATCH, format!("{mine}/{}/read", one(*nth).await)).await,
        Act::Unread(nth) => own(Method::PATCH, format!("{mine}/{}/unread", one(*nth).await)).await,
        Act::Click(nth) => own(Method::POST, format!("{mine}/{}/click", one(*nth).await)).await,
        Act::Delete(nth) => own(Method::DELETE, format!("{mine}/{}", one(*nth).await)).await,
        Act::ReadAll => own(Method::POST, format!("{mine}/read-all")).await,
        Act::Clear => own(Method::DELETE, mine.to_owned()).await,
        Act::Edit(nth) => {
            let path = format!("{theirs}/notifications/{}", one(*nth).await);
            others(
                Method::PATCH,
                path,
                Some(json!({ "title": format!("edit {nth}") })),
            )
            .await;
        }
        Act::Withdraw(nth) => {
            let path = format!("{theirs}/notifications/{}", one(*nth).await);
            others(Method::DELETE, path, None).await;
        }
        Act::Erase => others(Method::DELETE, theirs, None).await,
        Act::Import(number) => {
            let old: Vec<_> = (0..*number).map(|n| old(user, n)).collect();
            store.import(&old).await.unwrap();
        }
        Act::Reconnect => {}
    }
}

/// A notification as it was elsewhere: some read, and one in three soon over.
fn old(user: &str, number: u8) -> Notification {
    let created_at = Utc::now() - TimeDelta::days(1);
    Notification {
        id: Uuid::now_v7(),
        user_id: UserId::try_from(user).unwrap(),
        seq: 0,
        kind: Kind::default(),
        priority: Priority::Normal,
        title: format!("old {number}"),
        message: String::new(),
        data: serde_json::value::to_raw_value(&json!({ "legacyId": number })).unwrap(),
        action_url: None,
        icon: None,
        badge: None,
        silent: false,
        sticky: false,
        is_read: number.is_multiple_of(2),
        read_at: number.is_multiple_of(2).then_some(created_at),
        clicked_at: None,
        created_at,
        expires_at: number
            .is_multiple_of(3)
            .then(|| Utc::now() + TimeDelta::milliseconds(300)),
    }
}

/// Waits until nothing is left that is due.
async fn until_time_stands_still(node: &TestNode) {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    for user in USERS {
        loop {
            let items = list(node, user).await.items;
            if items.values().all(|item| item["expiresAt"].is_null()) {
                break;
            }
            pause.tick().await;
        }
    }
}

/// What a device shows of a notification, and what the database says of it.
fn shown(items: &BTreeMap<String, Value>) -> Vec<(String, String, bool)> {
    let one = |(id, item): (&String, &Value)| {
        let title = item["title"].as_str().unwrap().to_owned();
        (id.clone(), title, item["isRead"].as_bool().unwrap())
    };
    items.iter().map(one).collect()
}

async fn run(hands: &[Vec<(usize, Act)>; 3]) {
    let backing = Backing::fresh().await;
    let nodes = [
        backing.node(&[]).await,
        backing.node(&[]).await,
        backing.node(&[]).await,
    ];
    let store = backing.store().await;
    let mut devices = [const { Vec::new() }; 3];
    for (node, devices) in nodes.iter().zip(&mut devices) {
        for user in USERS {
            devices.push(Device::connect(node, user).await);
        }
    }

    let [on_a, on_b, on_c] = &mut devices;
    tokio::join!(
        work(&nodes[0], &store, &hands[0], on_a),
        work(&nodes[1], &store, &hands[1], on_b),
        work(&nodes[2], &store, &hands[2], on_c),
    );
    until_time_stands_still(&nodes[0]).await;

    for user in USERS {
        let marker = nodes[1].publish(user, "the last one").await;
        let marker = marker["id"].as_str().unwrap();
        let truth = list(&nodes[2], user).await;
        let unread = truth.items.values().filter(|item| item["isRead"] == false);
        assert_eq!(unread.count() as u64, truth.unread, "the count of {user}");
        for (node, devices) in nodes.iter().zip(&mut devices) {
            for device in devices.iter_mut().filter(|device| device.user == user) {
                device.until_it_shows(marker, node).await;
                assert_eq!(shown(&device.items), shown(&truth.items), "{user}");
                assert_eq!(device.count, Some((truth.unread, truth.seq)), "{user}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: setting("HISTORIES").map_or(6, |cases| cases.parse().unwrap()),
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    })]
    #[test]
    fn in_the_end_every_device_shows_what_the_database_has(hands in history()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, Box::pin(run(&hands))).await });
        prop_assert!(ended.is_ok(), "the devices did not come to what the database has");
    }
}
