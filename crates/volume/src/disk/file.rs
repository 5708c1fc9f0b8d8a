//! A file or a raw device as a disk.

use super::Disk;
use crate::error::OpenError;
use crate::memory::Buffer;
use rustix::fs::{Advice, FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What `statfs` says of file systems that are memory: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A file or a raw device, locked for as long as it is open, used without the system's cache where that is possible.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    /// What offsets, lengths and memory must be multiples of.
    unit: u32,
    /// What the device writes as one.
    sector: u32,
    direct: bool,
    in_memory: bool,
}

impl FileDisk {
    /// Opens what is there.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or another process has it open as a pool.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, true)
    }

    /// Opens it for examination: nothing can be written.
    ///
    /// # Errors
    ///
    /// Those of [`FileDisk::open`].
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, false)
    }

    /// Makes a file of so many bytes, sparse, and opens it. An existing file is left as it is.
    ///
    /// # Errors
    ///
    /// If there is one, or it cannot be made.
    pub fn create(path: &Path, bytes: u64) -> Result<Self, OpenError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(OpenError::disk(format!("create {}", path.display())))?;
        file.set_len(bytes).map_err(OpenError::disk(format!("give {} its size", path.display())))?;
        // The name must survive as well as the bytes.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = OpenOptions::new().read(true).open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(OpenError::disk(format!("sync {}", folder.display())))?;
        Self::open(path)
    }

    fn open_as(path: &Path, write: bool) -> Result<Self, OpenError> {
        let error = |action: &str| OpenError::disk(format!("{action} {}", path.display()));
        let open = |flags: OFlags| {
            let flags = i32::try_from(flags.bits()).unwrap_or(0);
            OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
        };
        let kind = std::fs::metadata(path).map_err(error("look at"))?.file_type();
        // A device that is mounted, or a member of something, refuses to be opened like this.
        let exclusive = if kind.is_block_device() && write { OFlags::EXCL } else { OFlags::empty() };
        let plain = open(exclusive).map_err(error("open"))?;
        if rustix::fs::flock(&plain, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OpenError::InUse { path: path.display().to_string() });
        }
        let system = rustix::fs::fstatfs(&plain).map_err(|e| error("look at the file system of")(e.into()))?;
        let in_memory = kind.is_file() && u64::try_from(system.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind));
        // Memory has no power to lose that the process survives.
        let sector = if in_memory { 512 } else { physical_sector(&plain, kind.is_block_device()) };
        let mut disk = Self { file: plain, unit: 512, sector, direct: false, in_memory };
        if !in_memory {
            disk.use_directly(path)?;
            drop_cache(&disk.file).map_err(error("write what the cache has of"))?;
        }
        Ok(disk)
    }

    /// Goes past the system's cache, if the file system lets it: by a flag on the open file, so that the lock is kept.
    fn use_directly(&mut self, path: &Path) -> Result<(), OpenError> {
        let flags = rustix::fs::fcntl_getfl(&self.file)
            .map_err(|e| OpenError::disk(format!("look at {}", path.display()))(e.into()))?;
        if rustix::fs::fcntl_setfl(&self.file, flags | OFlags::DIRECT).is_err() {
            return Ok(());
        }
        let mut probe = Buffer::zeroed(4096);
        let mut takes = |unit: usize| self.file.read_exact_at(&mut probe[..unit], unit as u64).is_ok();
        if takes(512) || takes(4096) {
            self.direct = true;
            self.unit = if takes(512) { 512 } else { 4096 };
            return Ok(());
        }
        let undone = rustix::fs::fcntl_setfl(&self.file, flags);
        undone.map_err(|e| OpenError::disk(format!("use the cache for {}", path.display()))(e.into()))
    }

    fn is_aligned(&self, bytes: &[u8]) -> bool {
        !self.direct || bytes.as_ptr().align_offset(self.unit as usize) == 0
    }

    /// Whether it is a file, and no device.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Makes the file longer; a device has the length that it has.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn extend(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.bytes()? { self.file.set_len(bytes) } else { Ok(()) }
    }
}

impl Disk for FileDisk {
    fn bytes(&self) -> io::Result<u64> {
        // The end of a device is found by seeking; its metadata says zero. Nothing here uses the position.
        Ok(rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0))?)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.is_aligned(into) {
            return self.file.read_exact_at(into, offset);
        }
        let mut aligned = Buffer::zeroed(into.len());
        self.file.read_exact_at(&mut aligned, offset)?;
        into.copy_from_slice(&aligned);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_aligned(bytes) {
            return self.file.write_all_at(bytes, offset);
        }
        self.file.write_all_at(&Buffer::copy_of(bytes), offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn unit(&self) -> u32 {
        self.unit
    }

    fn sector(&self) -> u32 {
        self.sector.max(self.unit)
    }

    fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// With the system's cache, the kernel would have threads of its own wait, and not tell.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.direct.then(|| self.file.as_fd())
    }
}

/// Has the next reads ask the device. After a write that failed, the cache shows what was written as if it were on the device, to the next process, too. What only waits to be
/// written is written first. With direct I/O there is nothing to drop, but some file systems take the flag and use their cache all the same.
fn drop_cache(file: &File) -> io::Result<()> {
    file.sync_data()?;
    // A device of which the system keeps no cache may not know the advice.
    match rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}

/// What the device writes as one: of a file, the device of its file system. 4096 if nobody knows, or it is more: pools are made of such blocks, so more
/// would not help.
fn physical_sector(file: &File, is_device: bool) -> u32 {
    let told = if is_device {
        rustix::fs::ioctl_blkpbszget(file).ok()
    } else {
        rustix::fs::fstat(file).ok().and_then(|stat| sector_in_sysfs(Path::new("/sys/dev/block"), stat.st_dev))
    };
    told.filter(|bytes| [512, 1024, 2048].contains(bytes)).unwrap_or(4096)
}

/// What the kernel tells of a device, or of the disk that a partition lies on.
fn sector_in_sysfs(devices: &Path, device: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let folder = devices.join(format!("{major}:{minor}"));
    let told = ["queue", "../queue"].map(|queue| folder.join(queue).join("physical_block_size"));
    told.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the cache has this byte: only then a read that may not wait has something.
    fn is_cached(file: &File, offset: u64) -> bool {
        let mut byte = [0];
        let read = rustix::io::preadv2(
            file,
            &mut [io::IoSliceMut::new(&mut byte)],
            offset,
            rustix::io::ReadWriteFlags::NOWAIT,
        );
        match read {
            Ok(count) => count == 1,
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::AGAIN);
                false
            }
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test looks at the file of a pool from outside")]
    fn a_pool_that_is_opened_is_read_from_its_device_and_not_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let plain = File::create_new(&path).unwrap();
        let bytes = vec![7; 1 << 20];
        plain.write_all_at(&bytes, 0).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(is_cached(&reader, 512 << 10));
        for open in [FileDisk::open, FileDisk::open_read_only] {
            let disk = open(&path).unwrap();
            if disk.is_in_memory() {
                skips::skip!("{} is in memory, which has no cache; set TMPDIR", folder.path().display());
            }
            assert!(!is_cached(&reader, 512 << 10));
            let mut read = Buffer::zeroed(4096);
            disk.read(512 << 10, &mut read).unwrap();
            assert_eq!(&read[..], &bytes[..4096], "what waited to be written is on the device");
            drop(disk);
            reader.read_exact_at(&mut [0], 512 << 10).unwrap();
            assert!(is_cached(&reader, 512 << 10));
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test writes the files that a kernel has")]
    fn the_sector_of_a_file_is_that_of_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("8:0/queue");
        std::fs::create_dir_all(&disk).unwrap();
        std::fs::write(disk.join("physical_block_size"), "4096\n").unwrap();
        let partition = folder.path().join("8:0/sda1");
        std::fs::create_dir_all(&partition).unwrap();
        std::os::unix::fs::symlink(&partition, folder.path().join("8:1")).unwrap();
        let device = |minor| rustix::fs::makedev(8, minor);
        assert_eq!(sector_in_sysfs(folder.path(), device(0)), Some(4096));
        assert_eq!(sector_in_sysfs(folder.path(), device(1)), Some(4096));
        assert_eq!(sector_in_sysfs(folder.path(), device(2)), None);
    }
}
