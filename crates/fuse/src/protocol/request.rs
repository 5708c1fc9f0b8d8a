//! What the kernel asks.

use super::{WRITE_HEADER, opcode};

/// A request: what is asked, and what the answer is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// The highest bit says that it was asked before, of a server that did not answer. The answer has the same number.
    pub(crate) unique: u64,
    pub(crate) operation: Operation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Init(Init),
    Attributes,
    Open,
    Read {
        offset: u64,
        len: u32,
    },
    /// The bytes follow from [`WRITE_HEADER`] on.
    Write {
        offset: u64,
        len: u32,
    },
    Statistics,
    /// Makes durable what was written.
    Sync,
    /// Somebody has closed the file, though not the last.
    Flush,
    Release,
    Fallocate {
        offset: u64,
        len: u64,
        mode: u32,
    },
    /// Takes no answer.
    Forget,
    /// What came of a `notify_retrieve` of the server; takes no answer.
    Retrieved,
    /// The file system goes.
    Destroy,
    /// The process that asked was interrupted; answering the request itself is enough.
    Interrupt,
    Other(u32),
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) readahead: u32,
    pub(crate) flags: u64,
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody knows what to answer to.
    #[error("{0} bytes are no request")]
    NoHeader(usize),
    /// The rest does not fit to the header.
    #[error("request {unique} of kind {opcode} is cut off or too long")]
    Body { unique: u64, opcode: u32 },
}

impl Request {
    const HEADER: usize = 40;

    /// Reads a request.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let none = Fault::NoHeader(bytes.len());
        let (header, body) = bytes.split_at_checked(Self::HEADER).ok_or(none)?;
        let header = Fields(header);
        let (opcode, unique) = (header.u32(4).ok_or(none)?, header.u64(8).ok_or(none)?);
        let fault = Fault::Body { unique, opcode };
        if header.u32(0).and_then(|len| usize::try_from(len).ok()) != Some(bytes.len()) {
            return Err(fault);
        }
        let operation = Operation::decode(opcode, Fields(body)).ok_or(fault)?;
        Ok(Self { unique, operation })
    }
}

impl Operation {
    fn decode(opcode: u32, body: Fields<'_>) -> Option<Self> {
        Some(match opcode {
            opcode::INIT => {
                let more = if body.u32(12)? & (1 << 30) == 0 { 0 } else { u64::from(body.u32(16)?) << 32 };
                let flags = u64::from(body.u32(12)?) | more;
                Self::Init(Init { major: body.u32(0)?, minor: body.u32(4)?, readahead: body.u32(8)?, flags })
            }
            opcode::GETATTR => Self::Attributes,
            opcode::OPEN => Self::Open,
            opcode::READ => Self::Read { offset: body.u64(8)?, len: body.u32(16)? },
            opcode::WRITE => {
                let len = body.u32(16)?;
                let there = (body.0.len() + Request::HEADER).checked_sub(WRITE_HEADER)?;
                if usize::try_from(len).ok()? != there {
                    return None;
                }
                Self::Write { offset: body.u64(8)?, len }
            }
            opcode::STATFS => Self::Statistics,
            opcode::FSYNC => Self::Sync,
            opcode::FLUSH => Self::Flush,
            opcode::RELEASE => Self::Release,
            opcode::FALLOCATE => Self::Fallocate { offset: body.u64(8)?, len: body.u64(16)?, mode: body.u32(24)? },
            opcode::FORGET | opcode::BATCH_FORGET => Self::Forget,
            opcode::DESTROY => Self::Destroy,
            opcode::NOTIFY_REPLY => Self::Retrieved,
            opcode::INTERRUPT => Self::Interrupt,
            other => Self::Other(other),
        })
    }
}

/// Numbers at places.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request as the kernel lays it out.
    fn encode(opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(Request::HEADER + body.len()).unwrap();
        let mut bytes = [len, opcode].map(u32::to_ne_bytes).concat();
        bytes.extend(unique.to_ne_bytes());
        bytes.resize(Request::HEADER, 0xee);
        bytes.extend(body);
        bytes
    }

    fn body(fields: &[u64]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
    }

    /// Two fields of 32 bits as they lie in memory.
    fn pair(first: u32, second: u32) -> u64 {
        u64::from_ne_bytes([first.to_ne_bytes(), second.to_ne_bytes()].concat().try_into().unwrap())
    }

    fn check(expected: Operation, opcode: u32, body: &[u8], needed: usize) {
        let whole = encode(opcode, 7, body);
        assert_eq!(Request::decode(&whole), Ok(Request { unique: 7, operation: expected }));
        assert!(Request::decode(&whole[..whole.len() - 1]).is_err(), "the length in the header counts");
        for cut in 0..needed {
            assert!(Request::decode(&encode(opcode, 7, &body[..cut])).is_err(), "{opcode} with {cut} bytes");
        }
    }

    #[test]
    fn requests_are_read_from_the_kernels_layout() {
        let init = |flags| Operation::Init(Init { major: 7, minor: 45, readahead: 9, flags });
        let begin = body(&[pair(7, 45), pair(9, 1 << 30 | 1), pair(1 << 7, 0)]);
        check(init(1 << 39 | 1 << 30 | 1), opcode::INIT, &begin, 20);
        check(init(1), opcode::INIT, &body(&[pair(7, 45), pair(9, 1)]), 16);
        check(Operation::Read { offset: 8192, len: 100 }, opcode::READ, &body(&[1, 8192, pair(100, 0), 0, 0]), 20);
        let written = [body(&[1, 4096, pair(3, 0), 0, 0]), b"abc".to_vec()].concat();
        check(Operation::Write { offset: 4096, len: 3 }, opcode::WRITE, &written, written.len());
        check(
            Operation::Fallocate { offset: 5, len: 6, mode: 3 },
            opcode::FALLOCATE,
            &body(&[1, 5, 6, pair(3, 0)]),
            28,
        );
        check(Operation::Sync, opcode::FSYNC, &body(&[1, 0]), 0);
        check(Operation::Retrieved, opcode::NOTIFY_REPLY, &body(&[0; 5]), 0);
        check(Operation::Other(99), 99, &[], 0);
    }

    #[test]
    fn a_write_has_as_many_bytes_as_it_says() {
        for claimed in [0, 2, 4, u32::MAX] {
            let bytes = [body(&[1, 4096, pair(claimed, 0), 0, 0]), b"abc".to_vec()].concat();
            let fault = Fault::Body { unique: 7, opcode: opcode::WRITE };
            assert_eq!(Request::decode(&encode(opcode::WRITE, 7, &bytes)), Err(fault));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_there_is_no_panic(opcode in 0_u32..60, mut body: Vec<u8>, bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let decoded = Request::decode(&encode(opcode, 3, &body));
            if let Ok(Request { operation: Operation::Write { len, .. }, .. }) = decoded {
                prop_assert_eq!(len as usize, body.len() - 40);
            }
            body.resize(100, 0);
            prop_assert!(opcode == opcode::WRITE || Request::decode(&encode(opcode, 3, &body)).is_ok());
        }
    }
}
