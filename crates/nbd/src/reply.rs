//! Replies to requests as they go over the wire. Pure.
//!
//! A reply is a list of pieces, so that zeros that a client wants to have in full are made only while they are sent.

use crate::device::{Piece, Status};
use crate::limits::MAX_TEXT_LEN;
use crate::wire::{self, chunk, chunk_flag};
use bytes::Bytes;

/// How replies of a connection are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// In chunks, of which a reply may have several, as was agreed; else a header and the bytes.
    pub(crate) structured: bool,
}

impl Style {
    /// That a request was done.
    pub(crate) fn done(self, cookie: u64) -> Vec<Piece> {
        match self.structured {
            true => vec![data(chunk_header(true, chunk::NONE, cookie, 0))],
            false => vec![data(simple_header(0, cookie))],
        }
    }

    /// That a request was not done. Only a structured reply has room for the reason.
    pub(crate) fn error(self, cookie: u64, errno: u32, message: &str) -> Vec<Piece> {
        if !self.structured {
            return vec![data(simple_header(errno, cookie))];
        }
        let message = shortened(message);
        let len = u16::try_from(message.len()).expect("messages have at most 4096 bytes");
        let mut out = chunk_header(true, chunk::ERROR, cookie, 6 + u32::from(len));
        out.extend(errno.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(message.as_bytes());
        vec![data(out)]
    }

    /// The bytes that were read at `offset`; in one chunk if the client wants no other.
    pub(crate) fn read(self, cookie: u64, offset: u64, pieces: Vec<Piece>, in_one: bool) -> Vec<Piece> {
        if !self.structured {
            return [vec![data(simple_header(0, cookie))], pieces].concat();
        }
        if in_one && pieces.len() > 1 {
            let len = narrow(pieces.iter().map(Piece::len).sum());
            return [vec![data(data_header(true, cookie, offset, len))], pieces].concat();
        }
        let (last, mut offset) = (pieces.len().saturating_sub(1), offset);
        let mut out = Vec::with_capacity(2 * pieces.len());
        for (index, piece) in pieces.into_iter().enumerate() {
            let len = piece.len();
            match piece {
                Piece::Data(bytes) => {
                    out.push(data(data_header(index == last, cookie, offset, narrow(len))));
                    out.push(Piece::Data(bytes));
                }
                Piece::Zeros(_) => out.push(data(hole(index == last, cookie, offset, narrow(len)))),
            }
            offset += len;
        }
        out
    }
}

/// The states in each context, by the numbers that the contexts got.
pub(crate) fn block_status(cookie: u64, contexts: &[(u32, Vec<Status>)]) -> Vec<Piece> {
    let mut out = Vec::new();
    for (index, (id, statuses)) in contexts.iter().enumerate() {
        let len = narrow(4 + 8 * statuses.len() as u64);
        out.extend(chunk_header(index + 1 == contexts.len(), chunk::BLOCK_STATUS, cookie, len));
        out.extend(id.to_be_bytes());
        for status in statuses {
            out.extend(narrow(status.len).to_be_bytes());
            out.extend(status.flags.to_be_bytes());
        }
    }
    vec![data(out)]
}

fn data(bytes: Vec<u8>) -> Piece {
    Piece::Data(Bytes::from(bytes))
}

fn narrow(len: u64) -> u32 {
    u32::try_from(len).expect("a reply is not longer than a request can ask for, which is 32 bits wide")
}

fn simple_header(errno: u32, cookie: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.extend(wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
    out.extend(errno.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out
}

fn chunk_header(done: bool, kind: u16, cookie: u64, len: u32) -> Vec<u8> {
    let flags = if done { chunk_flag::DONE } else { 0 };
    let mut out = Vec::with_capacity(32);
    out.extend(wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}

fn data_header(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut out = chunk_header(done, chunk::OFFSET_DATA, cookie, len.saturating_add(8));
    out.extend(offset.to_be_bytes());
    out
}

fn hole(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut out = chunk_header(done, chunk::OFFSET_HOLE, cookie, 12);
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}

/// The begin of a text that is too long for the protocol.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_LEN)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Input;
    use proptest::prelude::*;

    fn flat(pieces: &[Piece]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Data(bytes) => out.extend(bytes),
                Piece::Zeros(len) => out.resize(out.len() + usize::try_from(*len).unwrap(), 0),
            }
        }
        out
    }

    /// What a client makes of a structured reply to a read: the bytes, and how many chunks there were.
    fn receive(mut input: Input<'_>, cookie: u64, offset: u64, len: usize) -> (Vec<u8>, usize) {
        let (mut bytes, mut filled, mut chunks) = (vec![0xee; len], 0, 0);
        loop {
            assert_eq!(input.u32(), Some(wire::STRUCTURED_REPLY_MAGIC));
            let (flags, kind) = (input.u16().unwrap(), input.u16().unwrap());
            assert_eq!(input.u64(), Some(cookie));
            let payload = input.u32().unwrap() as usize;
            let at = usize::try_from(input.u64().unwrap() - offset).unwrap();
            let stretch = match kind {
                chunk::OFFSET_DATA => {
                    let data = input.bytes(payload - 8).unwrap();
                    bytes[at..at + data.len()].copy_from_slice(data);
                    data.len()
                }
                chunk::OFFSET_HOLE => {
                    let hole = input.u32().unwrap() as usize;
                    bytes[at..at + hole].fill(0);
                    hole
                }
                other => panic!("chunk of kind {other}"),
            };
            (filled, chunks) = (filled + stretch, chunks + 1);
            if flags == chunk_flag::DONE {
                assert_eq!((filled, input.rest().len()), (len, 0));
                return (bytes, chunks);
            }
        }
    }

    fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..50).prop_map(|bytes| Piece::Data(bytes.into())),
            (1_u64..50).prop_map(Piece::Zeros),
        ];
        proptest::collection::vec(piece, 1..8)
    }

    proptest! {
        #[test]
        fn a_client_gets_what_was_read(cookie: u64, offset in 0_u64..1 << 60, pieces in any_pieces(), in_one: bool) {
            let expected = flat(&pieces);
            let count = pieces.len();
            let sent = flat(&Style { structured: true }.read(cookie, offset, pieces.clone(), in_one));
            let (bytes, chunks) = receive(Input::new(&sent), cookie, offset, expected.len());
            prop_assert_eq!(&bytes, &expected);
            prop_assert_eq!(chunks, if in_one { 1 } else { count });
            let sent = flat(&Style { structured: false }.read(cookie, offset, pieces, false));
            prop_assert_eq!(&sent[16..], &expected[..]);
            prop_assert_eq!(&sent[..16], &[&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0][..], &cookie.to_be_bytes()].concat()[..]);
        }
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let message = "é".repeat(3000);
        let sent = flat(&Style { structured: true }.error(1, 5, &message));
        assert_eq!(sent.len(), 20 + 6 + 4096);
        assert!(std::str::from_utf8(&sent[26..]).is_ok());
        assert_eq!(flat(&Style { structured: false }.error(1, 5, &message)).len(), 16);
    }

    #[test]
    fn the_states_of_all_contexts_are_one_reply() {
        let status = Status { len: 4096, flags: 3 };
        let sent = flat(&block_status(9, &[(1, vec![status]), (2, vec![status, status])]));
        let expected = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 12][..],
            &[0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3],
            &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 20],
            &[0, 0, 0, 2, 0, 0, 0x10, 0, 0, 0, 0, 3, 0, 0, 0x10, 0, 0, 0, 0, 3],
        ];
        assert_eq!(sent, expected.concat());
    }
}
