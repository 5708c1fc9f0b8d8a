//! This machine.

use super::probe::{self, HEAD};
use super::{Content, DeviceInfo, FileSystem, Host, HostError, Mount, Place, Room, mounts};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::CapabilitySet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The machine that this process runs on, in its namespace of mounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

/// Options of mount(2) that are flags, and not the file system's.
const FLAGS: [(&str, MountFlags); 12] = [
    ("ro", MountFlags::RDONLY),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
    ("lazytime", MountFlags::LAZYTIME),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("nosuid", MountFlags::NOSUID),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("silent", MountFlags::SILENT),
];
/// What a mount has beside its file system, as the kernel tells it and as it is told.
const KEPT: [(StatVfsMountFlags, MountFlags); 6] = [
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
];
/// Options that say what is so anyway.
const USUAL: [&str; 6] = ["rw", "atime", "dev", "exec", "suid", "async"];
/// What a program may say before it is cut.
const MOST_SAID: usize = 600;

impl Host for Linux {
    fn mounts(&self) -> Result<Vec<Mount>, HostError> {
        let action = "read the table of mounts";
        let table = fs::read("/proc/self/mountinfo").map_err(HostError::system(action))?;
        let odd = || HostError::system(action)(io::Error::other("a line of it is not understood"));
        mounts::parse(&String::from_utf8_lossy(&table)).ok_or_else(odd)
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, HostError> {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
            other => other.map_err(HostError::system(format!("look at {}", path.display()))),
        }
    }

    fn look(&self, path: &Path) -> Result<Place, HostError> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Nothing),
            other => other.map_err(HostError::system(format!("look at {}", path.display())))?,
        };
        let kind = FileType::from_raw_mode(found.mode());
        Ok(match kind {
            FileType::Directory => Place::Folder,
            FileType::BlockDevice => Place::Device(number(found.rdev())),
            _ => Place::Other,
        })
    }

    fn device(&self, path: &Path) -> Result<DeviceInfo, HostError> {
        let failed = || format!("look at the device {}", path.display());
        let found = fs::metadata(path).map_err(HostError::system(failed()))?;
        if FileType::from_raw_mode(found.mode()) != FileType::BlockDevice {
            return Err(HostError::system(failed())(io::Error::other("it is no block device")));
        }
        let number = number(found.rdev());
        let size = format!("/sys/dev/block/{}:{}/size", number.0, number.1);
        let sectors = fs::read_to_string(size).map_err(HostError::system(failed()))?;
        let sectors: u64 =
            sectors.trim().parse().map_err(|_| HostError::system(failed())(io::Error::other("its size is no number")))?;
        Ok(DeviceInfo { number, bytes: sectors.saturating_mul(512) })
    }

    fn probe(&self, device: &Path) -> Result<Content, HostError> {
        let mut head = Vec::with_capacity(HEAD);
        let read = File::open(device).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
        read.map_err(HostError::system(format!("read {}", device.display())))?;
        match probe::probe(&head) {
            Content::Other(None) => Ok(Content::Other(named(device))),
            known => Ok(known),
        }
    }

    fn format(&self, fs: FileSystem, device: &Path) -> Result<(), HostError> {
        let action = format!("make {fs} on {}", device.display());
        // A program of an earlier process may still be at it.
        unused(device, &action)?;
        let (program, package, options): (_, _, &[&str]) = match fs {
            FileSystem::Ext4 => ("mkfs.ext4", "e2fsprogs", &["-q", "-F", "-m", "0", "-E", "nodiscard"]),
            FileSystem::Xfs => ("mkfs.xfs", "xfsprogs", &["-q", "-f", "-K"]),
        };
        run(&action, package, program, options, device)?;
        let synced = File::open(device).and_then(|file| file.sync_all());
        synced.map_err(HostError::system(action))
    }

    fn mount(
        &self,
        fs: FileSystem,
        device: &Path,
        at: &Path,
        flags: &[String],
        read_only: bool,
    ) -> Result<(), HostError> {
        let mut bits = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        // A clone has the identity of what it was cloned from, which may be mounted here, too.
        let mut options: Vec<&str> = if fs == FileSystem::Xfs { vec!["nouuid"] } else { Vec::new() };
        for flag in flags.iter().map(String::as_str).filter(|flag| !USUAL.contains(flag)) {
            match FLAGS.iter().find(|(name, _)| *name == flag) {
                Some((_, bit)) => bits |= *bit,
                None => options.push(flag),
            }
        }
        let action = || format!("mount {} as {fs} on {} with the options {flags:?}", device.display(), at.display());
        let options = options.join(",");
        let options = std::ffi::CString::new(options).map_err(|e| HostError::system(action())(e.into()))?;
        rustix::mount::mount(device, at, fs.name(), bits, options.as_c_str()).map_err(|error| match error {
            Errno::INVAL => HostError::Refused { action: action(), source: error.into() },
            Errno::BUSY => HostError::Busy { action: action() },
            _ => HostError::system(action())(error.into()),
        })
    }

    fn bind(&self, from: &Path, at: &Path) -> Result<(), HostError> {
        let action = || format!("show {} on {}", from.display(), at.display());
        rustix::mount::mount_bind(from, at).map_err(|e| HostError::system(action())(e.into()))
    }

    fn rebind(&self, at: &Path, read_only: bool) -> Result<(), HostError> {
        let action = || format!("mount {} again {}", at.display(), if read_only { "read-only" } else { "to be written" });
        let now = rustix::fs::statvfs(at).map_err(|e| HostError::system(action())(e.into()))?.f_flag;
        // The kernel takes what is not said again for gone.
        let kept = KEPT.iter().filter(|(is, _)| now.contains(*is)).map(|(_, flag)| *flag).collect::<MountFlags>();
        let flag = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let done = rustix::mount::mount_remount(at, MountFlags::BIND | kept | flag, c"");
        done.map_err(|e| HostError::system(action())(e.into()))
    }

    fn unmount(&self, at: &Path) -> Result<(), HostError> {
        let action = || format!("unmount {}", at.display());
        match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => Err(HostError::Busy { action: action() }),
            Err(error) => Err(HostError::system(action())(error.into())),
        }
    }

    fn protect(&self, device: &Path, read_only: bool) -> Result<(), HostError> {
        let option = if read_only { "--setro" } else { "--setrw" };
        let action = format!("say whether {} can be written", device.display());
        run(&action, "util-linux", "blockdev", &[option], device)
    }

    fn grows_mounted(&self, fs: FileSystem) -> bool {
        let has = |wanted| rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted));
        fs == FileSystem::Xfs || has(CapabilitySet::SYS_RESOURCE)
    }

    fn grow_unmounted(&self, fs: FileSystem, device: &Path) -> Result<(), HostError> {
        let action = format!("let {fs} on {} fill its device", device.display());
        if fs == FileSystem::Xfs {
            let reason = io::Error::other("XFS grows only while it is mounted");
            return Err(HostError::system(action)(reason));
        }
        unused(device, &action)?;
        // One says that something was put right, which a journal to be replayed is.
        run_to(&action, "e2fsprogs", "e2fsck", &["-f", "-p"], device, &[0, 1])?;
        run(&action, "e2fsprogs", "resize2fs", &[], device)
    }

    fn grow(&self, fs: FileSystem, device: &Path, at: &Path) -> Result<(), HostError> {
        let action = format!("let {fs} on {} fill its device", at.display());
        match fs {
            FileSystem::Ext4 => run(&action, "e2fsprogs", "resize2fs", &[], device),
            FileSystem::Xfs => run(&action, "xfsprogs", "xfs_growfs", &["-d"], at),
        }
    }

    fn give(&self, folder: &Path, group: u32) -> Result<(), HostError> {
        let about = fs::metadata(folder).map_err(HostError::system(format!("look at {}", folder.display())))?;
        if about.gid() == group && about.mode() & GROUPS_FOLDER == GROUPS_FOLDER {
            return Ok(());
        }
        let mut folders = vec![folder.to_owned()];
        let mut at = 0;
        while let Some(next) = folders.get(at).cloned() {
            at += 1;
            let inside = fs::read_dir(&next).map_err(HostError::system(format!("list {}", next.display())))?;
            for entry in inside {
                let entry = entry.map_err(HostError::system(format!("list {}", next.display())))?;
                let kind = entry.file_type().map_err(HostError::system(format!("look at {}", entry.path().display())))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else {
                    give_one(&entry.path(), group, kind.is_file().then_some(0o660))?;
                }
            }
        }
        // The folder itself comes last: it says that all in it is done.
        folders.iter().rev().try_for_each(|folder| give_one(folder, group, Some(GROUPS_FOLDER)))
    }

    fn room(&self, folder: &Path) -> Result<Room, HostError> {
        let action = format!("ask how full {} is", folder.display());
        let told = rustix::fs::statvfs(folder).map_err(|e| HostError::system(action)(e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        let used = |all: u64, free: u64| all.saturating_sub(free);
        Ok(Room {
            bytes: (bytes(told.f_blocks), bytes(used(told.f_blocks, told.f_bfree)), bytes(told.f_bavail)),
            files: (told.f_files, used(told.f_files, told.f_ffree), told.f_favail),
        })
    }

    fn make(&self, path: &Path, folder: bool) -> Result<(), HostError> {
        let failed = || HostError::system(format!("make {}", path.display()));
        let above = if folder { path } else { path.parent().unwrap_or(path) };
        fs::create_dir_all(above).map_err(failed())?;
        if folder {
            return Ok(());
        }
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed()(error)),
            _ => Ok(()),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        let failed = || HostError::system(format!("remove {}", path.display()));
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed())?,
        };
        let is_empty = found.is_file() && found.len() == 0;
        if !found.is_dir() && !is_empty {
            return Err(failed()(io::Error::other("it is not what was made for the volume")));
        }
        if found.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.map_err(failed())
    }
}

/// A folder of a group: its members may do all in it, and what is made in it is theirs.
const GROUPS_FOLDER: u32 = 0o2770;

fn give_one(path: &Path, group: u32, mode: Option<u32>) -> Result<(), HostError> {
    let failed = || HostError::system(format!("give {} to the group {group}", path.display()));
    let gid = Some(Gid::from_raw(group));
    rustix::fs::chownat(CWD, path, None, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed()(e.into()))?;
    let Some(mode) = mode else { return Ok(()) };
    let now = fs::symlink_metadata(path).map_err(failed())?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(now | mode)).map_err(failed())
}

fn number(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Refuses a device that somebody has for himself: a program that makes a file system, or a mount.
fn unused(device: &Path, action: &str) -> Result<(), HostError> {
    let opened = rustix::fs::open(device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
    match opened {
        Ok(_) => Ok(()),
        Err(Errno::BUSY) => Err(HostError::Busy { action: action.to_owned() }),
        Err(error) => Err(HostError::system(action)(error.into())),
    }
}

/// What util-linux calls it.
fn named(device: &Path) -> Option<String> {
    let mut command = Command::new("blkid");
    command.args(["-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE"]).arg(device).stdin(Stdio::null());
    let said = String::from_utf8(command.output().ok()?.stdout).ok()?;
    said.lines().next().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn run(
    action: &str,
    package: &'static str,
    program: &'static str,
    options: &[&str],
    last: &Path,
) -> Result<(), HostError> {
    run_to(action, package, program, options, last, &[0])
}

fn run_to(
    action: &str,
    package: &'static str,
    program: &'static str,
    options: &[&str],
    last: &Path,
    good: &[i32],
) -> Result<(), HostError> {
    let ran = Command::new(program).args(options).arg(last).stdin(Stdio::null()).output();
    let ran = match ran {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(HostError::Missing { program, package }),
        other => other.map_err(HostError::system(format!("{action}: run {program}")))?,
    };
    if ran.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(MOST_SAID).collect();
    Err(HostError::Program { action: action.to_owned(), said: format!("{program} ended with {}: {said}", ran.status) })
}
