//! Reading and setting what a file system knows of a file besides its content.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::entry::{Attributes, Device, Time, Xattr};

/// Attributes of the class `security.` that are stored but not set by a restore: the label is given by the policy of the node that
/// the volume is used on, and the kubelet sets it when it mounts a volume; hashes and signatures of files are made by the node's
/// own measuring, with keys that only it has.
const LEFT_TO_THE_NODE: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

/// Classes of attributes in which a file system shows what is its own: access control lists of NFS and CIFS servers, with names that
/// another server does not know, and properties of btrfs. They are stored, and not set by a restore.
const OF_THE_FILE_SYSTEM: [&[u8]; 2] = [b"system.", b"btrfs."];

/// What of these classes is the same on all file systems.
const ACCESS_LISTS: &[u8] = b"system.posix_acl_";

/// Classes of attributes that a restore takes away where the entry does not have them: a new file inherits access control
/// lists from its directory. Other classes are set by the kernel itself.
const OWNED_CLASSES: [&[u8]; 2] = [b"user.", ACCESS_LISTS];

/// How often a list of attributes is read again because it grew between asking for its length and reading it.
const XATTR_ATTEMPTS: usize = 8;

/// Most bytes of all extended attributes of a file: half of what an entry may have. Linux allows 64 KiB for one value, and
/// most file systems no more for all.
const XATTRS_BYTES: usize = 4 << 20;

/// What `statx` says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) inode: u64,
    pub(super) device: Device,
    pub(super) represents: Device,
    pub(super) links: u32,
    /// The mount that the file is on, where the kernel tells (since 5.8).
    pub(super) mount: Option<u64>,
}

impl Stat {
    /// Looks at the entry `name` of a directory, not following a symlink.
    pub(super) fn at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        Self::read(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    /// Looks at an open file.
    pub(super) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::read(file, b"", AtFlags::EMPTY_PATH)
    }

    fn read(directory: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        rustix::fs::statx(directory, name, flags, wanted).map(Self::from)
    }

    /// Whether two looks at a file show that it was not written in between.
    pub(super) fn is_same_content(&self, other: &Self) -> bool {
        (self.inode, self.size, self.mtime, self.ctime) == (other.inode, other.size, other.mtime, other.ctime)
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.inode, self.device) == (other.inode, other.device)
    }

    /// Whether the entry is on another mount than `root`. The device decides only where the kernel does not tell the mount:
    /// an overlay shows files of several devices in one mount, and so does btrfs with its subvolumes.
    pub(super) fn is_beyond(&self, root: &Self) -> bool {
        match (self.mount, root.mount) {
            (Some(own), Some(of_root)) => own != of_root,
            _ => self.device != root.device,
        }
    }

    pub(super) fn attributes(&self, xattrs: Vec<Xattr>) -> Attributes {
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            ctime: self.ctime,
            inode: self.inode,
            device: self.device,
            xattrs,
        }
    }
}

impl From<Statx> for Stat {
    fn from(found: Statx) -> Self {
        let time = |time: StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Self {
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: u32::from(found.stx_mode) & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
            inode: found.stx_ino,
            device: Device { major: found.stx_dev_major, minor: found.stx_dev_minor },
            represents: Device { major: found.stx_rdev_major, minor: found.stx_rdev_minor },
            links: found.stx_nlink,
            mount: (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id),
        }
    }
}

/// A file whose attributes are read or set: open, or by its name in an open directory where it cannot be opened
/// (symlinks, fifos, devices).
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    Open(BorrowedFd<'a>),
    Named { directory: BorrowedFd<'a>, name: &'a [u8] },
}

impl Handle<'_> {
    /// The way to the file through procfs, for calls that know no directory: the directory is the open one whatever it
    /// is called by now, and the name in it is not followed.
    fn proc_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    }

    fn list_xattrs(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::flistxattr(file, buffer),
            Self::Named { directory, name } => rustix::fs::llistxattr(Self::proc_path(directory, name), buffer),
        }
    }

    fn get_xattr(self, xattr: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::fgetxattr(file, xattr, buffer),
            Self::Named { directory, name } => rustix::fs::lgetxattr(Self::proc_path(directory, name), xattr, buffer),
        }
    }

    fn set_xattr(self, xattr: &Xattr) -> Result<(), Errno> {
        let (name, value) = (&xattr.name[..], &xattr.value[..]);
        match self {
            Self::Open(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
            Self::Named { directory, name: file } => {
                rustix::fs::lsetxattr(Self::proc_path(directory, file), name, value, XattrFlags::empty())
            }
        }
    }

    fn remove_xattr(self, xattr: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(file) => rustix::fs::fremovexattr(file, xattr),
            Self::Named { directory, name } => rustix::fs::lremovexattr(Self::proc_path(directory, name), xattr),
        }
    }

    /// All extended attributes, sorted by name. A file system without any has none.
    pub(super) fn xattrs(self) -> Result<Vec<Xattr>, Errno> {
        let names = match read_growing(|buffer| self.list_xattrs(buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            names => names?,
        };
        let (mut xattrs, mut bytes) = (Vec::new(), 0);
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            match read_growing(|buffer| self.get_xattr(name, buffer)) {
                Ok(value) => {
                    bytes += name.len() + value.len();
                    xattrs.push(Xattr { name: name.to_vec(), value });
                }
                Err(Errno::NODATA) => {} // It was taken away after the list was read.
                Err(error) => return Err(error),
            }
            if bytes > XATTRS_BYTES {
                return Err(Errno::TOOBIG);
            }
        }
        xattrs.sort();
        Ok(xattrs)
    }

    /// Sets owner, extended attributes, mode and times, in this order: a change of the owner takes set-user-id and
    /// capabilities away, an access control list changes the mode, and everything changes the times.
    pub(super) fn apply(self, attributes: &Attributes) -> Result<(), (&'static str, Errno)> {
        let step = |action| move |error| (action, error);
        let owner = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
        match self {
            Self::Open(file) => rustix::fs::fchown(file, owner.0, owner.1),
            Self::Named { directory, name } => {
                rustix::fs::chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
        .map_err(step("set the owner of"))?;
        self.apply_xattrs(&attributes.xattrs).map_err(step("set the extended attributes of"))?;
        self.apply_mode(attributes.mode).map_err(step("set the mode of"))?;
        let times = Timestamps { last_access: attributes.mtime.into(), last_modification: attributes.mtime.into() };
        match self {
            Self::Open(file) => rustix::fs::futimens(file, &times),
            Self::Named { directory, name } => {
                rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
        .map_err(step("set the times of"))
    }

    /// A symlink has no mode of its own; of the others by name (fifos and devices, made by the caller a moment ago in a
    /// directory that only he enters) the name is not a symlink.
    fn apply_mode(self, mode: u32) -> Result<(), Errno> {
        match self {
            Self::Open(file) => rustix::fs::fchmod(file, Mode::from_raw_mode(mode)),
            Self::Named { directory, name } => match Stat::at(directory, name)?.kind {
                FileType::Symlink => Ok(()),
                _ => rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty()),
            },
        }
    }

    fn apply_xattrs(self, wanted: &[Xattr]) -> Result<(), Errno> {
        let present = self.xattrs()?;
        for xattr in &present {
            let owned = OWNED_CLASSES.iter().any(|class| xattr.name.starts_with(class));
            if owned && !wanted.iter().any(|other| other.name == xattr.name) {
                self.remove_xattr(&xattr.name)?;
            }
        }
        for xattr in restored_xattrs(wanted) {
            if !present.contains(xattr) {
                self.set_xattr(xattr)?;
            }
        }
        Ok(())
    }
}

/// The attributes that a restore sets and a comparison looks at.
pub(super) fn restored_xattrs(xattrs: &[Xattr]) -> impl Iterator<Item = &Xattr> {
    xattrs.iter().filter(|xattr| is_restored(&xattr.name))
}

fn is_restored(name: &[u8]) -> bool {
    let of_the_file_system = OF_THE_FILE_SYSTEM.iter().any(|class| name.starts_with(class));
    !LEFT_TO_THE_NODE.contains(&name) && (!of_the_file_system || name.starts_with(ACCESS_LISTS))
}

impl From<Time> for Timespec {
    fn from(time: Time) -> Self {
        Self { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
    }
}

/// Reads what has a length that is not known before, with a buffer that grows while it does not suffice.
fn read_growing(mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    for _ in 0..XATTR_ATTEMPTS {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// Opens a directory that is an entry of `directory` and not a symlink.
pub(super) fn open_directory<Fd: AsFd>(directory: Fd, name: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_node_or_the_file_system_is_left_to_it() {
        let restored =
            ["user.a", "trusted.a", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
        let left = [
            "security.selinux",
            "security.ima",
            "security.evm",
            "system.nfs4_acl",
            "system.nfs4_dacl",
            "system.cifs_acl",
            "system.richacl",
            "btrfs.compression",
        ];
        assert!(restored.iter().all(|name| is_restored(name.as_bytes())));
        assert!(!left.iter().any(|name| is_restored(name.as_bytes())));
    }
}
