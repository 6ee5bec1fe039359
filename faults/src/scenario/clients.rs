//! Faults of clients and of the way to them: slow, all at once, flapping; and what users do with their inboxes meanwhile.

use std::time::{Duration, Instant};

use super::Fault;
use super::inject::Scene;
use crate::history::Event;
use crate::load::{Command, Crowd, Publish, Slow, user_name};
use crate::proxy::{Class, Mode};
use crate::tasks::Task;

/// Characters of a message that makes slow devices slow.
const LONG: usize = 4_000;
/// How often nodes closed a connection that did not take what it was sent.
const CLOSED: &str =
    r#"bellhop_connections_closed_total{transport="websocket",reason="slow_consumer"}"#;
/// How many handshakes nodes refused because too many came.
const REFUSED: &str = r#"bellhop_connections_rejected_total{reason="rate_limited"}"#;
/// Statements that a node has sent for sockets.
const STATEMENTS: &str = "bellhop_socket_reads_total";
const CROWD: usize = 10_000;
/// In what time they come back, and until the last one has to be there.
const COMING: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_FLAPS: Duration = Duration::from_secs(2);
const FLAP: Duration = Duration::from_millis(200);
/// From the last loss of all connections to the last publish: clients come back just then.
const LAST_WORDS: Duration = Duration::from_millis(1_000);

/// Between two long messages, of 16 KB, to each user with a device that stalls: in 10 s more than all buffers on the way
/// hold. Those whose device crawls are sent one in so many.
const BETWEEN_LONG: Duration = Duration::from_millis(25);
const CRAWLERS_SHARE: u64 = 8;

/// Of so many devices one stalls, and one crawls.
const SLOW: usize = 64;
/// The line of those who crawl.
const THIN: Mode = Mode::Throttle {
    bytes_per_second: 1_024,
};
/// From the first long message until all who stall are closed.
const CLOSING: Duration = Duration::from_secs(20);

/// Which devices a fault makes slow, and how.
pub(super) fn slow(fault: Fault) -> impl Fn(usize) -> Option<Slow> {
    move |number| match (fault, number % SLOW) {
        (Fault::SlowConsumers, 0) => Some(Slow::Stalls),
        (Fault::SlowConsumers, 32) => Some(Slow::Crawls),
        _ => None,
    }
}

impl Scene<'_> {
    /// Some stop reading, some read 1 KB a second, and all of them are sent long messages.
    pub(super) async fn slow_consumers(&mut self) {
        let slow = slow(Fault::SlowConsumers);
        let devices = || {
            let devices = self.load.devices.iter().enumerate();
            devices.filter_map(|(number, device)| Some((slow(number)?, device)))
        };
        for (_, device) in devices() {
            let device = device.name.clone();
            self.rig.recorder.add(Event::Slow { device });
        }
        let stalls = |number| slow(number) == Some(Slow::Stalls);
        self.load.tell(Command::Stall, stalls);
        let line = |mode| {
            let nodes = self.rig.nodes.iter();
            nodes.for_each(|node| node.thin.set(Class::Any, mode));
        };
        line(THIN);
        let (began, mut number, mut under_way) = (Instant::now(), 0, Vec::new());
        let mut rounds = 0..;
        // What stalls is closed after 10 s: what came later would be sent to nobody.
        while began.elapsed() < self.duration / 2 {
            let all = rounds
                .next()
                .is_some_and(|round: u64| round.is_multiple_of(CRAWLERS_SHARE));
            for (_, device) in devices().filter(|(slow, _)| all || *slow == Slow::Stalls) {
                number += 1;
                under_way.push(Task::start(self.long(&device.user, number).run()));
            }
            tokio::time::sleep(BETWEEN_LONG).await;
        }
        let stalling = devices().filter(|(slow, _)| *slow == Slow::Stalls).count();
        let stalling = f64::from(u32::try_from(stalling).unwrap_or(u32::MAX));
        let closed = self.comes(CLOSING.saturating_sub(began.elapsed()), async || {
            self.sum(CLOSED, 0.0).await >= stalling
        });
        let closed = closed.await;
        self.expect("within 20 s whoever does not read is closed", closed);
        tokio::time::sleep(self.duration.saturating_sub(began.elapsed())).await;
        for publish in under_way {
            publish.await;
        }
        self.load.tell(Command::Live, stalls);
        line(Mode::Pass);
    }

    fn long(&self, user: &str, number: u64) -> Publish {
        Publish {
            cluster: self.load.cluster.clone(),
            recorder: self.load.recorder.clone(),
            key: format!("long-{number}"),
            user: user.to_owned(),
            random: self.random.fork(number),
            padding: LONG,
        }
    }

    /// Everybody is thrown out, and comes back at the same time; the database is far away.
    pub(super) async fn storm(&mut self) {
        const FAR: Mode = Mode::Delay {
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
        };
        let postgres = |mode| {
            let nodes = self.rig.nodes.iter();
            nodes.for_each(|node| node.postgres.set(Class::Any, mode));
        };
        postgres(FAR);
        let before = self.sum(REFUSED, 0.0).await;
        self.flap(Mode::Reset).await;
        self.lasts().await;
        postgres(Mode::Pass);
        let refused = self.sum(REFUSED, 0.0).await - before;
        self.expect("nodes refused handshakes", refused > 0.0);
    }

    /// Ten thousand more clients, all back within 5 s: what nodes ask the database for them.
    pub(super) async fn crowd(&mut self) {
        let nodes: Vec<_> = self.rig.nodes.iter().map(|node| node.listen).collect();
        let crowd = Crowd::new(&self.load.cluster, &nodes, CROWD, &self.random);
        let first = crowd.come(4 * COMING, PATIENCE).await;
        self.expect(
            &format!("{} of the crowd never came", first.late),
            first.late == 0,
        );
        // So that what the feed asks is the same before and after.
        let before = self.sum(STATEMENTS, f64::NAN).await;
        let back = crowd.come(COMING, PATIENCE).await;
        let asked = self.sum(STATEMENTS, f64::NAN).await - before;
        let size = f64::from(u32::try_from(CROWD).unwrap_or(u32::MAX));
        let what = format!(
            "{CROWD} clients came back in {} ms, {} are late; {:.4} statements a client",
            back.took.as_millis(),
            back.late,
            asked / size
        );
        self.expect(&what, back.late == 0 && asked / size <= 0.1);
        self.rig.recorder.add(Event::Remark { what });
    }

    /// Polling devices ask the next node, each 2 s.
    pub(super) async fn strays(&mut self) {
        let stray = async || {
            self.load.tell(Command::Stray, |_| true);
            tokio::time::sleep(FLAP).await;
            self.load.tell(Command::Live, |_| true);
        };
        self.each(BETWEEN_FLAPS, stray).await;
    }

    /// Each 2 s, for a moment, before all nodes.
    pub(super) async fn front(&mut self, mode: Mode) {
        self.each(BETWEEN_FLAPS, async || self.flap(mode).await)
            .await;
    }

    /// For a moment, all connections of clients are as bad as that.
    pub(super) async fn flap(&self, mode: Mode) {
        let fronts = || self.rig.nodes.iter().map(|node| &node.front);
        fronts().for_each(|front| front.set(Class::Any, mode));
        tokio::time::sleep(FLAP).await;
        fronts().for_each(|front| front.set(Class::Any, Mode::Pass));
    }

    /// Clients come back while it takes long to subscribe, so that much is published between what a node reads and what
    /// it hears; then silence, so that no later message tells of what was missed.
    pub(super) async fn last_words(&mut self) {
        const FAR: Mode = Mode::Delay {
            // There and back less than the second that a client is made to wait for it.
            delay: Duration::from_millis(400),
            jitter: Duration::from_millis(50),
        };
        self.rig
            .nodes
            .iter()
            .for_each(|node| node.redis.set(Class::Subscriber, FAR));
        self.lasts().await;
        // Once only: a node keeps a subscription for a while after its last device has gone.
        self.flap(Mode::Reset).await;
        tokio::time::sleep(LAST_WORDS).await;
        self.load.hush();
        tokio::time::sleep(BETWEEN_FLAPS).await;
        self.rig
            .nodes
            .iter()
            .for_each(|node| node.redis.set(Class::Any, Mode::Pass));
    }

    /// Users read, read all and delete on some node, while devices of theirs are away and come back.
    pub(super) async fn acts(&mut self) {
        let mut random = self.random.fork(3);
        let users = self.load.size.users;
        let nodes = self.rig.nodes.len();
        let (mut away, mut asked, mut done) = (Vec::new(), 0, 0);
        let act = async || {
            let user = user_name(random.below(users));
            let node = random.below(nodes);
            let list = self.load.cluster.list(node, &user).await;
            let ids: Vec<_> = list.into_iter().flat_map(|list| list.items).collect();
            let id = ids
                .get(random.below(ids.len()))
                .map(|item| item.id.as_str());
            let (method, path) = match (random.below(8), id) {
                (0, _) => ("POST", "/api/notifications/read-all".to_owned()),
                (1 | 2, Some(id)) => ("DELETE", format!("/api/notifications/{id}")),
                (3, Some(id)) => ("PATCH", format!("/api/notifications/{id}/unread")),
                (_, Some(id)) => ("PATCH", format!("/api/notifications/{id}/read")),
                (_, None) => return,
            };
            let status = self.load.cluster.act(node, &user, method, &path).await;
            asked += 1;
            done += usize::from(status.is_some_and(|status| (200..300).contains(&status)));
            let device = random.below(self.load.devices.len());
            if random.below(4) == 0 {
                self.load.tell(Command::Away, |number| number == device);
                away.push(device);
            } else if random.below(4) == 0
                && let Some(back) = away.pop()
            {
                self.load.tell(Command::Live, |number| number == back);
            }
        };
        self.each(Duration::from_millis(50), act).await;
        // Some meet what another has deleted.
        self.expect(
            &format!("{done} of {asked} acts were done"),
            done * 2 > asked && done > 10,
        );
        self.load
            .tell(Command::Live, |number| away.contains(&number));
    }
}
