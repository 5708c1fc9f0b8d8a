//! Loop devices that a node leaves behind.
//!
//! They belong to the kernel, not to a namespace, so they outlive the node that attached them. Which are a node's is
//! found by the inode of the file behind them, as paths differ between namespaces; or, where that file is on no disk, by
//! what is mounted in the node before it goes off.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::process::{self, ProcessId};
use crate::wait;

/// A detached device goes when the last mount over it has: shortly after its namespace.
const DETACH_LIMIT: Duration = Duration::from_secs(10);
const DETACH_LOOK: Duration = Duration::from_millis(50);
/// What the numbers of loop devices begin with.
const LOOP_MAJOR: &str = "7:";

#[derive(Deserialize, Default)]
struct Listing {
    #[serde(default)]
    loopdevices: Vec<LoopDevice>,
}

#[derive(Deserialize, Debug, Clone)]
struct LoopDevice {
    name: String,
    #[serde(rename = "back-ino", deserialize_with = "number")]
    inode: u64,
    #[serde(rename = "back-maj:min", deserialize_with = "trimmed")]
    device: String,
    /// The path of the file, as it was where the device was attached.
    #[serde(rename = "back-file", deserialize_with = "trimmed")]
    file: String,
}

/// Releases of losetup differ in whether this is a number or a string. Of a file that cannot be looked at any more, such as one whose server has ended, it is nothing; no file has 0.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(0);
    }
    let text = value.as_str().map(str::trim).and_then(|text| text.parse().ok());
    value.as_u64().or(text).ok_or_else(|| serde::de::Error::custom("not an inode number"))
}

fn trimmed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default().trim().to_owned())
}

async fn devices() -> Result<Vec<LoopDevice>> {
    let mut command = Command::new("losetup");
    command.args(["--json", "--list", "--output", "NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE"]);
    let text = process::run(&mut command, "").await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(&text).map_err(|source| Error::Json {
        action: "decode what losetup says of",
        path: "/dev/loop*".into(),
        source,
    })?;
    Ok(listing.loopdevices)
}

/// The devices that are mounted in the namespace of a process, as file systems or as what they are, such as those of storage that runs
/// on the node; each after those that are stacked on it.
pub(crate) async fn seen_by(process: ProcessId) -> Result<Vec<PathBuf>> {
    let table = PathBuf::from(format!("/proc/{}/mountinfo", process.pid()));
    let table = std::fs::read_to_string(&table).map_err(Error::file("read", &table))?;
    let mounted: BTreeSet<PathBuf> = table.lines().filter_map(mounted_loop).collect();
    if mounted.is_empty() {
        return Ok(Vec::new());
    }
    let all = devices().await?;
    let above = all.iter().filter(|upper| mounted.iter().any(|lower| is_stacked_on(upper, lower)));
    Ok(above.map(|upper| PathBuf::from(&upper.name)).chain(mounted.iter().cloned()).collect())
}

/// The loop device that a line of a table of mounts shows.
fn mounted_loop(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ').skip(2);
    let (device, root) = (words.next()?, words.next()?);
    // Its file system, or its file in the folder of devices.
    let number = device.strip_prefix(LOOP_MAJOR).or_else(|| root.strip_prefix("/loop"))?;
    number.parse::<u32>().ok().map(|number| PathBuf::from(format!("/dev/loop{number}")))
}

/// Detaches devices of a node that is off.
pub(crate) async fn detach(devices: &[PathBuf]) -> Result<()> {
    let is_bound = |device: &&PathBuf| {
        let name = device.file_name().unwrap_or_default();
        Path::new("/sys/block").join(name).join("loop/backing_file").exists()
    };
    for device in devices.iter().filter(is_bound) {
        // One that went with its last mount in this moment is no error; one that stays is, below.
        let _ = process::run(Command::new("losetup").arg("--detach").arg(device), "").await;
    }
    let names: Vec<_> = devices.iter().map(|device| device.display().to_string()).collect();
    let what = format!("the end of the loop devices {}", names.join(", "));
    wait::until(&what, DETACH_LIMIT, DETACH_LOOK, async || Ok((!devices.iter().any(|d| is_bound(&d))).then_some(())))
        .await
}

fn is_stacked_on(upper: &LoopDevice, lower: &Path) -> bool {
    let node = lower.metadata();
    node.is_ok_and(|meta| meta.ino() == upper.inode && number_of(meta.dev()) == upper.device)
}

/// Detaches the devices over files below a directory, and those that are stacked on such a device.
pub(crate) async fn detach_below(root: &Path) -> Result<()> {
    let before = devices().await?;
    if before.is_empty() {
        return Ok(());
    }
    let wanted: BTreeSet<u64> = before.iter().map(|device| device.inode).collect();
    let mut found = BTreeSet::new();
    let device = root.metadata().map_err(Error::file("look at", root))?.dev();
    find_inodes(root, device, &wanted, &mut found);
    let own = number_of(device);
    // A file in a container is seen through its overlay, which has a device number of its own (0:N) but the same inode;
    // such a file has no such path on the machine.
    let in_container = |d: &LoopDevice| d.device.starts_with("0:") && !Path::new(&d.file).exists();
    let is_ours = |d: &LoopDevice| found.contains(&d.inode) && (d.device == own || in_container(d));
    for device in before.iter().filter(|d| is_ours(d)) {
        let stacked = before.iter().filter(|upper| is_stacked_on(upper, Path::new(&device.name)));
        for upper in stacked.chain([device]) {
            // One that went with its mount in this moment is no error; one that stays is, below.
            let _ = process::run(Command::new("losetup").args(["--detach", &upper.name]), "").await;
        }
    }
    let what = format!("the end of the loop devices over files below {}", root.display());
    wait::until(&what, DETACH_LIMIT, DETACH_LOOK, async || Ok((!devices().await?.iter().any(is_ours)).then_some(())))
        .await
}

/// Unreadable places are passed over: a file that cannot be seen there is not behind a device of ours.
fn find_inodes(directory: &Path, device: u64, wanted: &BTreeSet<u64>, found: &mut BTreeSet<u64>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && meta.dev() == device {
            find_inodes(&entry.path(), device, wanted, found);
        } else if meta.is_file() && wanted.contains(&meta.ino()) {
            found.insert(meta.ino());
        }
    }
}

fn number_of(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(mounted_loop(line), expected.map(PathBuf::from), "{line}");
    }

    #[test]
    fn loop_devices_are_found_among_mounts() {
        check("36 35 7:3 / /var/lib/kubelet/x rw shared:1 - ext4 /dev/loop3 rw", Some("/dev/loop3"));
        check("37 35 0:5 /loop12 /var/lib/kubelet/y rw - devtmpfs udev rw", Some("/dev/loop12"));
        check("37 35 0:5 /loop-control /dev/x rw - devtmpfs udev rw", None);
        check("37 35 0:5 / /dev rw - devtmpfs udev rw", None);
        check("37 35 17:3 / /x rw - ext4 /dev/x rw", None);
        check("", None);
    }
}
