//! What waits to be sent on a connection, left there by any thread.

use super::Closed;
use super::limits::Limits;
use super::stream::Outgoing;
use crate::replica::Held;
use replication::wire::{Frame, Message};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that are sent together at most, and their bytes: so that what is encoded and not sent is bounded.
const MOST_AT_ONCE: usize = 64;
const MOST_BYTES_AT_ONCE: usize = 1 << 20;
/// Messages that wait for a connection to be made: some seals and the like. What else there was is asked again when it is made.
const MOST_UNCONNECTED: usize = 64;

/// Messages that wait.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    has_some: Notify,
    most_messages: usize,
    most_bytes: usize,
    sent_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Message, Held)>,
    bytes: usize,
    is_connected: bool,
    is_closed: bool,
}

fn bytes_of(message: &Message) -> usize {
    use replication::message::{Body, Reply};
    let data = match message {
        Message::Request(request) => {
            if let Body::Write { data, .. } = &request.body {
                data.len()
            } else {
                0
            }
        }
        Message::Answer(answer) => {
            if let Ok(Reply::Data(data)) = &answer.body {
                data.len()
            } else {
                0
            }
        }
        _ => 0,
    };
    data + 128
}

impl Outbox {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            waiting: Mutex::default(),
            has_some: Notify::new(),
            most_messages: limits.outbox_messages,
            most_bytes: limits.outbox_bytes,
            sent_bytes: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a message. It is dropped if there are too many, or nobody sends any more.
    pub(crate) fn put(&self, message: Message, held: Held) {
        let len = bytes_of(&message);
        let mut waiting = self.lock();
        let most = if waiting.is_connected { self.most_messages } else { self.most_messages.min(MOST_UNCONNECTED) };
        let is_full = waiting.messages.len() >= most || waiting.bytes + len > self.most_bytes;
        if waiting.is_closed || is_full {
            return;
        }
        waiting.bytes += len;
        waiting.messages.push_back((message, held));
        let is_first = waiting.messages.len() == 1;
        drop(waiting);
        if is_first {
            self.has_some.notify_one();
        }
    }

    /// Drops what waits: the connection has ended, or was not made.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        (waiting.bytes, waiting.is_connected) = (0, false);
        let dropped = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(dropped);
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.clear();
    }

    /// Bytes that were sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, batch: &mut Vec<(Message, Held)>) {
        let mut waiting = self.lock();
        let mut bytes = 0;
        while batch.len() < MOST_AT_ONCE && bytes < MOST_BYTES_AT_ONCE {
            let Some((message, held)) = waiting.messages.pop_front() else { return };
            let len = bytes_of(&message);
            waiting.bytes -= len;
            bytes += len;
            batch.push((message, held));
        }
    }

    /// Sends what comes, for as long as the connection lasts.
    pub(super) async fn send_all(&self, to: &mut Outgoing, version: u16) -> Result<(), Closed> {
        let mut batch = Vec::new();
        self.lock().is_connected = true;
        loop {
            self.take(&mut batch);
            if batch.is_empty() {
                self.has_some.notified().await;
                continue;
            }
            let frames: Vec<Frame> = batch.iter().map(|(message, _)| message.encode(version)).collect();
            to.send(&frames).await?;
            let bytes: usize = frames.iter().map(Frame::size).sum();
            self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            // What the requests took of the connection's room is free again.
            batch.clear();
        }
    }
}
