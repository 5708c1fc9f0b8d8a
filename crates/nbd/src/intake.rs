//! What a client sends, as requests. Pure: bytes go in, requests come out.

use crate::handshake::Closed;
use crate::request::{Command, Refusal, Request, Terms};
use crate::transmission::Room;
use block::{Buffer, Pool};

/// Bytes that are read at once: many headers, or some writes of 4 KiB with their bytes. What is written in longer pieces goes where it
/// belongs without passing through here.
const LEN: usize = 128 << 10;
/// From this length on the bytes of a write go straight to where they belong.
const LONG: usize = LEN / 4;
/// Bytes that are read at once after a long write: the next header is among them, and hardly anything of a payload that would have to be moved.
const SHORT_READ: usize = 1 << 10;

/// A request with the bytes that belong to it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) cookie: u64,
    pub(crate) command: Command,
    /// What is to be written.
    pub(crate) payload: Option<Buffer>,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Work on this.
    Request(Incoming),
    /// Answer this request with an error.
    Refused(u64, Refusal),
    /// The client leaves.
    Disconnect,
    /// More bytes are needed.
    Starved,
    /// There is a request, and no room for it.
    Full,
}

/// What has come and is not yet taken.
#[derive(Debug)]
pub(crate) struct Intake {
    bytes: Box<[u8]>,
    /// What of `bytes` is waiting.
    start: usize,
    end: usize,
    state: State,
    pool: Pool,
    starved: bool,
    /// The last request was a long write: the next one will be.
    long: bool,
    /// The space that was given last is that of the payload.
    direct: bool,
}

#[derive(Debug)]
enum State {
    Header,
    /// The bytes of a write are coming.
    Payload(Payload),
    /// So many bytes of a request that is refused are passed over.
    Skip(u32, u64, Refusal),
}

#[derive(Debug)]
struct Payload {
    cookie: u64,
    command: Command,
    buffer: Buffer,
    filled: usize,
}

impl Intake {
    /// With what came together with the end of the handshake.
    pub(crate) fn new(early: &[u8], pool: Pool) -> Self {
        let mut bytes = vec![0; LEN.max(early.len())].into_boxed_slice();
        bytes[..early.len()].copy_from_slice(early);
        let starved = early.is_empty();
        Self { bytes, start: 0, end: early.len(), state: State::Header, pool, starved, long: false, direct: false }
    }

    /// Whether nothing more can be taken before more has come.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether the client may leave now without having broken off anything.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.start == self.end && matches!(self.state, State::Header)
    }

    /// Where the next bytes go; never empty when it is starved.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.direct = false;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            match &mut self.state {
                State::Payload(Payload { buffer, filled, .. }) if self.long || buffer.len() - *filled >= LONG => {
                    self.direct = true;
                    return &mut buffer[*filled..];
                }
                State::Header if self.long => return &mut self.bytes[..SHORT_READ],
                _ => {}
            }
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes have come where [`Intake::space`] said.
    pub(crate) fn filled(&mut self, len: usize) {
        self.starved = false;
        match &mut self.state {
            State::Payload(payload) if self.direct => payload.filled += len,
            _ => self.end += len,
        }
    }

    /// The next request, if it is there and there is room for it.
    pub(crate) fn next(&mut self, terms: &Terms<'_>, room: &Room) -> Result<Step, Closed> {
        let found = match std::mem::replace(&mut self.state, State::Header) {
            State::Header => self.header(terms, room)?,
            State::Payload(payload) => self.payload(payload),
            State::Skip(left, cookie, refusal) => self.skip(left, cookie, refusal),
        };
        self.starved = found.is_none();
        Ok(found.unwrap_or(Step::Starved))
    }

    fn header(&mut self, terms: &Terms<'_>, room: &Room) -> Result<Option<Step>, Closed> {
        let Some(header) = self.bytes[self.start..self.end].first_chunk() else { return Ok(None) };
        let broken = || Closed::Broken("a request does not begin as one".to_owned());
        let request = Request::decode(header).ok_or_else(broken)?;
        let checked = request.check(terms);
        if !room.has(checked.as_ref().map_or(0, |command| command.held(terms))) {
            return Ok(Some(Step::Full));
        }
        self.start += Request::LEN;
        let cookie = request.cookie;
        Ok(match checked {
            Ok(Command::Disconnect) => Some(Step::Disconnect),
            Ok(command) if matches!(command, Command::Write { .. }) => {
                // Not longer than the longest request of the device, and there is room for it.
                let buffer = self.pool.take(request.payload_len() as usize);
                self.long = buffer.len() >= LONG;
                self.payload(Payload { cookie, command, buffer, filled: 0 })
            }
            Ok(command) => {
                self.long = false;
                Some(Step::Request(Incoming { cookie, command, payload: None }))
            }
            Err(refusal) => self.skip(request.payload_len(), cookie, refusal),
        })
    }

    fn payload(&mut self, mut payload: Payload) -> Option<Step> {
        let here = &self.bytes[self.start..self.end];
        let part = here.len().min(payload.buffer.len() - payload.filled);
        payload.buffer[payload.filled..][..part].copy_from_slice(&here[..part]);
        self.start += part;
        payload.filled += part;
        if payload.filled < payload.buffer.len() {
            self.state = State::Payload(payload);
            return None;
        }
        let Payload { cookie, command, buffer, .. } = payload;
        Some(Step::Request(Incoming { cookie, command, payload: Some(buffer) }))
    }

    fn skip(&mut self, left: u32, cookie: u64, refusal: Refusal) -> Option<Step> {
        let here = u32::try_from(self.end - self.start).unwrap_or(u32::MAX);
        let part = left.min(here);
        self.start += part as usize;
        if part < left {
            self.state = State::Skip(left - part, cookie, refusal);
            return None;
        }
        Some(Step::Refused(cookie, refusal))
    }
}
