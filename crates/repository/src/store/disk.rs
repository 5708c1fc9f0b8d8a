//! The calls that put an object on a disk; the seam at which a test sees each of them, and lets one fail.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the creation of an object asks of a file system. Each call is one step, and none of them syncs but those that say so.
pub(super) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes one folder.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file, locked as long as it is open, where the file system can; it stays open, because only who has had it open is sure
    /// to hear what became of it.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<File>;
    /// Makes the content of a file durable.
    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()>;
    /// Moves a file to a name that must be free, in one step. Not every file system can (NFS cannot).
    fn move_to_free_name(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file another name, which must be free.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Whether both names are of one file.
    fn is_same_file(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let (one, other) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }
}

/// The file systems of this machine.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut file = File::create_new(path)?;
        // Who clears away what the dead have left goes by this, or else by time: without a lock nothing is lost but some work.
        let _ = file.try_lock();
        file.write_all(bytes)?;
        Ok(file)
    }

    fn sync_file(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn move_to_free_name(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// File systems on disks and in memory of this machine alone (`statfs`): ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs, overlayfs. Elsewhere, a lock
/// may be one of the machine that asks, and say nothing of who writes from another.
const OF_ONE_MACHINE: [u32; 7] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630];

/// Whether no process has a file locked that [`Disk::write_new`] has made; false where the file system does not tell of all processes.
pub(super) fn is_locked_by_nobody(path: &Path) -> io::Result<bool> {
    let file = File::options().write(true).open(path)?;
    let kind = u32::try_from(rustix::fs::fstatfs(&file)?.f_type).unwrap_or(0);
    Ok(OF_ONE_MACHINE.contains(&kind) && file.try_lock().is_ok())
}
