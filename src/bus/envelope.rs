//! How a message looks between nodes: a short binary header, then the event as its publisher encoded it.
//!
//! All integers are big-endian. What stands in brackets is there for some kinds only.
//!
//! ```text
//! version u8 · kind u8 · node u64 · n u64 · epoch (u16 length, text)
//!   [ user (u8 length, text; 0 is everyone) · published at u64
//!     · (seq u64) · (unread u64) · (valid after u64) · (event name (u16 length, text) · payload (u32 length, JSON)) ]
//!   [ a question: user (u8 length, text) · number u64 ]
//!   [ an answer: number u64 · sockets u64 ]
//!   [ a list: number u64 ]
//! ```
//!
//! Decoding is total: whatever arrives is an envelope or an [`EnvelopeError`]. It allocates nothing
//! before the receiver has decided, by the header alone, that it wants the message.

use std::sync::Arc;

use bytes::BufMut;
use serde_json::value::RawValue;

use crate::epoch::Epoch;
use crate::event::{self, Event, Message, Position};
use crate::user::UserId;

/// The version this node writes, and the only one it reads. A later version is ignored and counted, so
/// that a rolling deploy may run two: the store brings what was ignored. So is a kind that this release does
/// not know: one that others can do without needs no new version.
///
/// 1 had a change's time behind its place; it was never in a release.
const VERSION: u8 = 2;

const CHANGE: u8 = 0;
const TRANSIENT: u8 = 1;
const PROBE: u8 = 2;
const MISSED: u8 = 3;
const REVOKED: u8 = 4;
const REACHED: u8 = 5;
const QUESTION: u8 = 6;
const ANSWER: u8 = 7;
const LIST: u8 = 8;

/// Why bytes are not an envelope, or a message has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvelopeError {
    /// A node of another release wrote it.
    #[error("an envelope of another version")]
    UnknownVersion,
    #[error("not an envelope")]
    Bad,
    /// The event's name, its payload or the epoch is longer than its length field can say.
    #[error("too long for an envelope")]
    TooLong,
}

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) node: u64,
    pub(super) epoch: Epoch,
}

/// What arrived, still borrowed from the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) node: u64,
    /// Counts what `node` sent, rising by at least one from one envelope to the next.
    pub(super) n: u64,
    pub(super) epoch: &'a str,
    pub(super) body: Body<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Message(Letter<'a>),
    /// A node asks whether it hears itself.
    Probe,
    /// A node says that it could not send something: whoever receives from it has to ask the store.
    Missed,
    /// A node asks how many sockets of a user the receiver holds.
    Question {
        user: &'a str,
        number: u64,
    },
    /// A node says which list of Redis it has.
    List(u64),
    /// So many are here, to the question of that number.
    Answer {
        number: u64,
        sockets: u64,
    },
}

/// A message whose payload has not been looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter<'a> {
    /// Whom it names; `None` is everyone.
    pub(super) user: Option<&'a str>,
    published_at: u64,
    text: Text<'a>,
}

/// What a letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text<'a> {
    Change(Position, Words<'a>),
    Emit(Words<'a>),
    Revoked(Position, u64),
    Reached(u64),
}

/// An event as it was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words<'a> {
    name: &'a str,
    payload: &'a str,
}

impl Sender {
    /// The envelope of `message`, as the `n`th of this node.
    pub(super) fn message(&self, n: u64, message: &Message) -> Result<Vec<u8>, EnvelopeError> {
        let kind = match message.body {
            event::Body::Change(..) => CHANGE,
            event::Body::Emit(_) => TRANSIENT,
            event::Body::Revoked(..) => REVOKED,
            event::Body::Reached(_) => REACHED,
        };
        let event = message.body.event();
        let length = event.map_or(0, |event| event.name.len() + event.payload.get().len());
        let mut bytes = self.header(kind, n, &message.epoch, length + 192)?;
        let user = message.to.as_ref().map_or("", UserId::as_str);
        put(&mut bytes, u8::try_from(user.len()), user, Vec::put_u8)?;
        bytes.put_u64(message.published_at);
        if let Some(Position { seq, unread }) = message.body.position() {
            bytes.put_u64(seq);
            bytes.put_u64(unread);
        }
        if let event::Body::Revoked(_, number) | event::Body::Reached(number) = message.body {
            bytes.put_u64(number);
        }
        if let Some(Event { name, payload }) = event.map(AsRef::as_ref) {
            put(&mut bytes, u16::try_from(name.len()), name, Vec::put_u16)?;
            let payload = payload.get();
            let length = u32::try_from(payload.len());
            put(&mut bytes, length, payload, Vec::put_u32)?;
        }
        Ok(bytes)
    }

    pub(super) fn probe(&self, n: u64) -> Result<Vec<u8>, EnvelopeError> {
        self.header(PROBE, n, &self.epoch.get(), 0)
    }

    pub(super) fn missed(&self, n: u64) -> Result<Vec<u8>, EnvelopeError> {
        self.header(MISSED, n, &self.epoch.get(), 0)
    }

    pub(super) fn list(&self, n: u64, list: u64) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = self.header(LIST, n, &self.epoch.get(), 8)?;
        bytes.put_u64(list);
        Ok(bytes)
    }

    pub(super) fn question(
        &self,
        n: u64,
        user: &UserId,
        number: u64,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = self.header(QUESTION, n, &self.epoch.get(), 160)?;
        let user = user.as_str();
        put(&mut bytes, u8::try_from(user.len()), user, Vec::put_u8)?;
        bytes.put_u64(number);
        Ok(bytes)
    }

    pub(super) fn answer(
        &self,
        n: u64,
        number: u64,
        sockets: u64,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = self.header(ANSWER, n, &self.epoch.get(), 16)?;
        bytes.put_u64(number);
        bytes.put_u64(sockets);
        Ok(bytes)
    }

    fn header(&self, kind: u8, n: u64, epoch: &str, room: usize) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = Vec::with_capacity(20 + epoch.len() + room);
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u64(self.node);
        bytes.put_u64(n);
        put(&mut bytes, u16::try_from(epoch.len()), epoch, Vec::put_u16)?;
        Ok(bytes)
    }
}

fn put<L, E>(
    bytes: &mut Vec<u8>,
    length: Result<L, E>,
    text: &str,
    put_length: fn(&mut Vec<u8>, L),
) -> Result<(), EnvelopeError> {
    let Ok(length) = length else {
        return Err(EnvelopeError::TooLong);
    };
    put_length(bytes, length);
    bytes.put_slice(text.as_bytes());
    Ok(())
}

impl<'a> Envelope<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut rest = Rest(bytes);
        if rest.byte()? != VERSION {
            return Err(EnvelopeError::UnknownVersion);
        }
        let kind = rest.byte()?;
        let (node, n) = (rest.integer()?, rest.integer()?);
        let length = rest.length16()?;
        let epoch = rest.text(length)?;
        let body = match kind {
            CHANGE | TRANSIENT | REVOKED | REACHED => Body::Message(rest.letter(kind)?),
            PROBE => Body::Probe,
            MISSED => Body::Missed,
            LIST => Body::List(rest.integer()?),
            QUESTION => rest.question()?,
            ANSWER => Body::Answer {
                number: rest.integer()?,
                sockets: rest.integer()?,
            },
            _ => return Err(EnvelopeError::Bad),
        };
        rest.ends()?;
        Ok(Self {
            node,
            n,
            epoch,
            body,
        })
    }
}

impl Letter<'_> {
    /// The message itself, for `to` and of `epoch`; the one place where the payload is checked to be JSON.
    pub(super) fn open(
        self,
        to: Option<UserId>,
        epoch: Arc<str>,
    ) -> Result<Message, EnvelopeError> {
        if self.user != to.as_ref().map(UserId::as_str) {
            return Err(EnvelopeError::Bad);
        }
        let body = match self.text {
            Text::Change(position, words) => event::Body::Change(position, words.event()?),
            Text::Emit(words) => event::Body::Emit(words.event()?),
            Text::Revoked(position, valid_after) => event::Body::Revoked(position, valid_after),
            Text::Reached(seq) => event::Body::Reached(seq),
        };
        Ok(Message {
            to,
            published_at: self.published_at,
            epoch,
            body,
        })
    }
}

impl Words<'_> {
    fn event(self) -> Result<Arc<Event>, EnvelopeError> {
        if !event::is_plain(self.name) {
            return Err(EnvelopeError::Bad);
        }
        let Ok(payload) = RawValue::from_string(self.payload.to_owned()) else {
            return Err(EnvelopeError::Bad);
        };
        let name = self.name.to_owned().into();
        Ok(Arc::new(Event { name, payload }))
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn letter(&mut self, kind: u8) -> Result<Letter<'a>, EnvelopeError> {
        let length = usize::from(self.byte()?);
        let user = self.text(length)?;
        let user = (!user.is_empty()).then_some(user);
        if user.is_none() && kind != TRANSIENT {
            // A place in the order of nobody.
            return Err(EnvelopeError::Bad);
        }
        let published_at = self.integer()?;
        let text = match kind {
            CHANGE => Text::Change(self.position()?, self.words()?),
            REVOKED => Text::Revoked(self.position()?, self.integer()?),
            REACHED => Text::Reached(self.integer()?),
            _ => Text::Emit(self.words()?),
        };
        Ok(Letter {
            user,
            published_at,
            text,
        })
    }

    fn question(&mut self) -> Result<Body<'a>, EnvelopeError> {
        let length = usize::from(self.byte()?);
        Ok(Body::Question {
            user: self.text(length)?,
            number: self.integer()?,
        })
    }

    fn position(&mut self) -> Result<Position, EnvelopeError> {
        Ok(Position {
            seq: self.integer()?,
            unread: self.integer()?,
        })
    }

    fn words(&mut self) -> Result<Words<'a>, EnvelopeError> {
        let length = self.length16()?;
        let name = self.text(length)?;
        let payload = u32::from_be_bytes(self.array()?);
        let Ok(length) = usize::try_from(payload) else {
            return Err(EnvelopeError::Bad);
        };
        let payload = self.text(length)?;
        Ok(Words { name, payload })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(EnvelopeError::Bad)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, EnvelopeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn integer(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn length16(&mut self) -> Result<usize, EnvelopeError> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, EnvelopeError> {
        let (text, rest) = self.0.split_at_checked(length).ok_or(EnvelopeError::Bad)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_not_utf8| EnvelopeError::Bad)
    }

    fn ends(&self) -> Result<(), EnvelopeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(EnvelopeError::Bad)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender() -> Sender {
        Sender {
            node: 0x0123_4567_89AB_CDEF,
            epoch: "epoch-1".into(),
        }
    }

    fn messages() -> impl Strategy<Value = Message> {
        let name = r"[a-z:-]{0,40}|[!#-\[\]-~]{0,40}";
        let payload = "\\PC{0,200}".prop_map(|text| serde_json::json!([text, 1.5, null]));
        let event =
            (name, payload).prop_map(|(name, payload)| Arc::new(Event::new(name, &payload)));
        let position =
            (any::<u64>(), any::<u64>()).prop_map(|(seq, unread)| Position { seq, unread });
        let body = prop_oneof![
            (position.clone(), event.clone())
                .prop_map(|(at, event)| event::Body::Change(at, event)),
            event.prop_map(event::Body::Emit),
            (position, any::<u64>()).prop_map(|(at, time)| event::Body::Revoked(at, time)),
            any::<u64>().prop_map(event::Body::Reached),
        ];
        let to = prop::option::of("[A-Za-z0-9._~@:-]{1,128}");
        (to, any::<u64>(), body).prop_map(|(to, published_at, body)| Message {
            // Only a transient emit is for everyone.
            to: to
                .or_else(|| (!matches!(body, event::Body::Emit(_))).then(|| "42".to_owned()))
                .map(|to| UserId::try_from(to.as_str()).unwrap()),
            published_at,
            epoch: "epoch-1".into(),
            body,
        })
    }

    fn greeting(to: Option<UserId>, event: Event) -> Message {
        Message {
            to,
            published_at: 1,
            epoch: "epoch-1".into(),
            body: event::Body::Emit(Arc::new(event)),
        }
    }

    fn opened(bytes: &[u8], to: Option<UserId>) -> Result<Message, EnvelopeError> {
        match Envelope::decode(bytes)?.body {
            Body::Message(letter) => letter.open(to, "epoch-1".into()),
            Body::Probe
            | Body::Missed
            | Body::List(_)
            | Body::Question { .. }
            | Body::Answer { .. } => Err(EnvelopeError::Bad),
        }
    }

    #[test]
    fn a_name_that_would_end_its_text_in_json_is_refused() {
        for name in ["\"", "a\",\"b", "\\", "a b", "\n", "é"] {
            let message = greeting(None, Event::new(name, &()));
            let bytes = sender().message(1, &message).unwrap();
            assert_eq!(opened(&bytes, None).unwrap_err(), EnvelopeError::Bad);
        }
    }

    /// Nothing that is shorter, or longer, is an envelope.
    fn is_exact(bytes: &[u8]) {
        for length in 0..bytes.len() {
            assert_eq!(Envelope::decode(&bytes[..length]), Err(EnvelopeError::Bad));
        }
        let mut bytes = bytes.to_vec();
        bytes.push(0);
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
    }

    proptest! {
        #[test]
        fn what_was_sent_is_what_arrives(message in messages(), n in any::<u64>()) {
            let bytes = sender().message(n, &message).unwrap();
            let envelope = Envelope::decode(&bytes).unwrap();
            prop_assert_eq!(envelope.node, sender().node);
            prop_assert_eq!(envelope.n, n);
            prop_assert_eq!(envelope.epoch, "epoch-1");

            let arrived = opened(&bytes, message.to.clone()).unwrap();
            prop_assert_eq!(arrived.to, message.to);
            prop_assert_eq!(arrived.published_at, message.published_at);
            prop_assert_eq!(format!("{:?}", arrived.body), format!("{:?}", message.body));
        }

        #[test]
        fn any_bytes_are_an_envelope_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _checked = opened(&bytes, None);
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
                let _checked = opened(&bytes, None);
            }
        }

        #[test]
        fn a_part_of_an_envelope_is_an_error(message in messages()) {
            let bytes = sender().message(1, &message).unwrap();
            for length in 0..bytes.len() {
                prop_assert!(Envelope::decode(&bytes[..length]).is_err(), "{length}");
            }
        }

        #[test]
        fn a_flipped_byte_is_an_envelope_or_an_error(message in messages(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = sender().message(1, &message).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _checked = opened(&bytes, message.to);
        }
    }

    #[test]
    fn an_envelope_for_somebody_else_is_refused() {
        let to = |id| Some(UserId::try_from(id).unwrap());
        let message = greeting(to("42"), Event::new("greeting", &"hello"));
        let bytes = sender().message(1, &message).unwrap();

        assert!(opened(&bytes, to("42")).is_ok());
        assert_eq!(opened(&bytes, to("43")).unwrap_err(), EnvelopeError::Bad);
        assert_eq!(opened(&bytes, None).unwrap_err(), EnvelopeError::Bad);
    }

    #[test]
    fn another_version_is_not_a_bad_envelope() {
        let mut bytes = sender().probe(7).unwrap();
        assert_eq!(Envelope::decode(&bytes).unwrap().body, Body::Probe);

        bytes.push(0);
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
        bytes[0] = VERSION + 1;
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::UnknownVersion));
        assert_eq!(Envelope::decode(&[]), Err(EnvelopeError::Bad));
    }

    #[test]
    fn a_node_says_that_something_is_missing_by_the_header_alone() {
        let bytes = sender().missed(7).unwrap();
        let missed = Envelope {
            node: sender().node,
            n: 7,
            epoch: "epoch-1",
            body: Body::Missed,
        };
        assert_eq!(Envelope::decode(&bytes), Ok(missed));
        is_exact(&bytes);
    }

    #[test]
    fn a_list_is_a_number() {
        let bytes = sender().list(7, u64::MAX).unwrap();
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!((envelope.n, envelope.body), (7, Body::List(u64::MAX)));
        is_exact(&bytes);
    }

    #[test]
    fn a_question_and_an_answer_say_which() {
        let user = UserId::try_from("x".repeat(128).as_str()).unwrap();
        let bytes = sender().question(7, &user, u64::MAX).unwrap();
        let question = Body::Question {
            user: user.as_str(),
            number: u64::MAX,
        };
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!((envelope.n, envelope.body), (7, question));
        is_exact(&bytes);

        let bytes = sender().answer(8, u64::MAX, 3).unwrap();
        let answer = Body::Answer {
            number: u64::MAX,
            sockets: 3,
        };
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!((envelope.n, envelope.body), (8, answer));
        is_exact(&bytes);
    }

    #[test]
    fn an_unknown_kind_is_a_bad_envelope() {
        let mut bytes = sender().missed(7).unwrap();
        for kind in LIST + 1..=u8::MAX {
            bytes[1] = kind;
            assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
        }
    }

    #[test]
    fn a_payload_that_is_not_json_is_refused() {
        let message = greeting(None, Event::new("greeting", &"hello"));
        let mut bytes = sender().message(1, &message).unwrap();
        *bytes.last_mut().unwrap() = b'x';
        assert_eq!(opened(&bytes, None).unwrap_err(), EnvelopeError::Bad);
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        let mut bytes = sender().probe(7).unwrap();
        bytes[1] = TRANSIENT;
        bytes.extend([0; 9]);
        bytes.extend([0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
    }

    #[test]
    fn what_no_length_field_can_say_is_not_sent() {
        let message = greeting(None, Event::new("x".repeat(70_000), &"hello"));
        assert_eq!(sender().message(1, &message), Err(EnvelopeError::TooLong));
    }
}
