//! Asking a device what a request asks, and looking that the device did what the trait says.

use crate::handshake::Ready;
use crate::intake::Incoming;
use crate::outbox::Outbox;
use crate::reply::{Reply, Style, block_status};
use crate::request::{Command, Refusal};
use block::{Buffer, Done, Failure, FailureKind, Pool, Status};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// What the requests of a connection are worked on with.
pub(crate) struct Executor {
    pub(crate) ready: Arc<Ready>,
    pub(crate) style: Style,
    pub(crate) pool: Pool,
    pub(crate) outbox: Arc<Outbox>,
}

/// Where the answer to a request goes.
#[derive(Clone)]
struct Answer {
    outbox: Arc<Outbox>,
    style: Style,
    cookie: u64,
    /// Bytes that the request holds until it is answered.
    held: u64,
}

/// The states in one of the contexts of a connection.
type Found = (u32, Result<Vec<Status>, Failure>);

impl Answer {
    fn give(self, result: Result<Reply, Failure>) {
        let reply = result
            .unwrap_or_else(|failure| self.style.error(self.cookie, u32::from(failure.kind.errno()), &failure.message));
        self.outbox.put(reply.of(self.held));
    }

    fn done(self) -> Done<()> {
        Done::new(move |result| {
            let reply = result.map(|()| self.style.done(self.cookie));
            self.give(reply);
        })
    }
}

impl Executor {
    /// Answers a request that the device is not asked.
    pub(crate) fn refuse(&self, cookie: u64, refusal: &Refusal) {
        self.outbox.put(self.style.error(cookie, refusal.errno, &refusal.message));
    }

    /// Asks the device; the reply, also to what failed, is put into the outbox.
    pub(crate) fn execute(&self, request: Incoming, held: u64) {
        let Incoming { cookie, command, payload } = request;
        let answer = Answer { outbox: self.outbox.clone(), style: self.style, cookie, held };
        let device = &self.ready.export.device;
        match command {
            Command::Read { range, in_one } => self.read(range, in_one, answer),
            Command::BlockStatus { range, most } => self.block_status(&range, most, answer),
            Command::Write { range, durable } => match payload {
                Some(bytes) => device.write(range.start, bytes, durable, answer.done()),
                None => answer.give(Err(defect("get", range.end - range.start))),
            },
            Command::Flush => device.flush(answer.done()),
            Command::Trim { range, durable } => device.discard(range, durable, answer.done()),
            Command::WriteZeroes { range, mode } => device.write_zeroes(range, mode, answer.done()),
            Command::Disconnect => answer.give(Err(defect("leave for", 0))),
        }
    }

    fn read(&self, range: Range<u64>, in_one: bool, answer: Answer) {
        let Ok(len) = usize::try_from(range.end - range.start) else {
            return answer.give(Err(Failure::new(FailureKind::Overflow, "the range does not fit into memory")));
        };
        let offset = range.start;
        let done = Done::new(move |result: Result<Buffer, Failure>| {
            // A reply of another length would make the client take data for headers.
            let whole = result.and_then(|buffer| match buffer.len() == len {
                true => Ok(buffer),
                false => Err(defect("read", len as u64)),
            });
            let reply = whole.map(|buffer| answer.style.read(answer.cookie, offset, buffer, in_one));
            answer.give(reply);
        });
        self.ready.export.device.read(offset, self.pool.take(len), done);
    }

    /// Asks for the states in each context; the last answer makes the reply.
    fn block_status(&self, range: &Range<u64>, most: usize, answer: Answer) {
        let contexts = &self.ready.contexts;
        let wanted = contexts.len();
        let found: Arc<Mutex<Vec<Found>>> = Arc::default();
        for (id, name) in contexts {
            let (id, len, found, answer) = (*id, range.end - range.start, found.clone(), answer.clone());
            let done = Done::new(move |result: Result<Vec<Status>, Failure>| {
                let result = result.and_then(|statuses| checked(statuses, len, most));
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((id, result));
                if found.len() < wanted {
                    return;
                }
                let mut all = std::mem::take(&mut *found);
                drop(found);
                all.sort_by_key(|(id, _)| *id);
                let all: Result<Vec<_>, _> =
                    all.into_iter().map(|(id, result)| result.map(|states| (id, states))).collect();
                let reply = all.map(|all| block_status(answer.cookie, &all));
                answer.give(reply);
            });
            self.ready.export.device.block_status(name, range.clone(), most, done);
        }
    }
}

/// The states as a client may be told them: not beyond his range, though the protocol would allow it, so that lengths fit into 32 bits.
fn checked(mut statuses: Vec<Status>, len: u64, most: usize) -> Result<Vec<Status>, Failure> {
    let mut left = len;
    statuses.truncate(most);
    statuses.retain_mut(|status| {
        status.len = status.len.min(left);
        left -= status.len;
        status.len > 0
    });
    if statuses.is_empty() { Err(defect("tell the states of", len)) } else { Ok(statuses) }
}

fn defect(what: &str, len: u64) -> Failure {
    Failure::new(FailureKind::Io, format!("the device did not {what} {len} bytes; this is a defect of the server"))
}
