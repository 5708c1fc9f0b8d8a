//! Connections and answers that end before they are whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

/// A connection that can be reset: the peer then gets an error, and not an orderly end.
pub(super) struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Resettable {
    /// Wraps a connection; setting the flag has it reset when it is dropped.
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<AtomicBool>) {
        let reset = Arc::new(AtomicBool::new(false));
        (Self { stream, reset: Arc::clone(&reset) }, reset)
    }
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::warn!(%error, "a connection is closed in order that was to be reset");
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end that goes first would hide the reset.
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Lets a body through until so many lines have passed, then breaks it off.
pub(super) fn cut_after_lines(body: Body, lines: usize) -> Body {
    let state = Some((body.into_data_stream(), lines));
    Body::from_stream(stream::unfold(state, async |state| {
        let (mut rest, left) = state?;
        if left == 0 {
            return Some((Err(broken_off().await), None));
        }
        let chunk = rest.next().await?;
        Some(match chunk {
            Err(error) => (Err(io::Error::other(error)), None),
            Ok(chunk) => {
                let (chunk, left) = take_lines(chunk, left);
                (Ok(chunk), Some((rest, left)))
            }
        })
    }))
}

/// Lets a body through for a while, then breaks it off if it has not ended.
pub(super) fn cut_after_time(body: Body, time: Duration) -> Body {
    let state = Some((body.into_data_stream(), Instant::now() + time));
    Body::from_stream(stream::unfold(state, async |state| {
        let (mut rest, deadline) = state?;
        match timeout_at(deadline, rest.next()).await {
            Err(_elapsed) => Some((Err(broken_off().await), None)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some((rest, deadline)))),
        }
    }))
}

/// The start of a chunk with at most so many lines, and how many more may come.
fn take_lines(chunk: Bytes, left: usize) -> (Bytes, usize) {
    let ends = chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let ends: Vec<_> = ends.take(left).collect();
    match ends.last() {
        Some(end) if ends.len() == left => (chunk.slice(..*end), 0),
        _ => (chunk, left - ends.len()),
    }
}

/// The error that closes a connection, after the server had its chance to send what it holds.
async fn broken_off() -> io::Error {
    yield_now().await;
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the fault proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: &[&'static str]) -> Body {
        let chunks: Vec<io::Result<Bytes>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    /// What comes out of a body, and whether it was broken off.
    async fn drain(body: Body) -> (String, bool) {
        let mut stream = body.into_data_stream();
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }

    #[tokio::test]
    async fn bodies_are_cut_at_the_end_of_a_line() {
        let check = async |chunks: &[&'static str], lines, expected: (&str, bool)| {
            let (text, cut) = drain(cut_after_lines(body(chunks), lines)).await;
            assert_eq!((text.as_str(), cut), expected, "{chunks:?} after {lines}");
        };
        check(&["a\nb\nc\n"], 0, ("", true)).await;
        check(&["a\nb\nc\n"], 2, ("a\nb\n", true)).await;
        check(&["a\n", "b", "b\nc\n", "d\n"], 2, ("a\nbb\n", true)).await;
        check(&["a\nb\n"], 2, ("a\nb\n", true)).await;
        check(&["a\nb\n"], 3, ("a\nb\n", false)).await;
        check(&[], 1, ("", false)).await;
    }

    #[tokio::test]
    async fn bodies_are_cut_by_time() {
        let endless = Body::from_stream(stream::iter([Ok::<_, io::Error>("a\n")]).chain(stream::pending()));
        let (text, cut) = drain(cut_after_time(endless, Duration::from_millis(10))).await;
        assert_eq!((text.as_str(), cut), ("a\n", true));
        let (text, cut) = drain(cut_after_time(body(&["a\n"]), Duration::from_secs(60))).await;
        assert_eq!((text.as_str(), cut), ("a\n", false));
    }
}
