//! What is served: the trait that stands between the protocol and the bytes.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

/// The context that tells holes from data.
pub const ALLOCATION: &str = "base:allocation";
/// In [`ALLOCATION`]: nothing is stored here.
pub const HOLE: u32 = 1;
/// In [`ALLOCATION`]: it reads as zeros.
pub const ZERO: u32 = 2;

/// The lengths in bytes that requests should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of it; a power of two up to 64 KiB.
    pub minimum: u32,
    /// Requests of at least this length cost least for each byte; a power of two.
    pub preferred: u32,
    /// The longest request that is answered; a multiple of `minimum`.
    pub maximum: u32,
}

impl BlockSizes {
    /// What a client assumes that does not ask: any offset, up to 32 MiB.
    pub const ASSUMED: Self = Self { minimum: 1, preferred: 4 << 10, maximum: 32 << 20 };

    /// Whether these may be told to a client.
    pub(crate) fn are_valid(self) -> bool {
        let powers = self.minimum.is_power_of_two() && self.preferred.is_power_of_two();
        let ordered = self.minimum <= 64 << 10 && self.preferred >= self.minimum.max(512);
        powers && ordered && self.maximum >= self.preferred && self.maximum.is_multiple_of(self.minimum)
    }
}

/// What a device can do besides reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It takes writes; without it the export is read-only and none of the next four counts.
    pub write: bool,
    /// It can be told to make durable what was written.
    pub flush: bool,
    /// A single write can be made durable before it is answered.
    pub durable_writes: bool,
    /// It can be told what is not needed any more.
    pub trim: bool,
    /// It can write zeros that are not sent.
    pub write_zeroes: bool,
    /// What one connection has written and flushed, the others read: so one client may use several.
    pub several_connections: bool,
}

/// What a client is told of a device when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its size in bytes.
    pub size: u64,
    /// What requests should look like.
    pub blocks: BlockSizes,
    /// What it can do.
    pub features: Features,
    /// The metadata contexts that [`Device::block_status`] knows, such as [`ALLOCATION`].
    pub contexts: Vec<String>,
}

/// Bytes that were read, or a stretch of zeros that need not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// So many zeros.
    Zeros(u64),
}

impl Piece {
    /// How many bytes of the device it is.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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

/// Why a device did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which of the errors of the protocol it is.
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

/// The errors that the protocol has for a request.
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

/// A block device.
///
/// The server calls it with ranges that lie within its size and keep to its block sizes, from several tasks at once. Writes and what follows
/// them are called only where [`Features`] say that they may be.
#[async_trait]
pub trait Device: Send + Sync + 'static {
    /// Tells what it is; asked for each connection.
    async fn describe(&self) -> Result<Description, Failure>;

    /// Reads a range: pieces in order that together are as long as the range.
    async fn read(&self, range: Range<u64>) -> Result<Vec<Piece>, Failure>;

    /// Writes bytes; if `durable`, they must survive a loss of power when this returns.
    async fn write(&self, _offset: u64, _bytes: Bytes, _durable: bool) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::NotPermitted, "the device is read-only"))
    }

    /// Makes durable all writes that were answered.
    async fn flush(&self) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::NotSupported, "the device cannot be flushed"))
    }

    /// Learns that a range is not needed any more.
    async fn trim(&self, _range: Range<u64>, _durable: bool) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::NotSupported, "the device cannot be trimmed"))
    }

    /// Fills a range with zeros.
    async fn write_zeroes(&self, _range: Range<u64>, _mode: ZeroMode) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::NotSupported, "the device cannot write zeros that are not sent"))
    }

    /// Tells the states of a range in one of its contexts, from its begin on: at least one, at most `most`; they may end before the range does.
    async fn block_status(&self, context: &str, range: Range<u64>, most: usize) -> Result<Vec<Status>, Failure> {
        let message = format!("there are no states of {most} stretches of {range:?} in {context}");
        Err(Failure::new(FailureKind::NotSupported, message))
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
}
