//! The bus inside one process: nodes that share an [`Exchange`] hand each other messages directly.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::backlog::{Backlog, Handed};
use super::questions::{Posting, Questions};
use super::{Elsewhere, Question, Receiver, Sent};
use crate::event::Message;
use crate::metrics::{BusError, Direction, Metrics};
use crate::user::UserId;

/// Joins the nodes of one process. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Exchange(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many nodes have joined, readable without the lock: a node that is alone sends for nothing.
    joined: AtomicUsize,
    floor: Mutex<Floor>,
}

#[derive(Debug, Default)]
struct Floor {
    last_id: u64,
    nodes: HashMap<u64, Node>,
    /// Which nodes hold a user, and how many subscriptions each has.
    holders: HashMap<UserId, Vec<(u64, usize)>>,
}

#[derive(Debug)]
struct Node {
    backlog: Backlog,
    questions: Arc<Questions>,
    metrics: Arc<Metrics>,
}

/// One node's end of the exchange.
#[derive(Clone, Debug)]
pub struct Bus {
    exchange: Exchange,
    node: u64,
    questions: Arc<Questions>,
}

/// Counts as one holder of the user's messages until it is dropped. There is no linger: to subscribe
/// again costs nothing here.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    user: UserId,
}

impl Exchange {
    /// A new node. It leaves when its receiver is dropped.
    #[must_use]
    pub fn join(&self, metrics: Arc<Metrics>) -> (super::Bus, Receiver) {
        let (backlog, receiver) = Backlog::new();
        metrics.redis_up.of(()).set(1.0);
        let questions = Arc::new(Questions::default());
        let entrant = Node {
            backlog,
            questions: Arc::clone(&questions),
            metrics,
        };
        let mut floor = self.0.floor.lock();
        floor.last_id += 1;
        let node = floor.last_id;
        floor.nodes.insert(node, entrant);
        self.0.joined.store(floor.nodes.len(), Ordering::Release);
        let bus = Bus {
            exchange: self.clone(),
            node,
            questions,
        };
        (super::Bus::Local(bus), receiver)
    }
}

impl Bus {
    pub(super) fn send(&self, message: &Message) -> Sent {
        if self.exchange.0.joined.load(Ordering::Acquire) > 1 {
            let mut floor = self.exchange.0.floor.lock();
            floor.pass_on(self.node, message);
            self.exchange
                .0
                .joined
                .store(floor.nodes.len(), Ordering::Release);
        }
        Sent::Live
    }

    pub(super) async fn sockets_elsewhere(&self, user: &UserId) -> Elsewhere {
        if self.exchange.0.joined.load(Ordering::Acquire) <= 1 {
            return Elsewhere {
                sockets: 0,
                complete: true,
            };
        }
        let Some(asking) = self.questions.ask() else {
            return Elsewhere::UNKNOWN;
        };
        let question = Question {
            asker: self.node,
            number: asking.number(),
        };
        self.exchange
            .0
            .floor
            .lock()
            .ask(user, question, asking.posting());
        asking.answers().await
    }

    pub(super) fn answer(&self, question: Question, sockets: u64) {
        let floor = self.exchange.0.floor.lock();
        floor.answer(self.node, question, sockets);
    }

    pub(super) fn subscribe(&self, user: &UserId) -> Subscription {
        let mut floor = self.exchange.0.floor.lock();
        let holders = floor.holders.entry(user.clone()).or_default();
        match holders.iter_mut().find(|(node, _)| *node == self.node) {
            Some((_, subscriptions)) => *subscriptions += 1,
            None => {
                holders.push((self.node, 1));
                floor.count(self.node, 1.0);
            }
        }
        Subscription {
            bus: self.clone(),
            user: user.clone(),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.bus
            .exchange
            .0
            .floor
            .lock()
            .release(self.bus.node, &self.user);
    }
}

impl Floor {
    /// Hands the question to the nodes that hold the user. One that has no room for it is waited for in vain.
    fn ask(&mut self, user: &UserId, question: Question, posting: Posting) {
        self.published(question.asker);
        let holders = self.holders.get(user).map_or(&[][..], Vec::as_slice);
        let mut receivers = 0;
        for (to, _) in holders.iter().filter(|(to, _)| *to != question.asker) {
            let handed = hand_over(&mut self.nodes, *to, |node| {
                node.backlog.asked(user.clone(), question)
            });
            receivers += u64::from(handed.is_some_and(|handed| handed != Handed::Closed));
        }
        posting.reached(receivers);
    }

    fn answer(&self, from: u64, question: Question, sockets: u64) {
        self.published(from);
        if let Some(asker) = self.nodes.get(&question.asker) {
            let is_wanted = asker.questions.answer(question.number, from, sockets);
            let direction = if is_wanted {
                Direction::Received
            } else {
                Direction::Ignored
            };
            asker.metrics.bus_messages.of(direction).increment(1);
        }
    }

    fn published(&self, by: u64) {
        if let Some(node) = self.nodes.get(&by) {
            let published = node.metrics.bus_messages.of(Direction::Published);
            published.increment(1);
        }
    }

    fn pass_on(&mut self, from: u64, message: &Message) {
        self.published(from);
        match &message.to {
            Some(user) => {
                let holders = self.holders.get(user).map_or(&[][..], Vec::as_slice);
                for (to, _) in holders.iter().filter(|(to, _)| *to != from) {
                    hand_over(&mut self.nodes, *to, |node| node.message(message));
                }
            }
            None => {
                self.nodes.retain(|to, node| {
                    *to == from || node.take(|node| node.message(message)) != Handed::Closed
                });
            }
        }
    }

    fn release(&mut self, node: u64, user: &UserId) {
        let Some(holders) = self.holders.get_mut(user) else {
            return;
        };
        let mut left = false;
        holders.retain_mut(|(holder, subscriptions)| {
            if *holder != node {
                return true;
            }
            *subscriptions -= 1;
            left = *subscriptions == 0;
            !left
        });
        if holders.is_empty() {
            self.holders.remove(user);
        }
        if left {
            self.count(node, -1.0);
        }
    }

    fn count(&self, node: u64, users: f64) {
        if let Some(node) = self.nodes.get(&node) {
            node.metrics.bus_subscriptions.of(()).increment(users);
        }
    }
}

fn hand_over(
    nodes: &mut HashMap<u64, Node>,
    to: u64,
    hand: impl FnOnce(&mut Node) -> Handed,
) -> Option<Handed> {
    let handed = nodes.get_mut(&to).map(|node| node.take(hand));
    if handed == Some(Handed::Closed) {
        nodes.remove(&to);
    }
    handed
}

impl Node {
    fn message(&mut self, message: &Message) -> Handed {
        self.backlog.message(message.clone())
    }

    /// Hands something over, and counts it.
    fn take(&mut self, hand: impl FnOnce(&mut Self) -> Handed) -> Handed {
        let handed = hand(self);
        match handed {
            Handed::Over => self
                .metrics
                .bus_messages
                .of(Direction::Received)
                .increment(1),
            Handed::Lost => self.metrics.bus_errors.of(BusError::Lagged).increment(1),
            Handed::Closed => {}
        }
        handed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BACKLOG, Bus, Incoming};
    use super::*;
    use crate::event::{Body, Event, Position};

    struct Joined {
        bus: Bus,
        incoming: Receiver,
        metrics: Arc<Metrics>,
    }

    fn nodes<const N: usize>() -> [Joined; N] {
        let exchange = Exchange::default();
        std::array::from_fn(|_| {
            let metrics = Arc::new(Metrics::new());
            let (bus, incoming) = exchange.join(Arc::clone(&metrics));
            Joined {
                bus,
                incoming,
                metrics,
            }
        })
    }

    fn user(id: &str) -> UserId {
        UserId::try_from(id).unwrap()
    }

    fn to(user: Option<UserId>, number: u64) -> Message {
        Message {
            to: user,
            published_at: number,
            epoch: "e1".into(),
            body: Body::Emit(Arc::new(Event::new("number", &number))),
        }
    }

    fn numbers(incoming: &mut Receiver) -> Vec<u64> {
        std::iter::from_fn(|| incoming.try_recv().ok())
            .filter_map(|incoming| match incoming {
                Incoming::Message(message) => Some(message.published_at),
                Incoming::Restored | Incoming::OtherEpoch | Incoming::Asked { .. } => None,
            })
            .collect()
    }

    fn shows(metrics: &Metrics, line: &str) -> bool {
        metrics.render().lines().any(|shown| shown == line)
    }

    #[test]
    fn a_message_goes_to_the_nodes_that_hold_its_user_and_to_no_other() {
        let [mut a, mut b, mut c] = nodes();
        let _on_a = a.bus.subscribe(&user("42"));
        let _on_b = b.bus.subscribe(&user("42"));

        assert_eq!(a.bus.send(&to(Some(user("42")), 1)), Sent::Live);
        assert_eq!(a.bus.send(&to(None, 2)), Sent::Live);

        assert_eq!(numbers(&mut a.incoming), [0; 0]);
        assert_eq!(numbers(&mut b.incoming), [1, 2]);
        assert_eq!(numbers(&mut c.incoming), [2]);
        assert!(shows(
            &a.metrics,
            r#"bellhop_bus_messages_total{direction="published"} 2"#
        ));
        assert!(shows(
            &c.metrics,
            r#"bellhop_bus_messages_total{direction="received"} 1"#
        ));
    }

    #[test]
    fn the_last_subscription_of_a_user_ends_their_messages() {
        let [a, mut b] = nodes();
        let first = b.bus.subscribe(&user("42"));
        let second = b.bus.subscribe(&user("42"));
        assert!(shows(&b.metrics, "bellhop_bus_subscriptions 1"));

        drop(first);
        a.bus.send(&to(Some(user("42")), 1));
        drop(second);
        a.bus.send(&to(Some(user("42")), 2));

        assert_eq!(numbers(&mut b.incoming), [1]);
        assert!(shows(&b.metrics, "bellhop_bus_subscriptions 0"));
    }

    #[test]
    fn a_node_that_falls_behind_is_told_and_nobody_waits() {
        let [a, mut b] = nodes();
        for number in 0..=BACKLOG as u64 {
            assert_eq!(a.bus.send(&to(None, number)), Sent::Live);
        }
        let last = std::iter::from_fn(|| b.incoming.try_recv().ok()).last();
        assert!(matches!(last, Some(Incoming::Restored)));
        assert!(shows(
            &b.metrics,
            r#"bellhop_bus_errors_total{kind="lagged"} 1"#
        ));
    }

    impl Joined {
        /// What a node's loop does, for as long as it is polled.
        async fn answers_with(&mut self, sockets: u64) {
            while let Some(incoming) = self.incoming.recv().await {
                if let Incoming::Asked { question, .. } = incoming {
                    self.bus.answer(&question, sockets);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_are_counted_on_the_nodes_that_hold_the_user_and_asked_of_no_other() {
        let [mut a, mut b, mut c, d] = nodes();
        let alice = user("alice");
        let _held = [&a, &b, &c].map(|node| node.bus.subscribe(&alice));
        let asker = a.bus.clone();
        let found = tokio::select! {
            found = asker.sockets_elsewhere(&alice) => found,
            () = a.answers_with(100) => unreachable!("a node does not ask itself"),
            () = async { tokio::join!(b.answers_with(2), c.answers_with(0)); } => unreachable!("it does not end"),
        };
        assert_eq!((found.sockets, found.complete), (2, true));
        assert!(shows(
            &a.metrics,
            r#"bellhop_bus_messages_total{direction="received"} 2"#
        ));
        assert!(shows(
            &d.metrics,
            r#"bellhop_bus_messages_total{direction="received"} 0"#
        ));

        let nobody = asker.sockets_elsewhere(&user("nobody")).await;
        assert_eq!((nobody.sockets, nobody.complete), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_is_not_waited_for_long_and_makes_the_count_incomplete() {
        let [a, mut b, c] = nodes();
        let alice = user("alice");
        let _held = [&b, &c].map(|node| node.bus.subscribe(&alice));
        let start = tokio::time::Instant::now();
        let found = tokio::select! {
            found = a.bus.sockets_elsewhere(&alice) => found,
            () = b.answers_with(2) => unreachable!("it does not end"),
        };
        assert_eq!((found.sockets, found.complete), (2, false));
        assert!(start.elapsed() <= std::time::Duration::from_millis(301));

        // Nobody is waited for that has left.
        drop((b.incoming, c.incoming));
        let found = a.bus.sockets_elsewhere(&alice).await;
        assert_eq!((found.sockets, found.complete), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_forged_or_late_answer_changes_nothing() {
        let [a, mut b, c] = nodes();
        let alice = user("alice");
        let _held = b.bus.subscribe(&alice);
        let asking = a.bus.sockets_elsewhere(&alice);
        let asked = async {
            let Some(Incoming::Asked { question, .. }) = b.incoming.recv().await else {
                unreachable!("it is asked");
            };
            let Question { asker, number } = question;
            let forged = [(asker, number ^ 1), (asker + 7, number)];
            for (asker, number) in forged {
                c.bus.answer(&Question { asker, number }, 9);
            }
            question
        };
        let (found, question) = tokio::join!(asking, asked);
        assert_eq!((found.sockets, found.complete), (0, false));
        b.bus.answer(&question, 9);
        assert!(shows(
            &a.metrics,
            r#"bellhop_bus_messages_total{direction="ignored"} 2"#
        ));
    }

    #[test]
    fn what_has_no_event_travels_as_well() {
        let [a, mut b] = nodes();
        let _held = b.bus.subscribe(&user("42"));
        let position = Position { seq: 7, unread: 0 };
        for body in [Body::Revoked(position, 99), Body::Reached(12)] {
            a.bus.send(&Message {
                to: Some(user("42")),
                published_at: 1,
                epoch: "e1".into(),
                body,
            });
        }
        let mut heard = || match b.incoming.try_recv() {
            Ok(Incoming::Message(message)) => message.body,
            other => unreachable!("instead of a message came {other:?}"),
        };
        assert!(matches!(heard(), Body::Revoked(at, 99) if at == position));
        assert!(matches!(heard(), Body::Reached(12)));
    }

    #[test]
    fn a_node_that_left_is_forgotten() {
        let [a, b] = nodes();
        let kept = b.bus.subscribe(&user("42"));
        drop(b.incoming);
        a.bus.send(&to(Some(user("42")), 1));
        a.bus.send(&to(None, 2));
        drop(kept);
        assert!(shows(
            &a.metrics,
            r#"bellhop_bus_messages_total{direction="published"} 1"#
        ));
    }
}
