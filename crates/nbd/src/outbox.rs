//! Replies on their way to the client.

use crate::reply::Reply;
use crate::stream::Io;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::sync::OwnedSemaphorePermit;

/// Slices that one system call takes; a reply of 4 KiB has two.
const SLICES: usize = 128;
/// Bytes that are put together for a connection that takes one slice at a time, which an encrypted one may be.
const STAGED: usize = 64 << 10;

/// Where replies are left, by any thread.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// The place of the connection among those that a server has at once. Whoever still owes a reply has this too: so a client that leaves
    /// while his requests are worked on has no room for more in a next connection.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: Vec<Reply>,
    /// Set while the task of the connection sleeps. While it runs it looks for itself, and waking it would have it run once more.
    waker: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(place: OwnedSemaphorePermit) -> Self {
        Self { waiting: Mutex::default(), _place: place }
    }

    pub(crate) fn put(&self, reply: Reply) {
        let mut waiting = self.lock();
        waiting.replies.push(reply);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has a task woken by the next reply; not if there is one already.
    pub(crate) fn rest(&self, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        let empty = waiting.replies.is_empty();
        if empty {
            waiting.waker = Some(waker.clone());
        }
        empty
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replies that are being sent, in order.
pub(crate) struct Sending {
    pub(crate) outbox: Arc<Outbox>,
    queue: VecDeque<Reply>,
    /// Bytes of the first reply that are gone.
    sent: usize,
    /// For a connection that takes one slice at a time.
    staged: Option<Vec<u8>>,
}

impl Sending {
    pub(crate) fn new(outbox: Arc<Outbox>, takes_slices: bool) -> Self {
        Self { outbox, queue: VecDeque::new(), sent: 0, staged: (!takes_slices).then(Vec::new) }
    }

    /// Fetches what was left; whether there is anything to send.
    pub(crate) fn collect(&mut self) -> bool {
        let mut waiting = self.outbox.lock();
        waiting.waker = None;
        self.queue.extend(waiting.replies.drain(..));
        !self.queue.is_empty()
    }

    /// Sends some bytes; how many replies are gone now, and how many bytes their requests held.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut dyn Io>,
    ) -> Poll<io::Result<(usize, u64)>> {
        let mut skip = self.sent;
        let rest = self.queue.iter().flat_map(Reply::slices).filter_map(|slice| {
            let gone = skip.min(slice.len());
            skip -= gone;
            (gone < slice.len()).then(|| &slice[gone..])
        });
        let written = match &mut self.staged {
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = slices.iter_mut().zip(rest).map(|(to, from)| *to = IoSlice::new(from)).count();
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            }
            Some(staged) => {
                staged.clear();
                for slice in rest {
                    let part = slice.len().min(STAGED - staged.len());
                    staged.extend_from_slice(&slice[..part]);
                    if staged.len() == STAGED {
                        break;
                    }
                }
                ready!(stream.poll_write(cx, staged))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(self.advance(written)))
    }

    fn advance(&mut self, written: usize) -> (usize, u64) {
        let (mut requests, mut bytes) = (0, 0);
        self.sent += written;
        while let Some(first) = self.queue.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            (requests, bytes) = (requests + 1, bytes + first.held());
            self.queue.pop_front();
        }
        (requests, bytes)
    }
}
