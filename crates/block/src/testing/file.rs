//! A file as a device, read and written at once: for files in memory.

use crate::{
    ALLOCATION, BlockSizes, Buffer, ContextQuery, Description, Device, Done, Failure, FailureKind, Features, HOLE,
    Status, ZERO, ZeroMode,
};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fdatasync, seek};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file that is a device.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
    /// What requests should look like.
    pub blocks: BlockSizes,
}

impl FileDisk {
    /// Opens a file that is there, with the length that it has.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::options().read(true).write(true).open(path)?)
    }

    /// The same of a file that is open, which may be a block device.
    pub fn of(file: File) -> io::Result<Self> {
        let size = seek(&file, SeekFrom::End(0))?;
        let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 32 << 20 };
        Ok(Self { file, size, blocks })
    }

    fn deallocate(&self, range: Range<u64>, flags: FallocateFlags, durable: bool) -> io::Result<()> {
        let (flags, len) = (flags | FallocateFlags::KEEP_SIZE, range.end - range.start);
        match fallocate(&self.file, flags, range.start, len) {
            // tmpfs knows holes, and no allocated zeros.
            Err(rustix::io::Errno::OPNOTSUPP) if flags.contains(FallocateFlags::ZERO_RANGE) => {
                fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, len)?;
                fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, len)?;
            }
            other => other?,
        }
        if durable { Ok(fdatasync(&self.file)?) } else { Ok(()) }
    }

    /// Where the stretch ends that begins at `at`, and whether it is a hole.
    fn stretch(&self, at: u64) -> io::Result<(u64, bool)> {
        match seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) if data == at => Ok((seek(&self.file, SeekFrom::Hole(at))?, false)),
            Ok(data) => Ok((data, true)),
            Err(rustix::io::Errno::NXIO) => Ok((self.size, true)),
            Err(error) => Err(error.into()),
        }
    }

    fn states(&self, range: Range<u64>, most: usize) -> io::Result<Vec<Status>> {
        let (mut at, mut found) = (range.start, Vec::new());
        while at < range.end && found.len() < most {
            let (end, hole) = self.stretch(at)?;
            let end = end.min(range.end);
            found.push(Status { len: end - at, flags: if hole { HOLE | ZERO } else { 0 } });
            at = end;
        }
        Ok(found)
    }
}

fn failed(error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => FailureKind::NoSpace,
        io::ErrorKind::Unsupported => FailureKind::NotSupported,
        _ => FailureKind::Io,
    };
    Failure::new(kind, format!("the file: {error}"))
}

impl Device for FileDisk {
    fn describe(&self) -> Result<Description, Failure> {
        Ok(Description { size: self.size, blocks: self.blocks, features: Features::ALL })
    }

    fn read(&self, offset: u64, mut buffer: Buffer, done: Done<Buffer>) {
        let read = self.file.read_exact_at(&mut buffer, offset);
        done.finish(read.map(|()| buffer).map_err(|error| failed(&error)));
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        let mut written = self.file.write_all_at(&bytes, offset);
        if durable {
            written = written.and_then(|()| Ok(fdatasync(&self.file)?));
        }
        done.finish(written.map_err(|error| failed(&error)));
    }

    fn flush(&self, done: Done<()>) {
        done.finish(fdatasync(&self.file).map_err(|error| failed(&error.into())));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.write_zeroes(range, ZeroMode { durable, keep_allocated: false }, done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        let flags = if mode.keep_allocated { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        done.finish(self.deallocate(range, flags, mode.durable).map_err(|error| failed(&error)));
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        Ok(super::picked(query, most, [ALLOCATION]))
    }

    fn block_status(&self, _context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        done.finish(self.states(range, most).map_err(|error| failed(&error)));
    }
}
