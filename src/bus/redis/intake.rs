//! What arrives from Redis, by whomever it was sent: decides what of it the node hears.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Channels;
use super::publisher::PROBE_PERIOD;
use super::registry::Registry;
use crate::bus::Question;
use crate::bus::backlog::{Backlog, Handed};
use crate::bus::envelope::{Body, Envelope, EnvelopeError, Letter, Sender};
use crate::bus::questions::Questions;
use crate::event;
use crate::metrics::{BusError, Direction, Dropped, Metrics};
use crate::user::UserId;

/// Nodes whose last number is remembered. Beyond it all are forgotten at once: a repeat of a transient
/// emit may then pass, once.
const REMEMBERED: usize = 1_024;

/// How often the node is told of another epoch, at most: each time it asks the store.
const EPOCH_PAUSE: Duration = Duration::from_secs(1);

/// A node that is not heard of for so long has ended, or has lost its link; the latter says so when it is back. Longer
/// than three of the words that it says.
const SILENCE: Duration = Duration::from_secs(7);

const _: () = assert!(SILENCE.as_secs() > 3 * PROBE_PERIOD.as_secs());

/// How often it is logged that another node has another list, at most.
const LIST_PAUSE: Duration = Duration::from_secs(60);

/// What came that is no message, and is for the connection rather than for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The probe of this number, of this node's own.
    Probe(u64),
    /// Another node could not send something that may be for this one.
    Missed,
}

/// Nothing it is given can make it fail, wait, or grow.
pub(super) struct Intake {
    channels: Channels,
    own: Sender,
    registry: Arc<Registry>,
    /// What this node has asked.
    questions: Arc<Questions>,
    /// The node's one; other links have it too.
    backlog: Arc<Mutex<Backlog>>,
    /// Which list of Redis this node has.
    list: u64,
    list_told: Option<Instant>,
    /// When other nodes were heard of last, by the word that each says with its probes.
    alive: HashMap<u64, Instant>,
    silent_at: Option<Instant>,
    /// The highest number seen of each node.
    last: HashMap<u64, u64>,
    epoch_told: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Intake {
    pub(super) fn new(
        channels: Channels,
        own: Sender,
        registry: Arc<Registry>,
        questions: Arc<Questions>,
        backlog: Arc<Mutex<Backlog>>,
        list: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            channels,
            own,
            registry,
            questions,
            backlog,
            list,
            list_told: None,
            alive: HashMap::new(),
            silent_at: None,
            last: HashMap::new(),
            epoch_told: None,
            metrics,
        }
    }

    pub(super) fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Says to the node that it may have missed something until now.
    pub(super) fn restored(&mut self) {
        self.backlog.lock().restored();
    }

    /// Takes what came on `channel`. Answers what is not for the node; such a word is not counted.
    pub(super) fn take(&mut self, channel: &str, bytes: &[u8]) -> Option<Word> {
        let taken = Envelope::decode(bytes).and_then(|envelope| self.sort(channel, envelope));
        match taken {
            Ok(word) => word,
            Err(EnvelopeError::UnknownVersion) => self.dropped(Dropped::UnknownVersion),
            Err(EnvelopeError::Bad | EnvelopeError::TooLong) => self.dropped(Dropped::BadEnvelope),
        }
    }

    fn sort(
        &mut self,
        channel: &str,
        envelope: Envelope<'_>,
    ) -> Result<Option<Word>, EnvelopeError> {
        let is_own = envelope.node == self.own.node;
        match envelope.body {
            Body::Probe if channel != self.channels.own => Err(EnvelopeError::Bad),
            Body::Probe => Ok(is_own.then_some(Word::Probe(envelope.n))),
            Body::Missed if channel != self.channels.everyone => Err(EnvelopeError::Bad),
            Body::Missed => Ok((!is_own).then_some(Word::Missed)),
            Body::List(_) if channel != self.channels.everyone => Err(EnvelopeError::Bad),
            Body::List(list) => {
                if !is_own {
                    self.hear_of(envelope.node);
                    self.mind_list(list);
                }
                Ok(None)
            }
            Body::Message(_) if is_own => Ok(self.ignored()),
            Body::Message(letter) => self.letter(channel, &envelope, letter).map(|()| None),
            Body::Question { user, number } => {
                let question = Question {
                    asker: envelope.node,
                    number,
                };
                self.question(channel, user, question).map(|()| None)
            }
            Body::Answer { .. } if channel != self.channels.own => Err(EnvelopeError::Bad),
            Body::Answer { number, sockets } => {
                let is_wanted = !is_own && self.questions.answer(number, envelope.node, sockets);
                if is_wanted {
                    self.received();
                } else {
                    self.ignored();
                }
                Ok(None)
            }
        }
    }

    /// Also one about a user who has just left: it has to be answered, if only with nothing.
    fn question(
        &mut self,
        channel: &str,
        user: &str,
        question: Question,
    ) -> Result<(), EnvelopeError> {
        let Some(to) = self.addressee(channel)?.filter(|to| to.as_str() == user) else {
            return Err(EnvelopeError::Bad);
        };
        if question.asker == self.own.node {
            // One receiver is this node itself, which is not elsewhere.
            self.questions.answer(question.number, self.own.node, 0);
            self.ignored();
            return Ok(());
        }
        self.received();
        if self.backlog.lock().asked(to, question) == Handed::Lost {
            self.metrics.bus_errors.of(BusError::Lagged).increment(1);
        }
        Ok(())
    }

    fn letter(
        &mut self,
        channel: &str,
        envelope: &Envelope<'_>,
        letter: Letter<'_>,
    ) -> Result<(), EnvelopeError> {
        let to = self.addressee(channel)?;
        if letter.user != to.as_ref().map(UserId::as_str) {
            return Err(EnvelopeError::Bad);
        }
        if to.as_ref().is_some_and(|user| !self.registry.wants(user)) {
            self.ignored();
            return Ok(());
        }
        // Checks the payload, so that what is forged does not move the sender's number.
        let message = letter.open(to, self.shared_epoch(envelope.epoch))?;
        let is_repeat = self.is_repeat(envelope.node, envelope.n);
        if is_repeat && matches!(message.body, event::Body::Emit(_)) {
            self.ignored();
            return Ok(());
        }
        self.mind_epoch(envelope.epoch);
        self.received();
        if self.backlog.lock().message(message) == Handed::Lost {
            self.metrics.bus_errors.of(BusError::Lagged).increment(1);
        }
        Ok(())
    }

    /// Whom `channel` is for: a user, or everyone.
    fn addressee(&self, channel: &str) -> Result<Option<UserId>, EnvelopeError> {
        if channel == self.channels.everyone {
            return Ok(None);
        }
        let user = channel.strip_prefix(self.channels.users.as_str());
        let user = user.and_then(|user| UserId::try_from(user).ok());
        user.map(Some).ok_or(EnvelopeError::Bad)
    }

    /// Notes that `node` has come to `n`, and answers whether it had been there before.
    fn is_repeat(&mut self, node: u64, n: u64) -> bool {
        if let Some(last) = self.last.get_mut(&node) {
            let is_repeat = n <= *last;
            *last = n.max(*last);
            return is_repeat;
        }
        if self.last.len() >= REMEMBERED {
            self.last.clear();
        }
        self.last.insert(node, n);
        false
    }

    /// Nearly always the present one, which is there already.
    fn shared_epoch(&self, epoch: &str) -> Arc<str> {
        let own = self.own.epoch.get();
        if *own == *epoch { own } else { epoch.into() }
    }

    /// An empty epoch is one that the sender does not know.
    fn mind_epoch(&mut self, epoch: &str) {
        if epoch.is_empty() || *epoch == *self.own.epoch.get() {
            return;
        }
        let now = Instant::now();
        if self.epoch_told.is_none_or(|told| told + EPOCH_PAUSE <= now) {
            self.epoch_told = Some(now);
            self.backlog.lock().other_epoch();
        }
    }

    /// Another node is there.
    fn hear_of(&mut self, node: u64) {
        if self.alive.len() >= REMEMBERED && !self.alive.contains_key(&node) {
            return;
        }
        self.alive.insert(node, Instant::now());
        self.silent_at = self.next_silence();
    }

    fn next_silence(&self) -> Option<Instant> {
        self.alive.values().min().map(|last| *last + SILENCE)
    }

    /// When another node will have been silent for too long, if nothing is heard of it.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        self.silent_at
    }

    /// Forgets the nodes that have been silent for too long; whether there were any. What such a node committed last, it
    /// may not have told anybody.
    pub(super) fn forget_silent(&mut self, now: Instant) -> bool {
        let before = self.alive.len();
        self.alive.retain(|_, last| *last + SILENCE > now);
        self.silent_at = self.next_silence();
        self.alive.len() < before
    }

    /// On a new connection nobody has been heard of.
    pub(super) fn forget_all(&mut self) {
        self.alive.clear();
        self.silent_at = None;
    }

    /// Nodes whose lists differ look for some users on different ones: what is published there comes by the feed.
    fn mind_list(&mut self, list: u64) {
        let now = Instant::now();
        let is_due = self.list_told.is_none_or(|told| told + LIST_PAUSE <= now);
        if list != self.list && is_due {
            self.list_told = Some(now);
            tracing::warn!(
                "another node has another list in REDIS_URL: until all have the same one, sockets hear of some users' messages from the store, up to 5 s later"
            );
        }
    }

    fn received(&self) {
        let received = self.metrics.bus_messages.of(Direction::Received);
        received.increment(1);
    }

    fn ignored(&self) -> Option<Word> {
        self.metrics
            .bus_messages
            .of(Direction::Ignored)
            .increment(1);
        None
    }

    fn dropped(&self, reason: Dropped) -> Option<Word> {
        self.metrics.dropped.of(reason).increment(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::{Incoming, Receiver};
    use crate::event::{Event, Message, Position};

    struct Desk {
        intake: Intake,
        incoming: Receiver,
        registry: Arc<Registry>,
        questions: Arc<Questions>,
        metrics: Arc<Metrics>,
    }

    fn desk() -> Desk {
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::new(Duration::ZERO, Arc::clone(&metrics)));
        let (backlog, incoming) = Backlog::new();
        let questions = Arc::new(Questions::default());
        let own = sender(1, "e1");
        let channels = Channels::new("p", 1);
        Desk {
            intake: Intake::new(
                channels,
                own,
                Arc::clone(&registry),
                Arc::clone(&questions),
                Arc::new(Mutex::new(backlog)),
                7,
                Arc::clone(&metrics),
            ),
            incoming,
            registry,
            questions,
            metrics,
        }
    }

    fn sender(node: u64, epoch: &str) -> Sender {
        Sender {
            node,
            epoch: epoch.into(),
        }
    }

    fn message(to: Option<&str>, seq: Option<u64>) -> Message {
        Message {
            to: to.map(|id| UserId::try_from(id).unwrap()),
            published_at: 1,
            epoch: "e1".into(),
            body: {
                let event = Arc::new(Event::new("greeting", &"hello"));
                match seq {
                    Some(seq) => event::Body::Change(Position { seq, unread: 0 }, event),
                    None => event::Body::Emit(event),
                }
            },
        }
    }

    impl Desk {
        fn heard(&mut self) -> usize {
            std::iter::from_fn(|| self.incoming.try_recv().ok()).count()
        }

        fn counts(&self, series: &str) -> u64 {
            let text = self.metrics.render();
            let line = text.lines().find_map(|line| line.strip_prefix(series));
            line.unwrap().trim().parse().unwrap()
        }
    }

    const BAD: &str = r#"bellhop_messages_dropped_total{reason="bad_envelope"}"#;
    const IGNORED: &str = r#"bellhop_bus_messages_total{direction="ignored"}"#;
    const RECEIVED: &str = r#"bellhop_bus_messages_total{direction="received"}"#;

    #[tokio::test]
    async fn a_node_does_not_hear_itself() {
        let mut desk = desk();
        let bytes = sender(1, "e1").message(1, &message(None, None)).unwrap();
        assert_eq!(desk.intake.take("p:all", &bytes), None);
        assert_eq!((desk.heard(), desk.counts(IGNORED)), (0, 1));

        let probe = sender(1, "e1").probe(7).unwrap();
        assert_eq!(
            desk.intake.take("p:node:0000000000000001", &probe),
            Some(Word::Probe(7))
        );
        assert_eq!(desk.intake.take("p:all", &probe), None);
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 1));
    }

    #[tokio::test]
    async fn that_something_is_missing_is_believed_of_other_nodes_and_not_counted() {
        let mut desk = desk();
        let (own, other) = (sender(1, "e1"), sender(2, "e2"));
        let missed = other.missed(7).unwrap();
        assert_eq!(desk.intake.take("p:all", &missed), Some(Word::Missed));
        assert_eq!(desk.intake.take("p:all", &own.missed(7).unwrap()), None);
        assert_eq!((desk.counts(BAD), desk.counts(IGNORED)), (0, 0));
        assert_eq!(desk.counts(RECEIVED), 0);

        for channel in ["p:u:42", "p:node:0000000000000001"] {
            assert_eq!(desk.intake.take(channel, &missed), None);
        }
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 2));

        // It is no message: one that its node sent before it is still new.
        let bytes = other.message(6, &message(None, None)).unwrap();
        desk.intake.take("p:all", &bytes);
        assert_eq!(desk.counts(RECEIVED), 1);
    }

    #[tokio::test]
    async fn a_list_is_no_message_and_comes_to_everyone() {
        let mut desk = desk();
        let list = sender(2, "e1").list(7, 8).unwrap();
        for _ in 0..2 {
            assert_eq!(desk.intake.take("p:all", &list), None);
        }
        assert!(desk.intake.list_told.is_some());
        assert_eq!(
            (desk.heard(), desk.counts(BAD), desk.counts(RECEIVED)),
            (0, 0, 0)
        );
        assert_eq!(desk.intake.take("p:u:42", &list), None);
        assert_eq!(desk.counts(BAD), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_falls_silent_is_noticed_once() {
        let mut desk = desk();
        let says = |desk: &mut Desk, node| {
            let list = sender(node, "e1").list(7, 7).unwrap();
            assert_eq!(desk.intake.take("p:all", &list), None);
        };
        says(&mut desk, 1);
        assert_eq!(desk.intake.silent_at(), None, "a node does not miss itself");
        says(&mut desk, 2);
        says(&mut desk, 3);
        let start = Instant::now();
        assert_eq!(desk.intake.silent_at(), Some(start + SILENCE));
        tokio::time::advance(SILENCE / 2).await;
        says(&mut desk, 3);
        tokio::time::advance(SILENCE / 2).await;
        assert!(desk.intake.forget_silent(Instant::now()));
        assert!(!desk.intake.forget_silent(Instant::now()));
        assert_eq!(desk.intake.silent_at(), Some(start + SILENCE / 2 + SILENCE));
        desk.intake.forget_all();
        assert_eq!(desk.intake.silent_at(), None);
        assert!(desk.intake.list_told.is_none(), "their list is the same");
    }

    #[tokio::test]
    async fn a_kind_of_a_later_release_is_counted_and_not_heard() {
        let mut desk = desk();
        let mut bytes = sender(2, "e1").missed(7).unwrap();
        for kind in 9..=u8::MAX {
            bytes[1] = kind;
            assert_eq!(desk.intake.take("p:all", &bytes), None);
        }
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 247));
    }

    #[tokio::test]
    async fn a_question_is_for_the_node_on_the_channel_of_its_user_only() {
        let mut desk = desk();
        let alice = UserId::try_from("alice").unwrap();
        let bytes = sender(2, "e1").question(1, &alice, 7).unwrap();
        for channel in ["p:all", "p:u:bob", "p:node:0000000000000001", "elsewhere"] {
            assert_eq!(desk.intake.take(channel, &bytes), None);
        }
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 4));

        // Nobody holds alice here, or not any more: it is asked all the same.
        desk.intake.take("p:u:alice", &bytes);
        let asked = desk.incoming.try_recv().unwrap();
        let expected = Question {
            asker: 2,
            number: 7,
        };
        assert!(
            matches!(asked, Incoming::Asked { user, question } if user == alice && question == expected)
        );
        assert_eq!(desk.counts(RECEIVED), 1);
    }

    #[tokio::test]
    async fn a_node_that_hears_its_own_question_has_answered_it_with_nothing() {
        let mut desk = desk();
        let alice = UserId::try_from("alice").unwrap();
        let asking = desk.questions.ask().unwrap();
        let bytes = sender(1, "e1").question(1, &alice, asking.number());
        asking.posting().reached(1);
        desk.intake.take("p:u:alice", &bytes.unwrap());
        let answers = asking.answers().await;
        assert_eq!((answers.sockets, answers.complete), (0, true));
        assert_eq!((desk.heard(), desk.counts(IGNORED)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waits_for_changes_nothing() {
        let mut desk = desk();
        let asking = desk.questions.ask().unwrap();
        asking.posting().reached(1);
        let own = "p:node:0000000000000001";
        let answer = |node, number| sender(node, "e1").answer(1, number, 5).unwrap();

        desk.intake.take(own, &answer(2, asking.number() ^ 1));
        desk.intake.take(own, &answer(1, asking.number()));
        assert_eq!(desk.counts(IGNORED), 2);
        for channel in ["p:all", "p:u:alice", "p:node:0000000000000002"] {
            desk.intake.take(channel, &answer(2, asking.number()));
        }
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 3));
        let answers = asking.answers().await;
        assert_eq!((answers.sockets, answers.complete), (0, false));

        let asking = desk.questions.ask().unwrap();
        asking.posting().reached(1);
        desk.intake.take(own, &answer(2, asking.number()));
        let answers = asking.answers().await;
        assert_eq!((answers.sockets, answers.complete), (5, true));
        assert_eq!(desk.counts(RECEIVED), 1);
    }

    #[tokio::test]
    async fn a_transient_comes_once_and_a_change_as_often_as_it_is_sent() {
        let mut desk = desk();
        let _held = desk.registry.subscribe(&UserId::try_from("42").unwrap());
        let transient = sender(2, "e1")
            .message(5, &message(Some("42"), None))
            .unwrap();
        let change = sender(2, "e1")
            .message(4, &message(Some("42"), Some(9)))
            .unwrap();
        for bytes in [&transient, &transient, &change, &change] {
            desk.intake.take("p:u:42", bytes);
        }
        assert_eq!((desk.heard(), desk.counts(IGNORED)), (3, 1));
    }

    #[tokio::test]
    async fn the_addressee_is_the_one_of_the_channel() {
        let mut desk = desk();
        let _held = desk.registry.subscribe(&UserId::try_from("42").unwrap());
        let to = |user| sender(2, "e1").message(1, &message(user, None)).unwrap();
        desk.intake.take("p:u:42", &to(Some("43")));
        desk.intake.take("p:u:42", &to(None));
        desk.intake.take("p:all", &to(Some("42")));
        desk.intake.take("elsewhere", &to(Some("42")));
        desk.intake.take("p:u:*", &to(Some("42")));
        assert_eq!((desk.heard(), desk.counts(BAD)), (0, 5));

        desk.intake.take("p:u:43", &to(Some("43")));
        assert_eq!((desk.heard(), desk.counts(IGNORED)), (0, 1));
        desk.intake.take("p:u:42", &to(Some("42")));
        assert_eq!(desk.heard(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn another_epoch_is_told_and_not_too_often() {
        let mut desk = desk();
        let mut n = 0;
        let mut send = |desk: &mut Desk, epoch: &str| {
            n += 1;
            let emit = Message {
                epoch: epoch.into(),
                ..message(None, None)
            };
            let bytes = sender(2, epoch).message(n, &emit).unwrap();
            desk.intake.take("p:all", &bytes);
            std::iter::from_fn(|| desk.incoming.try_recv().ok())
                .filter(|incoming| matches!(incoming, Incoming::OtherEpoch))
                .count()
        };
        assert_eq!(send(&mut desk, "e1"), 0);
        assert_eq!(send(&mut desk, ""), 0);
        assert_eq!(send(&mut desk, "e2"), 1);
        assert_eq!(send(&mut desk, "e3"), 0);
        tokio::time::advance(EPOCH_PAUSE).await;
        assert_eq!(send(&mut desk, "e2"), 1);
    }

    #[tokio::test]
    async fn what_is_remembered_of_nodes_is_bounded() {
        let mut desk = desk();
        for node in 2..5_000 {
            let bytes = sender(node, "e1").message(1, &message(None, None)).unwrap();
            desk.intake.take("p:all", &bytes);
        }
        assert!(desk.intake.last.len() <= REMEMBERED);
    }

    proptest! {
        #[test]
        fn garbage_is_counted_and_not_heard(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut desk = desk();
            prop_assert_eq!(desk.intake.take("p:all", &bytes), None);
            prop_assert_eq!(desk.heard(), 0);
            let unknown = r#"bellhop_messages_dropped_total{reason="unknown_version"}"#;
            prop_assert_eq!(desk.counts(BAD) + desk.counts(unknown), 1);
        }
    }
}
