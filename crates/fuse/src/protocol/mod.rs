//! The part of the FUSE protocol that a single file needs. Pure: bytes in, values out, and the other way round.
//!
//! All numbers are in the byte order of the machine, since the other side is its kernel. Layouts and numbers are those of the kernel's public
//! header `include/uapi/linux/fuse.h`, which only ever grows: what a newer kernel adds at an end is passed over.

mod reply;
mod request;

pub(crate) use reply::{
    ALWAYS, Reply, attributes, entry_flags, init, notify_resend, notify_retrieve, notify_size, opened, statistics,
    written,
};
pub(crate) use request::{Fault, Init, Operation, Request};

/// The version of the protocol that is spoken; the second number is lowered to the kernel's.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version whose layouts are known.
pub(crate) const MINOR: u32 = 45;
/// Bytes before what is written: the header of a request, and that of a write.
pub(crate) const WRITE_HEADER: usize = 80;

pub(crate) mod opcode {
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
}

/// What kernel and server tell each other that they can do.
pub(crate) mod flag {
    /// Reads are sent before earlier ones are answered.
    pub(crate) const ASYNC_READ: u64 = 1;
    /// Writes may be longer than a page.
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    /// Direct I/O is sent before earlier requests are answered.
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    /// The server says how many pages a request has at most.
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    /// There are more than 32 flags.
    pub(crate) const EXTENDED: u64 = 1 << 30;
    /// What was read and not answered can be had again.
    pub(crate) const HAS_RESEND: u64 = 1 << 39;
}

pub(crate) mod errno {
    pub(crate) const IO: u16 = 5;
    pub(crate) const INVALID: u16 = 22;
    pub(crate) const READ_ONLY: u16 = 30;
    pub(crate) const NO_SPACE: u16 = 28;
    pub(crate) const NO_SYSTEM_CALL: u16 = 38;
    pub(crate) const PROTOCOL: u16 = 71;
    pub(crate) const NOT_SUPPORTED: u16 = 95;
}
