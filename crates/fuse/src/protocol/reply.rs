//! What the kernel is answered.

use super::{Init, MAJOR, MINOR, flag};

/// The header of an answer.
pub(crate) struct Reply;

impl Reply {
    const HEADER: usize = 16;

    /// Before so many bytes.
    pub(crate) fn header(unique: u64, len: usize) -> [u8; Self::HEADER] {
        Self::with_error(unique, 0, len)
    }

    /// Of what was not done; there is nothing after it.
    pub(crate) fn error(unique: u64, errno: u16) -> [u8; Self::HEADER] {
        Self::with_error(unique, -i32::from(errno), 0)
    }

    fn with_error(unique: u64, error: i32, len: usize) -> [u8; Self::HEADER] {
        let len = u32::try_from(Self::HEADER + len).expect("no request asks for so many bytes");
        let mut bytes = [0; Self::HEADER];
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..8].copy_from_slice(&error.to_ne_bytes());
        bytes[8..].copy_from_slice(&unique.to_ne_bytes());
        bytes
    }
}

/// Asks for everything again that was read and not answered. A message of the server's own: it has no number, and a code for an error.
pub(crate) fn notify_resend() -> [u8; Reply::HEADER] {
    Reply::with_error(0, 7, 0)
}

/// Asks for a request that asks for nothing and takes no answer: what the kernel's cache has of the first no bytes of the file. It wakes one
/// reader of the connection, whatever the loop device and the device behind are doing.
pub(crate) fn notify_retrieve() -> [u8; Reply::HEADER + 32] {
    // Our own number; the file; from where, and how much.
    let body = Bytes::<32>::new().u64(0).u64(ROOT).u64(0).u32(0).u32(0).0;
    let mut bytes = [0; Reply::HEADER + 32];
    bytes[..Reply::HEADER].copy_from_slice(&Reply::with_error(0, 5, body.len()));
    bytes[Reply::HEADER..].copy_from_slice(&body);
    bytes
}

/// Says that the file has grown to so many bytes: no bytes for the cache, at what is then the end. It is the one message that the kernel raises a
/// file's size for.
pub(crate) fn notify_size(size: u64) -> [u8; Reply::HEADER + 24] {
    let body = Bytes::<24>::new().u64(ROOT).u64(size).u32(0).u32(0).0;
    let mut bytes = [0; Reply::HEADER + 24];
    bytes[..Reply::HEADER].copy_from_slice(&Reply::with_error(0, 4, body.len()));
    bytes[Reply::HEADER..].copy_from_slice(&body);
    bytes
}

/// The number of the only file.
const ROOT: u64 = 1;

/// How an open file is used.
pub(crate) mod entry_flags {
    /// No cache: there is one above the loop device.
    pub(crate) const DIRECT_IO: u32 = 1;
    /// Closing it needs no request.
    pub(crate) const NO_FLUSH: u32 = 1 << 5;
    /// Writes that do not overlap may be under way together.
    pub(crate) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// Numbers one after the other.
struct Bytes<const N: usize>([u8; N], usize);

impl<const N: usize> Bytes<N> {
    fn new() -> Self {
        Self([0; N], 0)
    }

    fn put<const M: usize>(mut self, bytes: [u8; M]) -> Self {
        self.0[self.1..self.1 + M].copy_from_slice(&bytes);
        self.1 += M;
        self
    }

    fn u16(self, value: u16) -> Self {
        self.put(value.to_ne_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.put(value.to_ne_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.put(value.to_ne_bytes())
    }
}

/// What the server takes of what the kernel offers. `background` is how many requests may be under way that nobody waits for, as those of a
/// loop device are.
pub(crate) fn init(asked: &Init, longest: u32, background: u16) -> [u8; 64] {
    let wanted =
        flag::ASYNC_READ | flag::BIG_WRITES | flag::ASYNC_DIO | flag::MAX_PAGES | flag::EXTENDED | flag::HAS_RESEND;
    let flags = asked.flags & wanted;
    let [low, high] =
        [flags, flags >> 32].map(|half| u32::try_from(half & 0xffff_ffff).expect("it is half of 64 bits"));
    let pages = u16::try_from(longest.div_ceil(4096)).unwrap_or(u16::MAX);
    let bytes = Bytes::new().u32(MAJOR).u32(asked.minor.min(MINOR)).u32(asked.readahead).u32(low);
    let bytes = bytes.u16(background).u16(background / 4 * 3).u32(longest).u32(1).u16(pages).u16(0).u32(high);
    bytes.0
}

/// How long attributes stay true, in seconds: they never change, and nobody sees them but the loop device.
pub(crate) const ALWAYS: u64 = u32::MAX as u64;

/// The attributes of the file, true for so many seconds.
pub(crate) fn attributes(size: u64, writable: bool, valid_s: u64) -> [u8; 104] {
    let mode = 0o100_000 | if writable { 0o600 } else { 0o400 };
    let bytes = Bytes::new().u64(valid_s).u32(0).u32(0);
    // The number of the file, its size twice, three times of day, and their parts below a second.
    let bytes = bytes.u64(ROOT).u64(size).u64(size.div_ceil(512)).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
    bytes.u32(mode).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0).0
}

/// An open file.
pub(crate) fn opened(flags: u32) -> [u8; 16] {
    Bytes::new().u64(1).u32(flags).u32(0).0
}

/// So many bytes were written.
pub(crate) fn written(len: u32) -> [u8; 8] {
    Bytes::new().u32(len).u32(0).0
}

/// The file system; the loop device takes from it in what units ranges may be discarded.
pub(crate) fn statistics(size: u64, block: u32) -> [u8; 80] {
    let blocks = size / u64::from(block);
    let bytes = Bytes::new().u64(blocks).u64(0).u64(0).u64(1).u64(0);
    bytes.u32(block).u32(255).u32(block).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_laid_out_as_the_kernel_reads_them() {
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        let header = Reply::header(5, 100);
        assert_eq!((number(&header[..4]), number(&header[4..8]), header[8..] == 5_u64.to_ne_bytes()), (116, 0, true));
        assert_eq!(Reply::error(5, 22)[4..8], (-22_i32).to_ne_bytes());
        assert_eq!((number(&notify_resend()[..4]), number(&notify_resend()[4..8])), (16, 7));
        let bytes = notify_retrieve();
        assert_eq!((number(&bytes[..4]), number(&bytes[4..8])), (48, 5));
        assert_eq!((&bytes[24..32], &bytes[32..]), (&1_u64.to_ne_bytes()[..], &[0; 16][..]));
        let asked = Init { major: 7, minor: 99, readahead: 8, flags: u64::MAX };
        let bytes = init(&asked, 1 << 20, 128);
        let field = |at: usize| number(&bytes[at..at + 4]);
        assert_eq!([field(0), field(4), field(8), field(20), field(24)], [7, 45, 8, 1 << 20, 1]);
        assert_eq!((&bytes[16..18], &bytes[28..30]), (&128_u16.to_ne_bytes()[..], &256_u16.to_ne_bytes()[..]));
        assert_eq!((field(12), field(32)), (1 << 30 | 1 << 22 | 1 << 15 | 1 << 5 | 1, 1 << 7));
        assert_eq!(number(&init(&Init { minor: 31, flags: 0, ..asked }, 4096, 8)[4..8]), 31);
        let bytes = attributes(1 << 30, true, ALWAYS);
        assert_eq!(bytes[..8], u64::from(u32::MAX).to_ne_bytes());
        assert_eq!(bytes[24..32], (1_u64 << 30).to_ne_bytes());
        assert_eq!(number(&bytes[76..80]), 0o100_600);
        assert_eq!(bytes[96..100], 4096_u32.to_ne_bytes());
        let bytes = statistics(1 << 30, 4096);
        assert_eq!((&bytes[..8], &bytes[40..44]), (&(1_u64 << 18).to_ne_bytes()[..], &4096_u32.to_ne_bytes()[..]));
    }
}
