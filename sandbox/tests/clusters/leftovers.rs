//! What a sandbox could leave on the machine, looked for in every place where it could be.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What there was before.
#[derive(Debug)]
pub(crate) struct Machine {
    interfaces: BTreeSet<String>,
    settings: Vec<String>,
    groups: BTreeSet<String>,
}

/// Those that a kubelet sets where it is let.
const SETTINGS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
];

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let interfaces = fs::read_dir("/sys/class/net").context("list interfaces")?;
        let interfaces = interfaces
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let setting =
            |name: &&str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        Ok(Self {
            interfaces: interfaces.collect(),
            settings: SETTINGS.iter().map(setting).collect(),
            groups: groups(),
        })
    }

    pub(crate) fn check_same(&self, directory: &Path) -> Result<()> {
        let now = Self::look()?;
        ensure!(
            now.interfaces == self.interfaces,
            "interfaces: {:?}, before {:?}",
            now.interfaces,
            self.interfaces
        );
        ensure!(
            now.settings == self.settings,
            "settings: {:?}, before {:?}",
            now.settings,
            self.settings
        );
        let new: Vec<_> = now.groups.difference(&self.groups).collect();
        ensure!(new.is_empty(), "control groups: {new:?}");
        let here = directory.to_string_lossy();
        let processes = processes_of(&here);
        ensure!(
            processes.is_empty(),
            "processes, or their mounts: {processes:?}"
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
        ensure!(!mounts.contains(&*here), "mounts: {mounts}");
        let loops = Command::new("losetup")
            .args(["--list", "--noheadings", "--output", "BACK-FILE"])
            .output()?;
        let loops = String::from_utf8_lossy(&loops.stdout).into_owned();
        ensure!(!loops.contains("left.img"), "loop devices: {loops}");
        let files: Vec<_> = fs::read_dir(directory)
            .context("list the sandbox")?
            .flatten()
            .map(|e| e.path())
            .collect();
        ensure!(files.is_empty(), "files: {files:?}");
        Ok(())
    }
}

fn groups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let folders = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    for folder in folders
        .map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()])
    {
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        let names =
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with("sandbox-"));
        found.extend(names.map(|entry| entry.path().display().to_string()));
    }
    found
}

/// A process belongs to the sandbox if its command line names it or its mounts come from it, as those of pods do.
fn processes_of(directory: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        // In a namespace of its own a mount's root is told by its path on the file system, not by where that is mounted.
        let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
        if command.contains(directory) || mounts.contains(directory) {
            found.push(format!("{name}: {command}"));
        }
    }
    found
}
