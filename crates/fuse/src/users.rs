//! Who uses a block device.

use rustix::fs::{AtFlags, CWD, Dev, FileType, StatxFlags, statx};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Somebody who keeps a device from being detached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// It is mounted here, in the namespace of that process.
    Mounted {
        /// Where.
        at: PathBuf,
        /// One of the processes that see it there.
        process: u32,
    },
    /// A process has it open.
    Open {
        /// Which.
        process: u32,
        /// Its name.
        command: String,
    },
    /// Another block device is made of it, such as a mapped one.
    Holder(String),
    /// The kernel says that it is in use, and no process that can be looked at is the reason.
    Unknown,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { at, process } => write!(f, "mounted on {} (seen by process {process})", at.display()),
            Self::Open { process, command } => write!(f, "open in process {process} ({command})"),
            Self::Holder(name) => write!(f, "part of the device {name}"),
            Self::Unknown => f.write_str("in use in a place that cannot be looked at from here"),
        }
    }
}

/// All that can be found; a mount once, though many processes see it.
pub(crate) fn users(device: Dev, name: &str) -> Vec<User> {
    let mut found = BTreeSet::new();
    let mut mounts = BTreeSet::new();
    if let Ok(holders) = fs::read_dir(format!("/sys/block/{name}/holders")) {
        found.extend(holders.flatten().map(|holder| User::Holder(holder.file_name().to_string_lossy().into_owned())));
    }
    for (process, folder) in processes() {
        let listed = fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
        for at in mounted(&listed, device) {
            // Of the same folder in two namespaces one tells enough.
            if mounts.insert(at.clone()) {
                found.insert(User::Mounted { at, process });
            }
        }
        if has_open(&folder, device) {
            let command = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
            found.insert(User::Open { process, command });
        }
    }
    found.into_iter().collect()
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn has_open(folder: &Path, device: Dev) -> bool {
    let files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|file| block_device(&file.path())).any(|found| found == device)
}

/// The number of the block device that a path leads to. Files are not asked of their servers, which may hang.
fn block_device(path: &Path) -> Option<Dev> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let about = statx(CWD, path, flags, StatxFlags::TYPE).ok()?;
    let is_block = FileType::from_raw_mode(about.stx_mode.into()) == FileType::BlockDevice;
    is_block.then(|| rustix::fs::makedev(about.stx_rdev_major, about.stx_rdev_minor))
}

/// Where a device is mounted, by the lines of a `mountinfo`.
fn mounted(listed: &str, device: Dev) -> Vec<PathBuf> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let place = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let is_it = fields.next() == Some(&number);
        let at = fields.nth(1)?;
        is_it.then(|| PathBuf::from(unescaped(at)))
    };
    listed.lines().filter_map(place).collect()
}

/// A path in which blanks and the like are written as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => out.extend([&char::from(code).to_string(), &part[3..]]),
            None => out.extend(["\\", part]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_device_are_found_in_the_kernels_list() {
        let listed = "29 1 254:0 / / rw,noatime - ext4 /dev/vda rw\n\
                      40 29 7:3 / /srv/a\\040b\\134c rw shared:5 - ext4 /dev/loop3 rw\n\
                      41 29 7:33 / /srv/other rw - ext4 /dev/loop33 rw\n\
                      42 29 7:3 /sub /srv/again rw - ext4 /dev/loop3 rw\nbroken\n";
        let found = mounted(listed, rustix::fs::makedev(7, 3));
        assert_eq!(found, [PathBuf::from("/srv/a b\\c"), PathBuf::from("/srv/again")]);
        assert_eq!(mounted(listed, rustix::fs::makedev(7, 4)), Vec::<PathBuf>::new());
    }

    #[test]
    fn only_block_devices_are_looked_at() {
        use std::os::unix::fs::MetadataExt;
        let null = fs::File::open("/dev/null").unwrap();
        // This process has it open; it is no block device.
        assert!(!has_open(Path::new("/proc/self"), null.metadata().unwrap().rdev()));
        assert_eq!(block_device(Path::new("/dev/null")), None);
        assert_eq!(block_device(Path::new("/nowhere")), None);
    }
}
