//! What kubelets before 1.26 say on a connection, as a server understands it.
//!
//! They name the server by the path of its socket (`:authority: /var/lib/kubelet/plugins/…`), which is no authority, and the HTTP/2 library here refuses such a request before
//! anybody sees it. Nobody here asks who was named; so the name is replaced on the way in by one that can be.
//!
//! A client compresses its headers by a table that both sides keep. The name is replaced where it is told in full, and stays where it was put into the table; since it becomes
//! shorter, nothing falls out of the table earlier than the client thinks, and all that it refers to by number is what it means. What cannot be understood is passed on as it is, for the
//! library to judge.
//!
//! Of HTTP/2 it knows frames (RFC 9113, 4.1 and 6.2), and how fields are written (RFC 7541, 5 and 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What a connection begins with.
const PREFACE: usize = 24;
/// Before each frame: its length in 3 bytes, its type, its flags, and the number of its stream.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes before the fields of a frame with a priority.
const PRIORITY_LEN: usize = 5;
/// The longest frame that is looked into: the longest that a server takes which has not said otherwise.
const MOST_FRAME: usize = 1 << 14;
/// What `:authority` has as its number in the table that every connection begins with.
const AUTHORITY: u64 = 1;
/// The name that is put there.
const NAME: &[u8] = b"localhost";
/// How much is read at once.
const CHUNK: usize = 8 << 10;

/// A connection of which what is read is mended.
pub(crate) struct Mended<T> {
    inner: T,
    mender: Mender,
    /// Mended and not yet read.
    waiting: Vec<u8>,
    read: usize,
}

impl<T> Mended<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, mender: Mender::default(), waiting: Vec::new(), read: 0 }
    }
}

impl<T: Connected> Connected for Mended<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Mended<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.waiting.len() {
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            (this.waiting, this.read) = (Vec::new(), 0);
            if chunk.filled().is_empty() {
                // What was held back of a frame that breaks off is nothing to anybody.
                return Poll::Ready(Ok(()));
            }
            this.mender.feed(chunk.filled(), &mut this.waiting);
        }
        let fits = buf.remaining().min(this.waiting.len() - this.read);
        buf.put_slice(&this.waiting[this.read..this.read + fits]);
        this.read += fits;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Mended<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where in what a client sends the next byte is.
enum At {
    /// In something that is passed on, for so many bytes.
    Passed(usize),
    /// In the head of a frame, or in a frame that is looked into, of so many bytes with its head.
    Held(usize),
}

/// Mends what it is fed, whatever pieces that comes in.
struct Mender {
    at: At,
    held: Vec<u8>,
}

impl Default for Mender {
    fn default() -> Self {
        Self { at: At::Passed(PREFACE), held: Vec::new() }
    }
}

impl Mender {
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Passed(left) => {
                    let (now, later) = bytes.split_at(bytes.len().min(*left));
                    out.extend_from_slice(now);
                    *left -= now.len();
                    bytes = later;
                    if *left == 0 {
                        self.at = At::Held(HEAD);
                    }
                }
                At::Held(wanted) => {
                    let (now, later) = bytes.split_at(bytes.len().min(*wanted - self.held.len()));
                    self.held.extend_from_slice(now);
                    bytes = later;
                    if self.held.len() == *wanted {
                        self.complete(out);
                    }
                }
            }
        }
    }

    /// What was waited for is there: a head, or a frame.
    fn complete(&mut self, out: &mut Vec<u8>) {
        let len = usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
        let is_looked_into = self.held[3] == HEADERS && self.held[4] & END_HEADERS != 0 && len <= MOST_FRAME;
        if is_looked_into && self.held.len() < HEAD + len {
            self.at = At::Held(HEAD + len);
            return;
        }
        let frame = std::mem::take(&mut self.held);
        if is_looked_into {
            out.extend(mended(&frame).unwrap_or(frame));
            self.at = At::Held(HEAD);
        } else {
            out.extend(frame);
            self.at = if len == 0 { At::Held(HEAD) } else { At::Passed(len) };
        }
    }
}

/// A frame of headers with another name of the server; nothing if it cannot be understood.
fn mended(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at_checked(HEAD)?;
    let flags = head[4];
    let has = |flag: u8, len: usize| if flags & flag == 0 { 0 } else { len };
    let before = has(PADDED, 1) + has(PRIORITY, PRIORITY_LEN);
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let end = payload.len().checked_sub(padding)?;
    let fields = fields(payload.get(before..end)?)?;
    let len = u32::try_from(before + fields.len() + padding).ok()?.to_be_bytes();
    Some([&len[1..], &head[3..], &payload[..before], &fields, &payload[end..]].concat())
}

/// Fields of which the one is replaced.
fn fields(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(first) = bytes.first() {
        let field = bytes;
        // How many bits of the first byte are of its number, and whether a text follows.
        let (bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = number(&mut bytes, bits)?;
        if is_literal && name == 0 {
            text(&mut bytes)?;
        }
        let value = field.len() - bytes.len();
        let len = if is_literal { text(&mut bytes)? } else { 0 };
        if is_literal && name == AUTHORITY && len >= NAME.len() {
            out.extend_from_slice(&field[..value]);
            out.push(u8::try_from(NAME.len()).ok()?);
            out.extend_from_slice(NAME);
        } else {
            out.extend_from_slice(&field[..field.len() - bytes.len()]);
        }
    }
    Some(out)
}

/// A number of which the first byte has so many bits.
fn number(bytes: &mut &[u8], bits: u32) -> Option<u64> {
    let mut next = || {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(u64::from(*first))
    };
    let most = (1 << bits) - 1;
    let mut number = next()? & most;
    if number < most {
        return Some(number);
    }
    for shift in (0..28).step_by(7) {
        let byte = next()?;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Passes over a text, compressed or not; how many bytes it takes.
fn text(bytes: &mut &[u8]) -> Option<usize> {
    let len = usize::try_from(number(bytes, 7)?).ok()?;
    *bytes = bytes.get(len..)?;
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// As a kubelet writes them: `:method POST` and `:scheme http` by their numbers, `:path` and `:authority` in full and into the table.
    fn asked(authority: &[u8]) -> Vec<u8> {
        let path = b"/csi.v1.Node/NodeGetInfo";
        let len = |text: &[u8]| u8::try_from(text.len()).unwrap();
        [&[0x83, 0x86, 0x44, len(path)][..], path, &[0x41, len(authority)], authority, &[0x40, 1, b'a', 1, b'b']]
            .concat()
    }

    const SOCKET: &[u8] = b"/var/lib/kubelet/plugins/volumes.orlop.io/csi.sock";

    #[test]
    fn the_name_is_replaced_and_all_else_is_as_it_was_in_whatever_pieces_it_comes() {
        let request = |authority: &[u8]| {
            [
                &[7; PREFACE][..],
                &frame(4, 0, &[]),
                &frame(HEADERS, END_HEADERS, &asked(authority)),
                &frame(0, 1, &[9; 3000]),
                // The name again, by its number, after a change of the size of the table.
                &frame(HEADERS, END_HEADERS, &[0x3f, 0xe1, 0x1f, 0x83, 0xbf]),
                &frame(
                    HEADERS,
                    END_HEADERS | PADDED | PRIORITY,
                    &[&[2, 0, 0, 0, 0, 5][..], &asked(authority), &[0, 0]].concat(),
                ),
            ]
            .concat()
        };
        let (given, expected) = (request(SOCKET), request(NAME));
        for piece in [1, 2, 7, 100, given.len()] {
            let (mut mender, mut out) = (Mender::default(), Vec::new());
            for part in given.chunks(piece) {
                mender.feed(part, &mut out);
            }
            assert_eq!(out, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_on() {
        for fields in [&[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0x41, 60, 1], &[0x40], &[0xff; 9]] {
            assert_eq!(super::fields(fields), None);
            let whole = [&[0; PREFACE][..], &frame(HEADERS, END_HEADERS, fields)].concat();
            let (mut mender, mut out) = (Mender::default(), Vec::new());
            mender.feed(&whole, &mut out);
            assert_eq!(out, whole);
        }
        // More padding than there are bytes.
        assert_eq!(mended(&frame(HEADERS, END_HEADERS | PADDED, &[9, 0x83])), None);
        // A name that is shorter than what would be put there.
        assert_eq!(super::fields(&[0x41, 2, b'/', b'a']), Some(vec![0x41, 2, b'/', b'a']));
    }
}
