//! The requests of a connection: one task, both directions.
//!
//! ```text
//! socket ─► intake ─► Device ─► outbox ─► socket
//!             │ room for it?      ▲ from this task, or from a thread of the device
//! ```
//! The task goes round: take what has come, send what is done, read more. A device that answers at once is so asked and answered without a
//! change of the task, and what came together is answered together, with one system call each way. The next request is not taken before
//! there is room for it: a client that asks faster than the device answers, or than he takes the answers, waits in his own socket.

use crate::execute::Executor;
use crate::handshake::{Closed, Ready};
use crate::intake::{Intake, Step};
use crate::limits::Limits;
use crate::outbox::{Outbox, Sending};
use crate::reply::Style;
use crate::stream::Stream;
use block::Pool;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// Bytes that requests at a device hold before what is done is sent: so that the client works on the first answers while the device
/// works on the next.
const TURN: u64 = 512 << 10;

/// What the requests of a connection share.
pub(crate) struct Transmission {
    stream: Stream,
    intake: Intake,
    executor: Executor,
    sending: Sending,
    room: Room,
    /// The client has said that he sends nothing more.
    ended: bool,
    stall: Stall,
}

/// What may still be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    requests: usize,
    bytes: u64,
    most_requests: usize,
    most_bytes: u64,
}

impl Room {
    pub(crate) fn new(requests: usize, bytes: u64) -> Self {
        Self { requests: 0, bytes: 0, most_requests: requests.max(1), most_bytes: bytes }
    }

    /// Whether a request fits that holds so many bytes. One is always let in alone.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        self.requests == 0 || (self.requests < self.most_requests && self.bytes + bytes <= self.most_bytes)
    }

    fn enter(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn leave(&mut self, requests: usize, bytes: u64) {
        self.requests -= requests;
        self.bytes -= bytes;
    }
}

impl Transmission {
    pub(crate) fn new(
        ready: Ready,
        stream: Stream,
        early: &[u8],
        limits: Limits,
        pool: Pool,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let longest = ready.description.blocks.maximum;
        let outbox = Arc::new(Outbox::new(place));
        Self {
            intake: Intake::new(early, pool.clone()),
            sending: Sending::new(outbox.clone(), stream.is_write_vectored()),
            executor: Executor { style: Style { structured: ready.structured }, ready: Arc::new(ready), pool, outbox },
            room: Room::new(limits.requests, u64::from(limits.bytes.max(longest))),
            stream,
            ended: false,
            stall: Stall { patience: limits.stall, timer: None, armed: false },
        }
    }

    /// Serves requests until the client ends it.
    pub(crate) fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            let mut progress = self.take_requests()?;
            progress |= self.poll_send(cx)?;
            if !self.ended && self.intake.is_starved() {
                progress |= self.poll_receive(cx)?;
            }
            if self.ended && self.room.requests == 0 {
                return Poll::Ready(Ok(()));
            }
            if !progress && self.sending.outbox.rest(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    /// Answers what was taken, and takes nothing more.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while self.room.requests > 0 {
            let progress = self.poll_send(cx)?;
            if !progress && self.sending.outbox.rest(cx.waker()) {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Gives the device what has come, as far as there is room.
    fn take_requests(&mut self) -> Result<bool, Closed> {
        let (mut progress, mut held) = (false, 0);
        while !self.ended && held < TURN {
            match self.intake.next(&self.executor.ready.terms(), &self.room)? {
                Step::Starved | Step::Full => return Ok(progress),
                Step::Disconnect => self.ended = true,
                Step::Refused(cookie, refusal) => {
                    self.room.enter(0);
                    self.executor.refuse(cookie, &refusal);
                }
                Step::Request(request) => {
                    let bytes = request.command.held(&self.executor.ready.terms());
                    self.room.enter(bytes);
                    held += bytes;
                    self.executor.execute(request, bytes);
                }
            }
            progress = true;
        }
        Ok(progress)
    }

    /// Sends what is done; whether anything could be.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut progress = false;
        while self.sending.collect() {
            match self.sending.poll_write(cx, Pin::new(&mut self.stream)) {
                Poll::Pending => {
                    self.stall.wait(cx)?;
                    return Ok(progress);
                }
                Poll::Ready(sent) => {
                    let (requests, bytes) = sent?;
                    self.room.leave(requests, bytes);
                    self.stall.armed = false;
                    progress = true;
                }
            }
        }
        // Encrypted bytes may wait in between.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(error.into());
        }
        Ok(progress)
    }

    /// Reads more; whether there was anything.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut space = ReadBuf::new(self.intake.space());
        match Pin::new(&mut self.stream).poll_read(cx, &mut space) {
            Poll::Pending => return Ok(false),
            Poll::Ready(read) => read?,
        }
        match space.filled().len() {
            0 if self.intake.is_between_requests() => self.ended = true,
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            len => self.intake.filled(len),
        }
        Ok(true)
    }
}

/// How long a client has taken nothing.
struct Stall {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Stall {
    /// A client that takes nothing for so long is dead, and holds bytes that others could use.
    fn wait(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        if !self.armed {
            timer.as_mut().reset(Instant::now() + self.patience);
            self.armed = true;
        }
        match timer.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
