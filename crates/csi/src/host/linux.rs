//! This machine.
//!
//! The process that serves a block device must not wait for it: were it killed then, it could not end, since the kernel lets nothing interrupt who waits for a
//! device; and while it has not ended, it has the pool, so that no other process can serve the device. So whatever may write to a device or wait for it
//! (mounting, unmounting, reading it, making a file system, going through its files) is done by programs, which can wait without holding anything. What is done
//! here changes the kernel's tables alone. (Reading is no exception: what is being read when the process ends has to come before the device is closed.)

use super::probe;
use super::{Content, DeviceInfo, FileSystem, Host, HostError, Mount, Place, Room, mounts};
use rustix::fs::{FileType, StatVfsMountFlags};
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The machine that this process runs on, in its namespace of mounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

/// What a mount has beside its file system, as the kernel tells it and as it is told.
const KEPT: [(StatVfsMountFlags, MountFlags); 6] = [
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
];
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
        let sectors: u64 = sectors
            .trim()
            .parse()
            .map_err(|_| HostError::system(failed())(io::Error::other("its size is no number")))?;
        Ok(DeviceInfo { number, bytes: sectors.saturating_mul(512) })
    }

    fn probe(&self, device: &Path) -> Result<Content, HostError> {
        let action = format!("read {}", device.display());
        let from = format!("if={}", device.display());
        let words = [from.as_str(), "bs=4096", "count=1", "iflag=direct"];
        let head = output(&action, "coreutils", "dd", &words, Path::new("status=none"), &[0])?;
        match probe::probe(&head) {
            Content::Other(None) => Ok(Content::Other(named(device))),
            known => Ok(known),
        }
    }

    fn format(&self, fs: FileSystem, device: &Path) -> Result<(), HostError> {
        let action = format!("make {fs} on {}", device.display());
        let (program, package, options): (_, _, &[&str]) = match fs {
            FileSystem::Ext4 => ("mkfs.ext4", "e2fsprogs", &["-q", "-F", "-m", "0", "-E", "nodiscard"]),
            FileSystem::Xfs => ("mkfs.xfs", "xfsprogs", &["-q", "-f", "-K"]),
        };
        // A program of an earlier process may still be at it.
        run(&action, package, program, options, device).map_err(busy)
    }

    fn mount(
        &self,
        fs: FileSystem,
        device: &Path,
        at: &Path,
        flags: &[String],
        read_only: bool,
    ) -> Result<(), HostError> {
        let mut options: Vec<&str> = flags.iter().map(String::as_str).collect();
        // A clone has the identity of what it was cloned from, which may be mounted here, too.
        options.extend((fs == FileSystem::Xfs).then_some("nouuid"));
        options.push(if read_only { "ro" } else { "rw" });
        let action = format!("mount {} as {fs} on {} with the options {flags:?}", device.display(), at.display());
        let (options, device) = (options.join(","), device.display().to_string());
        let words = ["-n", "-i", "-t", fs.name(), "-o", &options, "--source", &device, "--target"];
        run(&action, "mount", "mount", &words, at).map_err(|error| match busy(error) {
            HostError::Program { action, said } if said.contains("bad option") => HostError::Refused { action, said },
            other => other,
        })
    }

    fn bind(&self, from: &Path, at: &Path) -> Result<(), HostError> {
        let action = || format!("show {} on {}", from.display(), at.display());
        rustix::mount::mount_bind(from, at).map_err(|e| HostError::system(action())(e.into()))
    }

    fn rebind(&self, at: &Path, read_only: bool) -> Result<(), HostError> {
        let action =
            || format!("mount {} again {}", at.display(), if read_only { "read-only" } else { "to be written" });
        let now = rustix::fs::statvfs(at).map_err(|e| HostError::system(action())(e.into()))?.f_flag;
        // The kernel takes what is not said again for gone.
        let kept = KEPT.iter().filter(|(is, _)| now.contains(*is)).map(|(_, flag)| *flag).collect::<MountFlags>();
        let flag = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let done = rustix::mount::mount_remount(at, MountFlags::BIND | kept | flag, c"");
        done.map_err(|e| HostError::system(action())(e.into()))
    }

    fn unmount(&self, at: &Path) -> Result<(), HostError> {
        let action = format!("unmount {}", at.display());
        run(&action, "mount", "umount", &["-n", "-i", "-c"], at).map_err(busy)
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
        // One says that something was put right, which a journal to be replayed is.
        run_to(&action, "e2fsprogs", "e2fsck", &["-f", "-p"], device, &[0, 1]).map_err(busy)?;
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
        let action = format!("give {} to the group {group}", folder.display());
        let group = group.to_string();
        // The folder's own mark says that all in it is done: it goes first, and comes last.
        run(&action, "coreutils", "chmod", &["g-s"], folder)?;
        run(&action, "coreutils", "chgrp", &["-R", "-h", &group], folder)?;
        run(&action, "coreutils", "chmod", &["-R", "g+rwX"], folder)?;
        let path = folder.display().to_string();
        let words = [&path, "-xdev", "-depth", "-type", "d", "-exec", "chmod", "g+s", "{}"];
        run(&action, "findutils", "find", &words, Path::new("+"))
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

fn number(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// What programs say of what is used or mounted already, told apart from other failures.
fn busy(error: HostError) -> HostError {
    const SAID: [&str; 5] = ["busy", "already mounted", "in use", "is mounted", "contains a mounted"];
    match error {
        HostError::Program { action, said } if SAID.iter().any(|words| said.contains(words)) => {
            HostError::Busy { action: format!("{action}: {said}") }
        }
        other => other,
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
    output(action, package, program, options, last, good).map(drop)
}

/// Runs a program to its end; what it wrote.
fn output(
    action: &str,
    package: &'static str,
    program: &'static str,
    options: &[&str],
    last: &Path,
    good: &[i32],
) -> Result<Vec<u8>, HostError> {
    let ran = Command::new(program).args(options).arg(last).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let ran = match ran {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(HostError::Missing { program, package }),
        other => other.map_err(HostError::system(format!("{action}: run {program}")))?,
    };
    if ran.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(ran.stdout);
    }
    let said =
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(MOST_SAID).collect();
    Err(HostError::Program { action: action.to_owned(), said: format!("{program} ended with {}: {said}", ran.status) })
}
