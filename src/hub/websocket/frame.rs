//! WebSocket frames (RFC 6455 section 5): those of a client taken apart, and the header of a server's.

/// What a frame carries (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn read(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A whole frame of a client, its payload unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Nothing of its message comes after it.
    pub(super) is_last: bool,
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

/// What a client may not send, with the status code of RFC 6455 section 7.4.1 that it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    Protocol,
    NotText,
    TooLong,
}

impl Violation {
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Protocol => 1_002,
            Self::NotText => 1_007,
            Self::TooLong => 1_009,
        }
    }
}

const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const MASK: usize = 4;

/// The longest payload of a control frame, and of a frame whose header says its length in 7 bits.
const SHORT: usize = 125;

/// Takes the frame that `bytes` begin with out of them; `None`: it is not whole yet. A message's payload may have
/// `room` bytes more at most: what a header announces beyond that is refused before it comes.
pub(super) fn take(bytes: &mut Vec<u8>, room: usize) -> Result<Option<Frame>, Violation> {
    let &[first, second, ..] = bytes.as_slice() else {
        return Ok(None);
    };
    let opcode = Opcode::read(first).ok_or(Violation::Protocol)?;
    let is_last = first & LAST != 0;
    let is_short = usize::from(second & !MASKED) <= SHORT;
    // No extension was agreed upon, and a client's frame is masked (RFC 6455 sections 5.2 and 5.1).
    let is_sound = first & RESERVED == 0 && second & MASKED != 0;
    if !is_sound || (opcode.is_control() && !(is_last && is_short)) {
        return Err(Violation::Protocol);
    }
    let Some((length, start)) = length(bytes, second & !MASKED) else {
        return Ok(None);
    };
    if !opcode.is_control() && length > room as u64 {
        return Err(Violation::TooLong);
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start.saturating_add(MASK).saturating_add(length);
    let Some(masked) = bytes.get(start..end) else {
        return Ok(None);
    };
    let payload = unmask(masked);
    bytes.drain(..end);
    Ok(Some(Frame {
        is_last,
        opcode,
        payload,
    }))
}

/// The payload's length, and where what comes after it begins; `None`: that has not all come.
fn length(bytes: &[u8], short: u8) -> Option<(u64, usize)> {
    let end = match short {
        126 => 4,
        127 => 10,
        short => return Some((u64::from(short), 2)),
    };
    let digits = bytes.get(2..end)?.iter();
    let length = digits.fold(0, |length, byte| (length << 8) | u64::from(*byte));
    Some((length, end))
}

/// A payload, from its mask and itself (RFC 6455 section 5.3).
fn unmask(masked: &[u8]) -> Vec<u8> {
    let (mask, masked) = masked.split_at(MASK);
    let bytes = masked.iter().zip(mask.iter().cycle());
    bytes.map(|(byte, mask)| byte ^ mask).collect()
}

/// Writes the header of a server's frame, which is a message of its own and has no mask.
pub(super) fn write_header(into: &mut Vec<u8>, opcode: Opcode, length: usize) {
    into.push(LAST | opcode.bits());
    if let Some(short) = u8::try_from(length).ok().filter(|_| length <= SHORT) {
        into.push(short);
    } else if let Ok(length) = u16::try_from(length) {
        into.push(126);
        into.extend_from_slice(&length.to_be_bytes());
    } else {
        into.push(127);
        into.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as clients write it.
    pub(in super::super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0xa2, 0x33, 0xf4];
        let mut frame = Vec::new();
        write_header(&mut frame, Opcode::Text, payload.len());
        frame[0] = first;
        frame[1] |= MASKED;
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        frame
    }

    /// The example of RFC 6455 section 5.7.
    #[test]
    fn the_masked_hello_of_the_standard_is_read() {
        let mut bytes = vec![
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let frame = take(&mut bytes, 5).unwrap().unwrap();
        assert_eq!(frame.payload, b"Hello");
        assert!(frame.is_last && frame.opcode == Opcode::Text && bytes.is_empty());
    }

    #[test]
    fn headers_say_the_length_in_as_few_bytes_as_they_can() {
        for (length, header) in [
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut written = Vec::new();
            write_header(&mut written, Opcode::Text, length);
            assert_eq!(written, header);
        }
    }

    #[test]
    fn what_a_client_may_not_send_is_told_by_its_header() {
        use Violation::{Protocol, TooLong};
        for (first, second, violation) in [
            (0x81, 0x05, Protocol), // not masked
            (0xc1, 0x85, Protocol), // compressed, which was not agreed upon
            (0x83, 0x85, Protocol), // no such opcode
            (0x09, 0x85, Protocol), // a control frame in parts
            (0x89, 0xfe, Protocol), // a long control frame
            (0x81, 0x8b, TooLong),
        ] {
            let refused = take(&mut vec![first, second], 10);
            assert_eq!(refused, Err(violation), "{first:#x} {second:#x}");
        }
        let mut endless = vec![0x82, 0xff];
        endless.extend([0xff; 8]);
        assert_eq!(take(&mut endless, usize::MAX), Ok(None));
        assert_eq!(take(&mut endless, 10), Err(TooLong));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            size in 1_usize..90,
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| masked(0x82, payload)).collect();
            let (mut bytes, mut read) = (Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                bytes.extend_from_slice(piece);
                while let Some(frame) = take(&mut bytes, 300).unwrap() {
                    read.push(frame.payload);
                }
            }
            prop_assert_eq!(read, payloads);
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut left = bytes.clone();
            if let Ok(Some(frame)) = take(&mut left, 32) {
                prop_assert!(frame.payload.len() <= SHORT);
                prop_assert!(left.len() < bytes.len());
            }
        }
    }
}
