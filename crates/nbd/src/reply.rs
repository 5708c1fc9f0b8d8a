//! Replies to requests as they go over the wire. Pure.
//!
//! A reply is some slices of memory, the largest of which is what a device has read, in place.

use crate::limits::MAX_TEXT_LEN;
use crate::wire::{self, chunk, chunk_flag};
use block::{Buffer, PAGE, Status};
use std::ops::Range;

/// How replies of a connection are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// In chunks, of which a reply may have several, as was agreed; else a header and the bytes.
    pub(crate) structured: bool,
}

/// A reply to one request. Most are a header and bytes that were read; the rest has parts of its own.
#[derive(Debug)]
pub(crate) struct Reply {
    head: Head,
    buffer: Option<Buffer>,
    body: Range<usize>,
    more: Vec<Part>,
    len: usize,
    held: u64,
}

#[derive(Debug)]
enum Part {
    Head(Head),
    /// Bytes of the buffer.
    Body(Range<usize>),
    Bytes(Vec<u8>),
}

impl Reply {
    fn new(head: Head) -> Self {
        let len = head.len;
        Self { head, buffer: None, body: 0..0, more: Vec::new(), len, held: 0 }
    }

    fn with(mut self, part: Part) -> Self {
        self.len += match &part {
            Part::Head(head) => head.len,
            Part::Body(range) => range.len(),
            Part::Bytes(bytes) => bytes.len(),
        };
        self.more.push(part);
        self
    }

    /// All bytes of a buffer, after the header.
    fn with_all(mut self, buffer: Buffer) -> Self {
        self.body = 0..buffer.len();
        self.len += buffer.len();
        self.buffer = Some(buffer);
        self
    }

    /// The same, of a request that holds so many bytes.
    pub(crate) fn of(self, held: u64) -> Self {
        Self { held, ..self }
    }

    /// How many bytes its request holds until it is sent.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// How many bytes it is.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Its bytes in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let bytes: &[u8] = self.buffer.as_deref().unwrap_or_default();
        let more = self.more.iter().map(move |part| match part {
            Part::Head(head) => head.bytes(),
            Part::Body(range) => &bytes[range.clone()],
            Part::Bytes(bytes) => bytes,
        });
        [self.head.bytes(), &bytes[self.body.clone()]].into_iter().chain(more)
    }
}

/// The longest header: that of a hole.
const HEAD_LEN: usize = 32;

/// A header, without an allocation.
#[derive(Debug)]
struct Head {
    bytes: [u8; HEAD_LEN],
    len: usize,
}

impl Head {
    fn new(magic: u32) -> Self {
        Self { bytes: [0; HEAD_LEN], len: 0 }.put(magic.to_be_bytes())
    }

    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
        self
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Style {
    /// That a request was done.
    pub(crate) fn done(self, cookie: u64) -> Reply {
        match self.structured {
            true => Reply::new(chunk_head(true, chunk::NONE, cookie, 0)),
            false => Reply::new(simple_head(0, cookie)),
        }
    }

    /// That a request was not done. Only a structured reply has room for the reason.
    pub(crate) fn error(self, cookie: u64, errno: u32, message: &str) -> Reply {
        if !self.structured {
            return Reply::new(simple_head(errno, cookie));
        }
        let message = shortened(message);
        let len = u16::try_from(message.len()).expect("messages have at most 4096 bytes");
        let head = chunk_head(true, chunk::ERROR, cookie, 6 + u32::from(len));
        let head = head.put(errno.to_be_bytes()).put(len.to_be_bytes());
        Reply::new(head).with(Part::Bytes(message.as_bytes().to_vec()))
    }

    /// The bytes that were read at `offset`; in one chunk if the client wants no other, else without the zeros.
    pub(crate) fn read(self, cookie: u64, offset: u64, buffer: Buffer, in_one: bool) -> Reply {
        if !self.structured {
            return Reply::new(simple_head(0, cookie)).with_all(buffer);
        }
        let runs = if in_one { Vec::new() } else { runs(&buffer) };
        let Some(((first, first_is_hole), rest)) = runs.split_first() else {
            return Reply::new(data_head(true, cookie, offset, buffer.len())).with_all(buffer);
        };
        let head = |last: bool, run: &Range<usize>, hole: bool| {
            let at = offset + run.start as u64;
            if hole { hole_head(last, cookie, at, run.len()) } else { data_head(last, cookie, at, run.len()) }
        };
        let mut reply = Reply::new(head(rest.is_empty(), first, *first_is_hole));
        if !first_is_hole {
            reply = reply.with(Part::Body(first.clone()));
        }
        for (index, (run, hole)) in rest.iter().enumerate() {
            reply = reply.with(Part::Head(head(index + 1 == rest.len(), run, *hole)));
            if !hole {
                reply = reply.with(Part::Body(run.clone()));
            }
        }
        reply.buffer = Some(buffer);
        reply
    }
}

/// Where bytes are zeros for a page or more, and where not; nothing if nowhere.
fn runs(bytes: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        let (start, hole) = (index * PAGE, is_zeros(page));
        let end = start + page.len();
        match runs.last_mut() {
            Some((run, was)) if *was == hole => run.end = end,
            _ => runs.push((start..end, hole)),
        }
    }
    if runs.iter().any(|(_, hole)| *hole) { runs } else { Vec::new() }
}

/// Looks at 64 bytes at once, and at no more of them than it must.
fn is_zeros(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<64>();
    let line_is = |line: &[u8; 64]| line.iter().fold(0, |all, byte| all | byte) == 0;
    lines.iter().all(line_is) && rest.iter().all(|byte| *byte == 0)
}

/// The states in each context, by the numbers that the contexts got.
pub(crate) fn block_status(cookie: u64, contexts: &[(u32, Vec<Status>)]) -> Reply {
    let chunks = contexts.iter().enumerate().map(|(index, (id, statuses))| {
        let last = index + 1 == contexts.len();
        let head = chunk_head(last, chunk::BLOCK_STATUS, cookie, narrow(4 + 8 * statuses.len())).put(id.to_be_bytes());
        let mut states = Vec::with_capacity(8 * statuses.len());
        for status in statuses {
            let len = u32::try_from(status.len).expect("it lies within a request, which is 32 bits wide");
            states.extend(len.to_be_bytes());
            states.extend(status.flags.to_be_bytes());
        }
        (head, states)
    });
    let mut reply: Option<Reply> = None;
    for (head, bytes) in chunks {
        let begun = match reply {
            None => Reply::new(head),
            Some(reply) => reply.with(Part::Head(head)),
        };
        reply = Some(begun.with(Part::Bytes(bytes)));
    }
    reply.expect("a client may only ask when it has contexts")
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a reply is not longer than a request can ask for, which is 32 bits wide")
}

fn simple_head(errno: u32, cookie: u64) -> Head {
    Head::new(wire::SIMPLE_REPLY_MAGIC).put(errno.to_be_bytes()).put(cookie.to_be_bytes())
}

fn chunk_head(done: bool, kind: u16, cookie: u64, len: u32) -> Head {
    let flags = if done { chunk_flag::DONE } else { 0 };
    let head = Head::new(wire::STRUCTURED_REPLY_MAGIC).put(flags.to_be_bytes()).put(kind.to_be_bytes());
    head.put(cookie.to_be_bytes()).put(len.to_be_bytes())
}

fn data_head(done: bool, cookie: u64, offset: u64, len: usize) -> Head {
    chunk_head(done, chunk::OFFSET_DATA, cookie, narrow(len).saturating_add(8)).put(offset.to_be_bytes())
}

fn hole_head(done: bool, cookie: u64, offset: u64, len: usize) -> Head {
    let head = chunk_head(done, chunk::OFFSET_HOLE, cookie, 12);
    head.put(offset.to_be_bytes()).put(narrow(len).to_be_bytes())
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

    fn flat(reply: &Reply) -> Vec<u8> {
        let flat = reply.slices().collect::<Vec<_>>().concat();
        assert_eq!(flat.len(), reply.len());
        flat
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

    /// Pages of which some are zeros, and a part of one.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let pages = proptest::collection::vec(any::<bool>(), 1..12);
        (pages, 1..=PAGE).prop_map(|(pages, rest)| {
            let mut bytes: Vec<u8> = pages.iter().flat_map(|zero| vec![u8::from(!zero); PAGE]).collect();
            bytes.truncate(bytes.len() - PAGE + rest);
            bytes
        })
    }

    proptest! {
        #[test]
        fn a_client_gets_what_was_read(cookie: u64, offset in 0_u64..1 << 60, bytes in any_bytes(), in_one: bool) {
            let read = |structured, in_one| Style { structured }.read(cookie, offset, Buffer::copy_of(&bytes), in_one);
            let sent = flat(&read(true, in_one));
            let (got, chunks) = receive(Input::new(&sent), cookie, offset, bytes.len());
            prop_assert_eq!(&got, &bytes);
            let changes = bytes.chunks(PAGE).map(|page| page[0]).collect::<Vec<_>>().windows(2).filter(|p| p[0] != p[1]).count();
            prop_assert_eq!(chunks, if in_one { 1 } else { changes + 1 });
            let sent = flat(&read(false, false));
            prop_assert_eq!(&sent[16..], &bytes[..]);
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
