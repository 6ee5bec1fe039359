//! How a message looks between nodes: a short binary header, then the event as its publisher encoded it.
//!
//! All integers are big-endian. What stands in brackets is there for some kinds only.
//!
//! ```text
//! version u8 · kind u8 · node u64 · n u64 · epoch (u16 length, text)
//!   [ user (u8 length, text; 0 is everyone) · (seq u64 · unread u64) · published at u64
//!     · event name (u16 length, text) · payload (u32 length, JSON) ]
//! ```
//!
//! Decoding is total: whatever arrives is an envelope or an [`EnvelopeError`]. It allocates nothing
//! before the receiver has decided, by the header alone, that it wants the message.

use std::sync::Arc;

use bytes::BufMut;
use serde_json::value::RawValue;

use crate::event::{Event, Message, Position};
use crate::user::UserId;

/// The version this node writes, and the only one it reads. A later version is ignored and counted, so
/// that a rolling deploy may run two: the store brings what was ignored. So is a kind that this release does
/// not know: one that others can do without needs no new version.
const VERSION: u8 = 1;

const CHANGE: u8 = 0;
const TRANSIENT: u8 = 1;
const PROBE: u8 = 2;
const MISSED: u8 = 3;

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
    pub(super) epoch: Arc<str>,
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
}

/// A message whose payload has not been looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter<'a> {
    /// Whom it names; `None` is everyone.
    pub(super) user: Option<&'a str>,
    pub(super) change: Option<Position>,
    published_at: u64,
    name: &'a str,
    payload: &'a str,
}

impl Sender {
    /// The envelope of `message`, as the `n`th of this node.
    pub(super) fn message(&self, n: u64, message: &Message) -> Result<Vec<u8>, EnvelopeError> {
        let payload = message.event.payload.get();
        let kind = if message.change.is_some() {
            CHANGE
        } else {
            TRANSIENT
        };
        let mut bytes = self.header(kind, n, payload.len() + message.event.name.len() + 192)?;
        let user = message.to.as_ref().map_or("", UserId::as_str);
        put(&mut bytes, u8::try_from(user.len()), user, Vec::put_u8)?;
        if let Some(Position { seq, unread }) = message.change {
            bytes.put_u64(seq);
            bytes.put_u64(unread);
        }
        bytes.put_u64(message.published_at);
        let name = &message.event.name;
        put(&mut bytes, u16::try_from(name.len()), name, Vec::put_u16)?;
        let length = u32::try_from(payload.len());
        put(&mut bytes, length, payload, Vec::put_u32)?;
        Ok(bytes)
    }

    pub(super) fn probe(&self, n: u64) -> Result<Vec<u8>, EnvelopeError> {
        self.header(PROBE, n, 0)
    }

    pub(super) fn missed(&self, n: u64) -> Result<Vec<u8>, EnvelopeError> {
        self.header(MISSED, n, 0)
    }

    fn header(&self, kind: u8, n: u64, room: usize) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = Vec::with_capacity(20 + self.epoch.len() + room);
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u64(self.node);
        bytes.put_u64(n);
        let length = u16::try_from(self.epoch.len());
        put(&mut bytes, length, &self.epoch, Vec::put_u16)?;
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
            CHANGE | TRANSIENT => Body::Message(rest.letter(kind == CHANGE)?),
            PROBE => Body::Probe,
            MISSED => Body::Missed,
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
    /// The message itself, for `to`; the one place where the payload is checked to be JSON.
    pub(super) fn open(self, to: Option<UserId>) -> Result<Message, EnvelopeError> {
        if self.user != to.as_ref().map(UserId::as_str) {
            return Err(EnvelopeError::Bad);
        }
        let Ok(payload) = RawValue::from_string(self.payload.to_owned()) else {
            return Err(EnvelopeError::Bad);
        };
        let event = Event {
            name: self.name.to_owned().into(),
            payload,
        };
        Ok(Message {
            to,
            change: self.change,
            published_at: self.published_at,
            event: Arc::new(event),
        })
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn letter(&mut self, is_change: bool) -> Result<Letter<'a>, EnvelopeError> {
        let length = usize::from(self.byte()?);
        let user = self.text(length)?;
        let user = (!user.is_empty()).then_some(user);
        let change = match (is_change, user) {
            (true, Some(_)) => Some(Position {
                seq: self.integer()?,
                unread: self.integer()?,
            }),
            // A place in the order of nobody.
            (true, None) => return Err(EnvelopeError::Bad),
            (false, _) => None,
        };
        let published_at = self.integer()?;
        let length = self.length16()?;
        let name = self.text(length)?;
        let payload = u32::from_be_bytes(self.array()?);
        let Ok(length) = usize::try_from(payload) else {
            return Err(EnvelopeError::Bad);
        };
        let payload = self.text(length)?;
        Ok(Letter {
            user,
            change,
            published_at,
            name,
            payload,
        })
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
        let to = prop::option::of("[A-Za-z0-9._~@:-]{1,128}");
        let position = prop::option::of((any::<u64>(), any::<u64>()));
        let name = "[a-z:-]{0,40}|\\PC{0,40}";
        let payload = "\\PC{0,200}".prop_map(|text| serde_json::json!([text, 1.5, null]));
        (to, position, any::<u64>(), name, payload).prop_map(
            |(to, position, published_at, name, payload)| Message {
                // A change is always a user's.
                change: position
                    .filter(|_| to.is_some())
                    .map(|(seq, unread)| Position { seq, unread }),
                to: to.map(|to| UserId::try_from(to.as_str()).unwrap()),
                published_at,
                event: Arc::new(Event::new(name, &payload)),
            },
        )
    }

    fn opened(bytes: &[u8], to: Option<UserId>) -> Result<Message, EnvelopeError> {
        match Envelope::decode(bytes)?.body {
            Body::Message(letter) => letter.open(to),
            Body::Probe | Body::Missed => Err(EnvelopeError::Bad),
        }
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
            prop_assert_eq!(arrived.change, message.change);
            prop_assert_eq!(arrived.published_at, message.published_at);
            prop_assert_eq!(&arrived.event.name, &message.event.name);
            prop_assert_eq!(arrived.event.payload.get(), message.event.payload.get());
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
        let message = Message {
            to: to("42"),
            change: None,
            published_at: 1,
            event: Arc::new(Event::new("greeting", &"hello")),
        };
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
        let mut bytes = sender().missed(7).unwrap();
        let missed = Envelope {
            node: sender().node,
            n: 7,
            epoch: "epoch-1",
            body: Body::Missed,
        };
        assert_eq!(Envelope::decode(&bytes), Ok(missed));
        for length in 0..bytes.len() {
            assert_eq!(Envelope::decode(&bytes[..length]), Err(EnvelopeError::Bad));
        }
        bytes.push(0);
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
    }

    #[test]
    fn an_unknown_kind_is_a_bad_envelope() {
        let mut bytes = sender().missed(7).unwrap();
        for kind in MISSED + 1..=u8::MAX {
            bytes[1] = kind;
            assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Bad));
        }
    }

    #[test]
    fn a_payload_that_is_not_json_is_refused() {
        let message = Message {
            to: None,
            change: None,
            published_at: 1,
            event: Arc::new(Event::new("greeting", &"hello")),
        };
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
        let message = Message {
            to: None,
            change: None,
            published_at: 1,
            event: Arc::new(Event::new("x".repeat(70_000), &"hello")),
        };
        assert_eq!(sender().message(1, &message), Err(EnvelopeError::TooLong));
    }
}
