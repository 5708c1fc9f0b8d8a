//! What is served: the trait that stands between protocols and bytes.

use crate::buffer::Buffer;
use crate::done::Done;
use std::ops::Range;

/// The context that tells holes from data.
pub const ALLOCATION: &str = "base:allocation";
/// In [`ALLOCATION`]: nothing is stored here.
pub const HOLE: u32 = 1;
/// In [`ALLOCATION`]: it reads as zeros.
pub const ZERO: u32 = 2;
/// In a context that tells what has changed since an earlier state: this has. The same bit as in QEMU's bitmaps of dirty blocks.
pub const CHANGED: u32 = 1;

/// The lengths in bytes that requests should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of it; a power of two up to 64 KiB.
    pub minimum: u32,
    /// Requests of at least this length cost least for each byte; a power of two.
    pub preferred: u32,
    /// The longest read or write that is answered; a multiple of `minimum`.
    pub maximum: u32,
}

impl BlockSizes {
    /// What a client assumes that does not ask: any offset, up to 32 MiB.
    pub const ASSUMED: Self = Self { minimum: 1, preferred: 4 << 10, maximum: 32 << 20 };

    /// Whether a front end may tell these to its clients.
    #[must_use]
    pub fn are_valid(self) -> bool {
        let powers = self.minimum.is_power_of_two() && self.preferred.is_power_of_two();
        let ordered = self.minimum <= 64 << 10 && self.preferred >= self.minimum.max(512);
        powers && ordered && self.maximum >= self.preferred && self.maximum.is_multiple_of(self.minimum)
    }
}

/// What a device can do besides reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It takes writes; without it the device is read-only and none of the next four counts.
    pub write: bool,
    /// It can be told to make durable what was written.
    pub flush: bool,
    /// A single write can be made durable before it is answered.
    pub durable_writes: bool,
    /// It can be told what is not needed any more.
    pub discard: bool,
    /// It can write zeros that are not sent.
    pub write_zeroes: bool,
    /// What one client has written and flushed, the others read: so one may use several connections.
    pub several_connections: bool,
}

impl Features {
    /// It can do everything.
    pub const ALL: Self = Self {
        write: true,
        flush: true,
        durable_writes: true,
        discard: true,
        write_zeroes: true,
        several_connections: true,
    };
}

/// What a client is told of a device when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its size in bytes.
    pub size: u64,
    /// What requests should look like.
    pub blocks: BlockSizes,
    /// What it can do.
    pub features: Features,
}

/// A stretch of a device in one state of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// How long it is, in bytes.
    pub len: u64,
    /// Its state; what the bits mean is the context's.
    pub flags: u32,
}

/// How zeros are to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZeroMode {
    /// They must be durable before the request is answered.
    pub durable: bool,
    /// The room must stay allocated.
    pub keep_allocated: bool,
}

/// Which contexts somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextQuery<'a> {
    /// All of which the names begin like this; the empty text is all that there are.
    Beginning(&'a str),
    /// The one of this name.
    Named(&'a str),
}

impl ContextQuery<'_> {
    /// Whether a name is one that was asked for.
    #[must_use]
    pub fn picks(&self, name: &str) -> bool {
        match self {
            Self::Beginning(begin) => name.starts_with(begin),
            Self::Named(wanted) => name == *wanted,
        }
    }
}

/// Why a device did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which of the errors that a front end can tell it is.
    pub kind: FailureKind,
    /// What happened; a client that can be told, is told.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The errors that a client can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The device is read-only.
    NotPermitted,
    /// Bytes could not be read or written.
    Io,
    /// There is no memory for it.
    NoMemory,
    /// The request makes no sense.
    Invalid,
    /// There is no room, or the request goes beyond the end.
    NoSpace,
    /// The answer does not fit where it was wanted.
    Overflow,
    /// The device cannot do this.
    NotSupported,
    /// The server is being stopped.
    ShuttingDown,
}

impl FailureKind {
    /// Its number in Linux, which is its number in the NBD protocol too.
    #[must_use]
    pub fn errno(self) -> u16 {
        match self {
            Self::NotPermitted => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::ShuttingDown => 108,
        }
    }
}

/// A block device.
///
/// Whoever serves it calls it with ranges that lie within its size and keep to its block sizes, from several threads at once, without
/// waiting for earlier requests. Requests in flight together that overlap may take effect in any order. Writes and what follows them are
/// called only where [`Features`] say that they may be.
///
/// A call must not wait for a disk or a network: it would hold up the requests behind it. It starts the work and returns. Only what is
/// done in some microseconds, such as reading what is in memory, is done at once; and what a thread asks that says that it may wait
/// ([`crate::is_patient`]).
///
/// What was asked may be asked again with the same bytes, after a front end was restarted. That must change nothing.
pub trait Device: Send + Sync + 'static {
    /// Tells what it is; asked by each client that comes.
    fn describe(&self) -> Result<Description, Failure>;

    /// Reads as many bytes as the buffer has in use, all of which must be overwritten, and gives the buffer back.
    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>);

    /// Writes bytes; if `durable`, they must survive a loss of power when it is done.
    fn write(&self, _offset: u64, _bytes: Buffer, _durable: bool, done: Done<()>) {
        done.fail(FailureKind::NotPermitted, "the device is read-only");
    }

    /// Makes durable all that was done before it was asked: writes that are under way may stay out.
    fn flush(&self, done: Done<()>) {
        done.fail(FailureKind::NotSupported, "the device cannot be flushed");
    }

    /// Learns that a range is not needed any more; what it reads as afterwards is the device's choice, and stays the same until it is written.
    fn discard(&self, _range: Range<u64>, _durable: bool, done: Done<()>) {
        done.fail(FailureKind::NotSupported, "the device cannot discard");
    }

    /// Fills a range with zeros.
    fn write_zeroes(&self, _range: Range<u64>, _mode: ZeroMode, done: Done<()>) {
        done.fail(FailureKind::NotSupported, "the device cannot write zeros that are not sent");
    }

    /// The contexts that [`Device::block_status`] knows and that are asked for, at most `most`, in an order that stays. A device with one
    /// context for each of many snapshots makes up the names here, so that nobody needs to hold them all.
    fn contexts(&self, _query: ContextQuery<'_>, _most: usize) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    /// Tells the states of a range in one of its contexts, from its begin on: at least one, at most `most`; they may end before the range does.
    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        let message = format!("there are no states of {most} stretches of {range:?} in {context}");
        done.fail(FailureKind::NotSupported, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_keep_to_the_protocol() {
        let valid = |minimum, preferred, maximum| BlockSizes { minimum, preferred, maximum }.are_valid();
        assert!(BlockSizes::ASSUMED.are_valid());
        assert!(valid(512, 4096, 1 << 20) && valid(65536, 65536, 65536));
        assert!(!valid(0, 4096, 1 << 20), "no minimum");
        assert!(!valid(3, 4096, 1 << 20), "no power of two");
        assert!(!valid(1, 256, 1 << 20), "less than 512 preferred");
        assert!(!valid(131_072, 131_072, 1 << 20), "a minimum above 64 KiB");
        assert!(!valid(4096, 512, 1 << 20), "less preferred than allowed");
        assert!(!valid(512, 512, 1000), "a maximum that is no multiple");
    }

    #[test]
    fn contexts_are_asked_for_by_name_or_by_begin() {
        assert!(ContextQuery::Named("a:b").picks("a:b") && !ContextQuery::Named("a:").picks("a:b"));
        assert!(ContextQuery::Beginning("a:").picks("a:b") && ContextQuery::Beginning("").picks("a:b"));
        assert!(!ContextQuery::Beginning("a:b").picks("a:"));
    }
}
