//! Connections of kubelets before 1.26, as the HTTP/2 library here understands them.
//!
//! Such a kubelet names a server by the path of its socket (`:authority: /var/lib/…`). That is no name of a server, so the library refuses the request. Nobody reads that name here: it
//! is written over, on its way in, by as many letters as it has bytes, and so nothing else moves. What the two sides remember of it for later becomes no longer by that (the letters of
//! paths are packed into less than a byte each), so nothing is forgotten here that the kubelet refers to.
//!
//! Frames: RFC 9113, 4.1 and 6.2. Fields: RFC 7541, 5 and 6.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes that a connection begins with, before its first frame.
const PREFACE: usize = 24;
/// Bytes before what a frame has: its length in three of them, its type, its flags, and the number of its stream.
const HEAD: usize = 9;
/// The longest frame that a server takes which has not said otherwise.
const MOST_FRAME: usize = 1 << 14;
/// The type of frames with fields, and its flags for bytes that surround these.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The number of `:authority` among the names that every connection knows.
const AUTHORITY: usize = 1;
/// Of the length of a text: its letters are packed.
const PACKED: u8 = 0x80;

/// A connection that is read frame by frame.
pub(crate) struct Understood<T> {
    inner: T,
    /// What is read of it and not handed on.
    held: Vec<u8>,
    /// So much of that, from its begin, can be handed on.
    whole: usize,
    has_begun: bool,
}

impl<T> Understood<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, held: Vec::new(), whole: 0, has_begun: false }
    }

    /// Looks whether what comes next is there, and makes it understandable.
    fn look(&mut self) -> io::Result<()> {
        let len = match (self.has_begun, self.held.get(..HEAD)) {
            (false, _) => PREFACE,
            (true, None) => return Ok(()),
            (true, Some(head)) => HEAD + number(&head[..3]),
        };
        if len > HEAD + MOST_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame has {len} bytes")));
        }
        if let Some(next) = self.held.get_mut(..len) {
            if self.has_begun && next[3] == HEADERS {
                // What is not understood is left to the library.
                let _ = name(next);
            }
            (self.whole, self.has_begun) = (len, true);
        }
        Ok(())
    }
}

/// Big-endian, as all numbers of frames.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Gives a server another name wherever a frame with fields tells it in full.
fn name(frame: &mut [u8]) -> Option<()> {
    let flags = frame[4];
    let padding = if flags & PADDED == 0 { None } else { Some(usize::from(*frame.get(HEAD)?)) };
    let begin = HEAD + usize::from(padding.is_some()) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = frame.len().checked_sub(padding.unwrap_or_default())?;
    let fields = frame.get_mut(begin..end)?;
    let mut at = 0;
    while let Some(first) = fields.get(at) {
        // A field that is known by its number, one that is told and to be remembered, a new bound of what is remembered, or one that is only told.
        let (bits, is_told) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let known = integer(fields, &mut at, bits)?;
        if is_told && known == 0 {
            let len = integer(fields, &mut at, 7)?;
            at += len;
        }
        if is_told {
            let of_len = at;
            let len = integer(fields, &mut at, 7)?;
            if known == AUTHORITY {
                fields.get_mut(at..at + len)?.fill(b'x');
                fields[of_len] &= !PACKED;
            }
            at += len;
        }
    }
    Some(())
}

/// An integer of which the first byte has so many bits.
fn integer(fields: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut next = || {
        let byte = usize::from(*fields.get(*at)?);
        *at += 1;
        Some(byte)
    };
    let first = next()? & most;
    if first < most {
        return Some(first);
    }
    // What is longer than these is longer than a frame.
    let mut integer = most;
    for shift in [0, 7, 14] {
        let byte = next()?;
        integer += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(integer);
        }
    }
    None
}

impl<T: AsyncRead + Unpin> AsyncRead for Understood<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.whole == 0 {
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            this.look()?;
            if this.whole == 0 {
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
                if chunk.filled().is_empty() {
                    // A frame that breaks off is nothing to anybody.
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(chunk.filled());
            }
        }
        let fits = buf.remaining().min(this.whole);
        buf.put_slice(&this.held[..fits]);
        this.held.drain(..fits);
        this.whole -= fits;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Understood<T> {
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

impl<T: Connected> Connected for Understood<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method POST` by its number, a path and the name of the server in full, and a field that nobody knows.
    fn fields(packed: u8, server: &[u8]) -> Vec<u8> {
        let len = u8::try_from(server.len()).expect("a short name") | packed;
        [&[0x83, 0x44, 3, b'/', b'a', b'A', 0x41, len], server, &[0x40, 1, b'a', 1, b'b', 0xbf]].concat()
    }

    #[tokio::test]
    async fn a_server_that_is_named_by_its_path_gets_a_name_and_nothing_else_is_touched() {
        let connection = |packed, server: &[u8]| {
            let of_a_stream = [&[1, 0, 0, 0, 0, 9][..], &fields(packed, server), &[0]].concat();
            let frames = [
                frame(4, 0, &[]),
                frame(HEADERS, 4, &fields(packed, server)),
                // Data that looks like such fields.
                frame(0, 1, &fields(PACKED, b"/data")),
                frame(HEADERS, 4 | PADDED | PRIORITY, &of_a_stream),
            ];
            [&[7; PREFACE][..], &frames.concat()].concat()
        };
        for (packed, server) in [(0, &b"/run/csi.sock"[..]), (PACKED, &[0x63, 0x1d, 0x9a][..])] {
            let given = connection(packed, server);
            let mut read = Vec::new();
            let mut understood = Understood::new(&given[..]);
            understood.read_to_end(&mut read).await.expect("memory can be read");
            assert_eq!(read, connection(0, &vec![b'x'; server.len()]));
        }
    }

    #[tokio::test]
    async fn what_is_not_understood_is_passed_on_and_what_is_too_long_is_refused() {
        for fields in [&[0x41, 0x7f, 0xff][..], &[0x41, 60, 1], &[0x40], &[0xff; 9]] {
            let given = [&[7; PREFACE][..], &frame(HEADERS, 4, fields)].concat();
            let mut read = Vec::new();
            Understood::new(&given[..]).read_to_end(&mut read).await.expect("memory can be read");
            assert_eq!(read, given);
        }
        let long = [&[7; PREFACE][..], &[0xff; HEAD]].concat();
        assert!(Understood::new(&long[..]).read_to_end(&mut Vec::new()).await.is_err());
    }
}
