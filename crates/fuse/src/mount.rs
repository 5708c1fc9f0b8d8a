//! A file system that is a single file, and that nobody sees.
//!
//! It is made by `fsopen` and `fsmount`, which mount it nowhere: in no folder and in no namespace. The file is opened through the
//! descriptor of that mount and given to a loop device; then the descriptor is closed. From then on the loop device alone holds the file
//! system, which ends with it. So there is no mount that a node's tools could list, that a `umount -a` could end, or that must be cleaned
//! up after a crash.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use std::os::fd::AsRawFd;

/// Which step failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct MountError {
    step: &'static str,
    source: Errno,
}

fn at(step: &'static str) -> impl FnOnce(Errno) -> MountError {
    move |source| MountError { step, source }
}

/// Opens a connection to the kernel.
pub(crate) fn connect() -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(at("open /dev/fuse"))
}

/// A file system that is made, and not opened.
pub(crate) struct Made(OwnedFd);

impl AsFd for Made {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the file system of a connection. Only from then on can requests be read from it.
pub(crate) fn make(connection: impl AsFd) -> Result<Made, MountError> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("have a file system of FUSE (fsopen)"))?;
    let number = connection.as_fd().as_raw_fd().to_string();
    let user = rustix::process::geteuid().as_raw().to_string();
    let group = rustix::process::getegid().as_raw().to_string();
    for (key, value) in [
        ("source", "orlop"),
        ("fd", number.as_str()),
        // Its root is a plain file.
        ("rootmode", "100000"),
        ("user_id", user.as_str()),
        ("group_id", group.as_str()),
    ] {
        fsconfig_set_string(&context, key, value).map_err(at("configure the file system"))?;
    }
    fsconfig_create(&context).map_err(at("create the file system"))?;
    Ok(Made(context))
}

/// Opens the file of a file system, on which somebody must be answering requests.
///
/// The kernel learns its size with that. Otherwise a loop device would not know it: before Linux 6.17 it takes what the kernel knows already,
/// which is nothing until somebody has asked.
pub(crate) fn open(made: &Made, writable: bool) -> Result<OwnedFd, MountError> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&made.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at("mount the file system"))?;
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let path = format!("/proc/thread-self/fd/{}", mount.as_raw_fd());
    let file = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty()).map_err(at("open its file"))?;
    let asked = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    statx(&file, "", asked, StatxFlags::SIZE).map_err(at("ask for the size of its file"))?;
    Ok(file)
}
