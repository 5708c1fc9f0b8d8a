//! Requests: the header, and what may be asked of a device. Pure.

use crate::limits::MAX_STATUSES;
use crate::wire::{self, Input, command, command_flag, errno};
use block::{Description, Status, ZeroMode};
use std::ops::Range;

/// The header of a request as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    /// What the client knows the answer by.
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// What a connection has agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) description: &'a Description,
    pub(crate) structured: bool,
    /// How many contexts there are.
    pub(crate) contexts: usize,
}

/// A request that the device can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Read {
        range: Range<u64>,
        in_one: bool,
    },
    Write {
        range: Range<u64>,
        durable: bool,
    },
    Disconnect,
    Flush,
    Trim {
        range: Range<u64>,
        durable: bool,
    },
    WriteZeroes {
        range: Range<u64>,
        mode: ZeroMode,
    },
    /// Of at most so many stretches in each context.
    BlockStatus {
        range: Range<u64>,
        most: usize,
    },
}

/// Why a request is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: u32,
    pub(crate) message: String,
}

impl Refusal {
    fn new(errno: u32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(errno::INVALID, message)
    }
}

/// Bytes of the state of a stretch in a reply.
const STATE_LEN: usize = 8;

impl Command {
    /// How many bytes of memory it needs until it is answered.
    pub(crate) fn held(&self, terms: &Terms<'_>) -> u64 {
        match self {
            Self::Read { range, .. } | Self::Write { range, .. } => range.end - range.start,
            // As the device tells them, and as they are sent.
            Self::BlockStatus { most, .. } => (terms.contexts * most * (size_of::<Status>() + STATE_LEN)) as u64,
            _ => 0,
        }
    }
}

impl Request {
    /// Bytes of a header.
    pub(crate) const LEN: usize = 28;

    /// Reads a header; nothing if it does not begin as one, after which nobody knows where the next begins.
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let mut input = Input::new(bytes);
        if input.u32()? != wire::REQUEST_MAGIC {
            return None;
        }
        let (flags, command, cookie) = (input.u16()?, input.u16()?, input.u64()?);
        Some(Self { flags, command, cookie, offset: input.u64()?, len: input.u32()? })
    }

    /// Bytes that follow the header.
    pub(crate) fn payload_len(&self) -> u32 {
        if self.command == command::WRITE { self.len } else { 0 }
    }

    /// What is asked of the device, or why it is not.
    pub(crate) fn check(&self, terms: &Terms<'_>) -> Result<Command, Refusal> {
        let features = terms.description.features;
        let has = |flag| self.flags & flag != 0;
        // A client may set it on any command, once it is offered.
        let durable = if features.write && features.durable_writes { command_flag::FUA } else { 0 };
        let allowed = |flags| self.allow_flags(flags | durable);
        match self.command {
            command::DISCONNECT => Ok(Command::Disconnect),
            command::READ => {
                allowed(if terms.structured { command_flag::DF } else { 0 })?;
                Ok(Command::Read { range: self.range(terms, true)?, in_one: has(command_flag::DF) })
            }
            command::BLOCK_STATUS => {
                allowed(command_flag::REQ_ONE)?;
                if terms.contexts == 0 {
                    return Err(Refusal::invalid("no context was agreed on"));
                }
                let range = self.range(terms, false)?;
                let blocks = self.len.div_ceil(terms.description.blocks.minimum) as usize;
                let most = if has(command_flag::REQ_ONE) { 1 } else { MAX_STATUSES.min(blocks) };
                Ok(Command::BlockStatus { range, most })
            }
            command::WRITE | command::TRIM | command::WRITE_ZEROES | command::FLUSH if !features.write => {
                Err(Refusal::new(errno::PERM, "the export is read-only"))
            }
            command::WRITE => {
                allowed(0)?;
                Ok(Command::Write { range: self.range(terms, true)?, durable: has(command_flag::FUA) })
            }
            command::FLUSH if features.flush => {
                allowed(0)?;
                match (self.offset, self.len) {
                    (0, 0) => Ok(Command::Flush),
                    _ => Err(Refusal::invalid("a flush has neither an offset nor a length")),
                }
            }
            command::TRIM if features.discard => {
                allowed(0)?;
                Ok(Command::Trim { range: self.range(terms, false)?, durable: has(command_flag::FUA) })
            }
            command::WRITE_ZEROES if features.write_zeroes => {
                allowed(command_flag::NO_HOLE)?;
                let mode = ZeroMode { durable: has(command_flag::FUA), keep_allocated: has(command_flag::NO_HOLE) };
                Ok(Command::WriteZeroes { range: self.range(terms, false)?, mode })
            }
            other => Err(Refusal::invalid(format!("the export does not offer the command {other}"))),
        }
    }

    fn allow_flags(&self, flags: u16) -> Result<(), Refusal> {
        match self.flags & !flags {
            0 => Ok(()),
            other => Err(Refusal::invalid(format!("the command does not take the flags {other:#06x}"))),
        }
    }

    /// The range, which must lie in the device and keep to its block sizes; if it is `moved`, it must not be too long.
    fn range(&self, terms: &Terms<'_>, moved: bool) -> Result<Range<u64>, Refusal> {
        let Description { size, blocks, .. } = terms.description;
        let beyond = if self.command == command::WRITE { errno::NO_SPACE } else { errno::INVALID };
        let end = self.offset.checked_add(u64::from(self.len)).filter(|end| end <= size);
        let end = end.ok_or_else(|| Refusal::new(beyond, format!("the export ends at {size}")))?;
        let minimum = u64::from(blocks.minimum);
        if self.len == 0 {
            return Err(Refusal::invalid("the length is 0"));
        }
        if !self.offset.is_multiple_of(minimum) || !u64::from(self.len).is_multiple_of(minimum) {
            return Err(Refusal::invalid(format!("offset and length must be multiples of {minimum}")));
        }
        if moved && self.len > blocks.maximum {
            return Err(Refusal::invalid(format!("a request is at most {} bytes long", blocks.maximum)));
        }
        Ok(self.offset..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::{BlockSizes, Features};
    use proptest::prelude::*;

    const ALL: Features = Features::ALL;

    fn description(features: Features) -> Description {
        let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 8192 };
        Description { size: 1 << 20, blocks, features }
    }

    fn request(command: u16, flags: u16, offset: u64, len: u32) -> Request {
        Request { flags, command, cookie: 7, offset, len }
    }

    fn errno_of(request: Request, features: Features) -> u32 {
        let description = description(features);
        let terms = Terms { description: &description, structured: true, contexts: 1 };
        request.check(&terms).map_or_else(|refusal| refusal.errno, |_| 0)
    }

    #[test]
    fn what_a_device_cannot_be_asked_is_refused_with_the_protocols_errors() {
        let check = |wanted: u32, asked: Request, features| assert_eq!(errno_of(asked, features), wanted, "{asked:?}");
        let (read, write) = (command::READ, command::WRITE);
        check(0, request(read, command_flag::DF, 512, 8192), Features::default());
        check(0, request(write, command_flag::FUA, 0, 512), ALL);
        check(errno::PERM, request(write, 0, 0, 512), Features::default());
        check(errno::PERM, request(command::TRIM, 0, 0, 512), Features::default());
        check(errno::INVALID, request(read, 0, 0, 8704), ALL);
        check(errno::INVALID, request(read, 0, 0, 0), ALL);
        check(errno::INVALID, request(read, 0, 1, 512), ALL);
        check(errno::INVALID, request(read, 0, 512, 1), ALL);
        check(errno::INVALID, request(read, 0, 1 << 20, 512), ALL);
        check(errno::INVALID, request(read, 0, u64::MAX - 511, 512), ALL);
        check(errno::NO_SPACE, request(write, 0, 1 << 20, 512), ALL);
        check(0, request(read, command_flag::FUA, 0, 512), ALL);
        check(errno::INVALID, request(read, command_flag::FUA, 0, 512), Features::default());
        check(errno::INVALID, request(read, command_flag::REQ_ONE, 0, 512), ALL);
        check(errno::INVALID, request(write, command_flag::FUA, 0, 512), Features { durable_writes: false, ..ALL });
        check(errno::INVALID, request(command::TRIM, 0, 0, 512), Features { discard: false, ..ALL });
        check(0, request(command::TRIM, 0, 0, 1 << 20), ALL);
        check(0, request(command::WRITE_ZEROES, command_flag::NO_HOLE, 0, 1 << 20), ALL);
        check(errno::INVALID, request(command::FLUSH, 0, 0, 1), ALL);
        check(0, request(command::FLUSH, 0, 0, 0), ALL);
        check(0, request(command::BLOCK_STATUS, command_flag::REQ_ONE, 0, 1 << 20), ALL);
        for unknown in [5, 8, 9, u16::MAX] {
            check(errno::INVALID, request(unknown, 0, 0, 512), ALL);
        }
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let description = description(ALL);
        let terms = Terms { description: &description, structured: false, contexts: 0 };
        assert!(request(command::BLOCK_STATUS, 0, 0, 512).check(&terms).is_err());
        assert!(request(command::READ, command_flag::DF, 0, 512).check(&terms).is_err());
        assert!(request(command::READ, 0, 0, 512).check(&terms).is_ok());
    }

    #[test]
    fn a_request_is_counted_with_all_that_it_holds() {
        let description = description(ALL);
        let terms = Terms { description: &description, structured: true, contexts: 3 };
        let held = |command, flags, len| request(command, flags, 0, len).check(&terms).unwrap().held(&terms);
        assert_eq!((held(command::READ, 0, 8192), held(command::WRITE, 0, 512)), (8192, 512));
        assert_eq!((held(command::TRIM, 0, 1 << 20), held(command::FLUSH, 0, 0)), (0, 0));
        // A state has 16 bytes in memory and 8 in the reply, and a stretch at least a block.
        assert_eq!(held(command::BLOCK_STATUS, 0, 1 << 20), 3 * 2048 * 24);
        assert_eq!(held(command::BLOCK_STATUS, command_flag::REQ_ONE, 1 << 20), 3 * 24);
    }

    proptest! {
        #[test]
        fn whatever_passes_lies_within_the_device(flags: u16, command in 0_u16..10, offset in 0_u64..(2 << 20), len: u32) {
            let description = description(ALL);
            let terms = Terms { description: &description, structured: true, contexts: 1 };
            match request(command, flags, offset, len).check(&terms) {
                Ok(Command::Read { range, .. } | Command::Write { range, .. }) => {
                    prop_assert!(range.end <= 1 << 20 && range.end - range.start <= 8192 && !range.is_empty());
                }
                Ok(Command::Trim { range, .. } | Command::WriteZeroes { range, .. } | Command::BlockStatus { range, .. }) => {
                    prop_assert!(range.end <= 1 << 20 && range.start.is_multiple_of(512) && !range.is_empty());
                }
                Ok(Command::Disconnect | Command::Flush) | Err(_) => {}
            }
        }

        #[test]
        fn arbitrary_headers_never_panic(bytes: [u8; Request::LEN]) {
            prop_assert_eq!(Request::decode(&bytes).is_some(), bytes[..4] == wire::REQUEST_MAGIC.to_be_bytes());
        }
    }
}
