//! What a pool lies on.

mod file;

pub use file::FileDisk;

use std::io;
use std::os::fd::BorrowedFd;

/// A file, a device, or a test's idea of one.
///
/// What was written may be lost, wholly or in part, until a later flush has returned: in any order, a sector of 512 bytes being the
/// least that is lost or kept as one. What lies in the same [`Disk::sector`] as something that was written and not flushed may be destroyed with it.
/// The engine relies on nothing more.
pub trait Disk: Send + Sync + 'static {
    /// Its size.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads; offsets and lengths are multiples of [`Disk::unit`].
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes; offsets and lengths are multiples of [`Disk::unit`].
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written before is durable.
    fn flush(&self) -> io::Result<()>;

    /// The least that can be written, 512 or 4096 bytes.
    fn unit(&self) -> u32;

    /// What the device writes as one, 512 to 4096 bytes and at least the unit: a device of 512 bytes that emulates them in sectors of 4096 reads, changes
    /// and writes these, and loses all of one when the power goes meanwhile. 4096 is always safe.
    fn sector(&self) -> u32 {
        4096
    }

    /// Whether it answers in the time that a thread takes to wake: then whoever asks waits.
    fn is_in_memory(&self) -> bool;

    /// The file behind it, if the kernel can be asked for it without a thread that waits: it is as long open as the disk is.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl<D: Disk + ?Sized> Disk for std::sync::Arc<D> {
    fn bytes(&self) -> io::Result<u64> {
        (**self).bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read(offset, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }

    fn unit(&self) -> u32 {
        (**self).unit()
    }

    fn sector(&self) -> u32 {
        (**self).sector()
    }

    fn is_in_memory(&self) -> bool {
        (**self).is_in_memory()
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        (**self).file()
    }
}
