//! Follows the WebSocket frames that a server writes (RFC 6455 section 5.2), and counts the events in them.

/// Events that have left, and the bytes of their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A Socket.IO EVENT in an Engine.IO message: what the account counts. Pings, acks and CONNECT are not.
const EVENT: [u8; 2] = *b"42";

/// What ends the head of the `101` response.
const HEAD_END: [u8; 4] = *b"\r\n\r\n";

/// Follows the frames in a stream of bytes, however it is cut into writes.
#[derive(Debug)]
pub(super) enum Frames {
    /// In the head of the `101` response: so many bytes of its end have passed.
    Response { matched: usize },
    /// In a frame's header: 2 bytes, and up to 8 more of length. A server's frames have no mask.
    Header { bytes: [u8; 10], filled: usize },
    /// In a payload: so much is left of it, and these are its first two bytes.
    Payload {
        length: u64,
        left: u64,
        start: [u8; 2],
    },
}

impl Default for Frames {
    fn default() -> Self {
        Self::Response { matched: 0 }
    }
}

impl Frames {
    const NEXT: Self = Self::Header {
        bytes: [0; 10],
        filled: 0,
    };

    /// Follows `bytes`, and answers which events ended in them.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Written {
        let mut written = Written::default();
        while let Some((&byte, rest)) = bytes.split_first() {
            match self {
                Self::Response { matched } => {
                    let matched = if byte == HEAD_END[*matched] {
                        *matched + 1
                    } else {
                        usize::from(byte == HEAD_END[0])
                    };
                    *self = if matched == HEAD_END.len() {
                        Self::NEXT
                    } else {
                        Self::Response { matched }
                    };
                    bytes = rest;
                }
                Self::Header {
                    bytes: header,
                    filled,
                } => {
                    header[*filled] = byte;
                    *filled += 1;
                    match payload_length(&header[..*filled]) {
                        None => {}
                        Some(0) => *self = Self::NEXT,
                        Some(length) => {
                            *self = Self::Payload {
                                length,
                                left: length,
                                start: [0; 2],
                            }
                        }
                    }
                    bytes = rest;
                }
                Self::Payload {
                    length,
                    left,
                    start,
                } => {
                    bytes = pass_payload(*length, left, start, bytes);
                    if *left == 0 {
                        if *start == EVENT {
                            written.packets += 1;
                            written.bytes += *length;
                        }
                        *self = Self::NEXT;
                    }
                }
            }
        }
        written
    }
}

/// Follows a payload as far as `bytes` go, and answers what comes after it.
fn pass_payload<'a>(length: u64, left: &mut u64, start: &mut [u8; 2], bytes: &'a [u8]) -> &'a [u8] {
    let taken = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let (now, later) = bytes.split_at(taken);
    let passed = usize::try_from(length - *left).unwrap_or(usize::MAX);
    for (slot, byte) in start.iter_mut().skip(passed).zip(now) {
        *slot = *byte;
    }
    *left -= now.len() as u64;
    later
}

/// The payload length that a server's frame header says, once the header is whole (RFC 6455 section 5.2).
fn payload_length(header: &[u8]) -> Option<u64> {
    let short = *header.get(1)? & 0x7f;
    let extended = match short {
        126 => header.get(2..4)?,
        127 => header.get(2..10)?,
        _ => return Some(u64::from(short)),
    };
    Some(
        extended
            .iter()
            .fold(0, |length, &byte| (length << 8) | u64::from(byte)),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) const RESPONSE: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

    pub(in super::super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let length = payload.len() as u64;
        if let Some(short) = u8::try_from(length).ok().filter(|length| *length < 126) {
            frame.push(short);
        } else if let Ok(length) = u16::try_from(length) {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        } else {
            frame.push(127);
            frame.extend(length.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    fn event(length: usize) -> Vec<u8> {
        let mut payload = b"42".to_vec();
        payload.resize(length, b'x');
        payload
    }

    proptest! {
        #[test]
        fn events_are_counted_however_the_stream_is_cut(cuts in prop::collection::vec(1_usize..5_000, 1..40)) {
            let lengths = [2, 40, 125, 126, 127, 65_535, 65_536, 70_000];
            let mut stream = RESPONSE.to_vec();
            for length in lengths {
                stream.extend(frame(1, b"2"));
                stream.extend(frame(1, &event(length)));
                stream.extend(frame(1, b""));
                stream.extend(frame(1, b"430[]"));
                stream.extend(frame(8, b"\x03\xe8"));
            }

            let mut frames = Frames::default();
            let mut total = Written::default();
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                let written = frames.pass(now);
                total.packets += written.packets;
                total.bytes += written.bytes;
                rest = later;
            }

            let bytes = lengths.iter().sum::<usize>() as u64;
            prop_assert_eq!(total, Written { packets: lengths.len() as u64, bytes });
        }
    }
}
