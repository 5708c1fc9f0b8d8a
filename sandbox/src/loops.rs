//! Loop devices that a node leaves behind.
//!
//! They belong to the kernel, not to a namespace, so they outlive the node that attached them. Which are a node's is
//! found by the inode of the file behind them, as paths differ between namespaces.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::wait;

/// A detached device goes when the last mount over it has: shortly after its namespace.
const DETACH_LIMIT: Duration = Duration::from_secs(10);
const DETACH_LOOK: Duration = Duration::from_millis(50);

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
    #[serde(rename = "back-file")]
    file: String,
}

/// Releases of losetup differ in whether this is a number or a string.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let text = value.as_str().map(str::trim).and_then(|text| text.parse().ok());
    value.as_u64().or(text).ok_or_else(|| serde::de::Error::custom("not an inode number"))
}

fn trimmed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.trim().to_owned())
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
        let node = Path::new(&device.name).metadata();
        let stacked_on = |d: &&LoopDevice| {
            node.as_ref().is_ok_and(|meta| meta.ino() == d.inode && number_of(meta.dev()) == d.device)
        };
        for upper in before.iter().filter(stacked_on).chain([device]) {
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
