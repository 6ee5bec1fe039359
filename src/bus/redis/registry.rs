//! Which channels this node wants, and how far each is: `Wanted → Sent → Confirmed → Lingering → Gone`. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::user::UserId;

/// Channels in one command, at most. It bounds how long Redis is busy with one of ours, and how much a
/// failed barrier takes with it.
pub(super) const CHUNK: usize = 1_000;

/// How long a first request waits for company.
const GATHER: Duration = Duration::from_millis(2);

/// The channels of one connection. Callers subscribe and release from anywhere and never wait; one task
/// takes the commands that follow from it, in order, and says what was confirmed.
#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
    /// Rings when there may be something to do sooner than was said before.
    work: Notify,
    linger: Duration,
    metrics: Arc<Metrics>,
}

/// Tickets are handed out in rising order, so that every map below is a queue from which one can also
/// be taken out of the middle: nothing stale is left behind, however often users come and go.
#[derive(Debug, Default)]
struct State {
    channels: HashMap<UserId, Channel>,
    wanted: BTreeMap<u64, UserId>,
    /// Since when `wanted` has not been empty.
    wanted_since: Option<Instant>,
    /// By when the linger ends.
    lingering: BTreeMap<(Instant, u64), UserId>,
    last_ticket: u64,
    /// What was wanted before the present connection has tickets up to this one.
    resync_until: u64,
    /// Channels that Redis has been told of and not been told to forget.
    subscribed: usize,
    /// The same, as the gauge has it.
    shown: f64,
}

#[derive(Debug)]
struct Channel {
    subscribers: usize,
    progress: Progress,
    signal: Arc<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Wanted(u64),
    Sent,
    Confirmed,
    /// Confirmed, without a subscriber; until when, and its ticket.
    Lingering(Instant, u64),
}

/// Tells subscribers that their channel is confirmed.
#[derive(Debug, Default)]
pub(super) struct Signal {
    confirmed: AtomicBool,
    changed: Notify,
}

/// The commands that one barrier covers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) subscribe: Vec<UserId>,
    pub(super) unsubscribe: Vec<UserId>,
}

impl Signal {
    /// Returns when the channel is confirmed on the connection that now serves it.
    pub(super) async fn confirmed(&self) {
        loop {
            // Made before the look at the flag, so that no change in between is missed.
            let changed = self.changed.notified();
            if self.confirmed.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }

    fn set(&self, confirmed: bool) {
        self.confirmed.store(confirmed, Ordering::Release);
        if confirmed {
            self.changed.notify_waiters();
        }
    }
}

impl Registry {
    pub(super) fn new(linger: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            work: Notify::new(),
            linger,
            metrics,
        }
    }

    pub(super) fn subscribe(&self, user: &UserId) -> Arc<Signal> {
        let mut state = self.state.lock();
        if let Some(channel) = state.channels.get_mut(user) {
            channel.subscribers += 1;
            let signal = Arc::clone(&channel.signal);
            if let Progress::Lingering(until, ticket) = channel.progress {
                channel.progress = Progress::Confirmed;
                state.lingering.remove(&(until, ticket));
            }
            return signal;
        }
        let ticket = state.want(user.clone());
        let signal = Arc::new(Signal::default());
        let channel = Channel {
            subscribers: 1,
            progress: Progress::Wanted(ticket),
            signal: Arc::clone(&signal),
        };
        state.channels.insert(user.clone(), channel);
        let is_news = matches!(state.wanted.len(), 1 | CHUNK);
        drop(state);
        if is_news {
            self.work.notify_one();
        }
        signal
    }

    pub(super) fn release(&self, user: &UserId) {
        let until = Instant::now() + self.linger.mul_f64(rand::random_range(1.0..2.0));
        let is_news = self.state.lock().release(user, until);
        if is_news {
            self.work.notify_one();
        }
    }

    /// Whether a message to `user` has somebody to go to.
    pub(super) fn wants(&self, user: &UserId) -> bool {
        let state = self.state.lock();
        state
            .channels
            .get(user)
            .is_some_and(|channel| channel.subscribers > 0)
    }

    /// Returns when [`Registry::due`] may have become earlier.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// When the next batch should be taken, if nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let wanted = state.wanted_since.map(|since| {
            if state.wanted.len() >= CHUNK {
                since
            } else {
                since + GATHER
            }
        });
        let lingering = state
            .lingering
            .first_key_value()
            .map(|((until, _), _)| *until);
        wanted.into_iter().chain(lingering).min()
    }

    /// The next commands. Only one batch may be out at a time; it is answered by [`Registry::confirm`] or,
    /// with its connection, by [`Registry::reset`].
    pub(super) fn take(&self, now: Instant) -> Batch {
        let mut state = self.state.lock();
        let batch = Batch {
            subscribe: state.take_wanted(),
            unsubscribe: state.take_expired(now),
        };
        self.show(&mut state);
        batch
    }

    /// The barrier behind these channels' SUBSCRIBE was answered.
    pub(super) fn confirm(&self, users: &[UserId]) {
        let mut state = self.state.lock();
        for user in users {
            let until = Instant::now() + self.linger;
            state.confirm(user, until);
        }
    }

    /// Whether all that was wanted before the present connection is confirmed on it; to be asked while no
    /// batch is out.
    pub(super) fn is_resynced(&self) -> bool {
        let state = self.state.lock();
        let first = state.wanted.first_key_value();
        first.is_none_or(|(ticket, _)| *ticket > state.resync_until)
    }

    /// The connection is gone, and everything that was subscribed on it: what has subscribers is wanted
    /// anew, what lingered is gone.
    pub(super) fn reset(&self) {
        if cfg!(feature = "bug-no-resubscribe") {
            return;
        }
        let mut state = self.state.lock();
        state.reset();
        self.show(&mut state);
    }

    /// By what has changed: other links have their own.
    fn show(&self, state: &mut State) {
        let now = state.measured();
        let gauge = self.metrics.bus_subscriptions.of(());
        gauge.increment(now - std::mem::replace(&mut state.shown, now));
    }
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn want(&mut self, user: UserId) -> u64 {
        let ticket = self.ticket();
        self.wanted.insert(ticket, user);
        self.wanted_since.get_or_insert_with(Instant::now);
        ticket
    }

    /// One subscriber less. Answers whether something is due earlier than before.
    fn release(&mut self, user: &UserId, until: Instant) -> bool {
        let Some(channel) = self.channels.get_mut(user) else {
            return false;
        };
        channel.subscribers = channel.subscribers.saturating_sub(1);
        if channel.subscribers > 0 {
            return false;
        }
        match channel.progress {
            Progress::Wanted(ticket) => {
                self.channels.remove(user);
                self.wanted.remove(&ticket);
                self.mind_wanted();
                false
            }
            Progress::Confirmed => self.linger(user, until),
            // Lingers as soon as it is confirmed.
            Progress::Sent | Progress::Lingering(..) => false,
        }
    }

    fn linger(&mut self, user: &UserId, until: Instant) -> bool {
        let ticket = self.ticket();
        let Some(channel) = self.channels.get_mut(user) else {
            return false;
        };
        channel.progress = Progress::Lingering(until, ticket);
        self.lingering.insert((until, ticket), user.clone());
        let first = self.lingering.first_key_value();
        first.is_some_and(|(key, _)| *key == (until, ticket))
    }

    fn take_wanted(&mut self) -> Vec<UserId> {
        let mut users = Vec::with_capacity(self.wanted.len().min(CHUNK));
        while users.len() < CHUNK
            && let Some((_ticket, user)) = self.wanted.pop_first()
        {
            if let Some(channel) = self.channels.get_mut(&user) {
                channel.progress = Progress::Sent;
                self.subscribed += 1;
                users.push(user);
            }
        }
        self.mind_wanted();
        users
    }

    fn take_expired(&mut self, now: Instant) -> Vec<UserId> {
        let mut users = Vec::new();
        while users.len() < CHUNK
            && let Some(first) = self.lingering.first_entry()
            && first.key().0 <= now
        {
            let user = first.remove();
            self.channels.remove(&user);
            self.subscribed = self.subscribed.saturating_sub(1);
            users.push(user);
        }
        users
    }

    fn confirm(&mut self, user: &UserId, until: Instant) {
        let Some(channel) = self.channels.get_mut(user) else {
            return;
        };
        if channel.progress != Progress::Sent {
            return;
        }
        channel.progress = Progress::Confirmed;
        channel.signal.set(true);
        if channel.subscribers == 0 {
            self.linger(user, until);
        }
    }

    fn reset(&mut self) {
        self.wanted.clear();
        self.lingering.clear();
        self.subscribed = 0;
        self.channels.retain(|_, channel| channel.subscribers > 0);
        let mut ticket = self.last_ticket;
        for (user, channel) in &mut self.channels {
            ticket += 1;
            channel.progress = Progress::Wanted(ticket);
            channel.signal.set(false);
            self.wanted.insert(ticket, user.clone());
        }
        self.last_ticket = ticket;
        self.resync_until = ticket;
        self.wanted_since = None;
        self.mind_wanted();
    }

    fn mind_wanted(&mut self) {
        if self.wanted.is_empty() {
            self.wanted_since = None;
        } else {
            self.wanted_since.get_or_insert_with(Instant::now);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and exact up to 2⁵³"
    )]
    fn measured(&self) -> f64 {
        self.subscribed as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_secs(30);

    fn registry() -> Registry {
        Registry::new(LINGER, Arc::new(Metrics::new()))
    }

    fn user(id: &str) -> UserId {
        UserId::try_from(id).unwrap()
    }

    fn is_confirmed(signal: &Signal) -> bool {
        signal.confirmed.load(Ordering::Acquire)
    }

    fn subscribe(users: &[&str]) -> Batch {
        Batch {
            subscribe: users.iter().map(|id| user(id)).collect(),
            unsubscribe: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_confirmed_by_the_barrier_behind_it() {
        let registry = registry();
        let signal = registry.subscribe(&user("42"));
        assert_eq!(registry.due(), Some(Instant::now() + GATHER));
        assert_eq!(registry.take(Instant::now()), subscribe(&["42"]));
        assert!(!is_confirmed(&signal));

        let late = registry.subscribe(&user("43"));
        registry.confirm(&[user("42")]);
        signal.confirmed().await;
        assert!(!is_confirmed(&late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_comes_back_in_time_needs_no_command() {
        let registry = registry();
        registry.subscribe(&user("42"));
        registry.take(Instant::now());
        registry.confirm(&[user("42")]);
        registry.release(&user("42"));
        assert!(!registry.wants(&user("42")));

        let signal = registry.subscribe(&user("42"));
        signal.confirmed().await;
        assert!(registry.wants(&user("42")));
        assert_eq!(registry.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_goes_when_its_linger_is_over() {
        let registry = registry();
        registry.subscribe(&user("42"));
        registry.take(Instant::now());
        // Released before it is confirmed: it lingers from then on.
        registry.release(&user("42"));
        registry.confirm(&[user("42")]);
        let due = registry.due().unwrap();
        assert!((LINGER..=2 * LINGER).contains(&(due - Instant::now())));

        assert_eq!(
            registry.take(due - Duration::from_millis(1)),
            Batch::default()
        );
        let batch = registry.take(due);
        assert_eq!(batch.unsubscribe, [user("42")]);
        assert_eq!(registry.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_confirmed_on_a_connection_that_is_gone() {
        let registry = registry();
        let held = registry.subscribe(&user("held"));
        registry.subscribe(&user("left"));
        registry.take(Instant::now());
        registry.confirm(&[user("held"), user("left")]);
        registry.release(&user("left"));

        registry.reset();
        assert!(!is_confirmed(&held));
        assert!(!registry.is_resynced());
        let later = registry.subscribe(&user("later"));
        assert_eq!(registry.take(Instant::now()), subscribe(&["held", "later"]));
        registry.confirm(&[user("held"), user("later")]);
        assert!(registry.is_resynced());
        assert!(is_confirmed(&held) && is_confirmed(&later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_taken_in_chunks_in_the_order_it_came() {
        let registry = registry();
        for number in 0..=CHUNK as u64 {
            registry.subscribe(&UserId::try_from(number).unwrap());
        }
        assert_eq!(registry.due(), Some(Instant::now()));
        let first = registry.take(Instant::now()).subscribe;
        assert_eq!((first.len(), first[0].as_str()), (CHUNK, "0"));
        assert_eq!(registry.take(Instant::now()), subscribe(&["1000"]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_and_goes_while_redis_is_away_leaves_nothing_behind() {
        let registry = registry();
        for number in 0..10_000_u64 {
            let user = UserId::try_from(number).unwrap();
            registry.subscribe(&user);
            registry.release(&user);
        }
        let state = registry.state.lock();
        assert!(state.channels.is_empty() && state.wanted.is_empty() && state.lingering.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(u8),
        Release(u8),
        Take,
        Confirm,
        Reset,
        Pass(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4_u8).prop_map(Step::Subscribe),
            4 => (0..4_u8).prop_map(Step::Release),
            2 => Just(Step::Take),
            2 => Just(Step::Confirm),
            1 => Just(Step::Reset),
            1 => (0..70_u8).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Against a Redis of three lines: whoever is told "confirmed" is subscribed there.
        #[test]
        fn confirmed_means_subscribed_at_the_server(steps in steps()) {
            let registry = registry();
            let mut held: Vec<Vec<Arc<Signal>>> = vec![Vec::new(); 4];
            let mut server = std::collections::HashSet::new();
            let mut out: Option<Batch> = None;
            let mut now = Instant::now();
            let id = |number: u8| user(&number.to_string());
            for step in steps {
                match step {
                    Step::Subscribe(number) => held[usize::from(number)].push(registry.subscribe(&id(number))),
                    Step::Release(number) => if held[usize::from(number)].pop().is_some() {
                        registry.release(&id(number));
                    },
                    Step::Take => if out.is_none() {
                        let batch = registry.take(now);
                        server.extend(batch.subscribe.iter().cloned());
                        server.retain(|user| !batch.unsubscribe.contains(user));
                        out = Some(batch);
                    },
                    Step::Confirm => if let Some(batch) = out.take() { registry.confirm(&batch.subscribe); },
                    Step::Reset => { out = None; server.clear(); registry.reset(); }
                    Step::Pass(seconds) => now += Duration::from_secs(seconds.into()),
                }
                for number in 0..4 {
                    for signal in &held[usize::from(number)] {
                        prop_assert!(!is_confirmed(signal) || server.contains(&id(number)));
                    }
                    prop_assert_eq!(registry.wants(&id(number)), !held[usize::from(number)].is_empty());
                }
            }
            // In the end everybody who still holds on is confirmed, and the server has nobody else.
            if let Some(batch) = out.take() { registry.confirm(&batch.subscribe); }
            let end = now + 4 * LINGER;
            let last = registry.take(end);
            server.extend(last.subscribe.iter().cloned());
            server.retain(|user| !last.unsubscribe.contains(user));
            registry.confirm(&last.subscribe);
            for number in 0..4 {
                let signals = &held[usize::from(number)];
                prop_assert_eq!(server.contains(&id(number)), !signals.is_empty());
                prop_assert!(signals.iter().all(|signal| is_confirmed(signal)));
            }
        }
    }
}
