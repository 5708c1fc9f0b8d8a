//! What a sandbox could leave on the machine, looked for in every place where it could be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What there was before.
#[derive(Debug)]
pub(crate) struct Machine {
    interfaces: BTreeSet<String>,
    settings: Vec<String>,
}

/// Those that a kubelet sets where it is let.
const SETTINGS: &[&str] = &["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let interfaces = fs::read_dir("/sys/class/net").context("list interfaces")?;
        let interfaces = interfaces.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let setting = |name: &&str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        Ok(Self { interfaces: interfaces.collect(), settings: SETTINGS.iter().map(setting).collect() })
    }

    pub(crate) fn check_same(&self, directory: &Path, groups: &[String]) -> Result<()> {
        let now = Self::look()?;
        ensure!(now.interfaces == self.interfaces, "interfaces: {:?}, before {:?}", now.interfaces, self.interfaces);
        ensure!(now.settings == self.settings, "settings: {:?}, before {:?}", now.settings, self.settings);
        let groups = groups_left(groups);
        ensure!(groups.is_empty(), "control groups: {groups:?}");
        let here = directory.to_string_lossy();
        let processes = processes_of(&here);
        ensure!(processes.is_empty(), "processes, or their mounts: {processes:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
        ensure!(!mounts.contains(&*here), "mounts: {mounts}");
        let loops = Command::new("losetup").args(["--list", "--noheadings", "--output", "BACK-FILE"]).output()?;
        let loops = String::from_utf8_lossy(&loops.stdout).into_owned();
        ensure!(!loops.contains("left.img"), "loop devices: {loops}");
        // Where the directory itself has gone, there is nothing in it.
        let files: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
        ensure!(files.is_empty(), "files: {files:?}");
        Ok(())
    }
}

/// Version 2 has them at the top, version 1 in every hierarchy.
fn groups_left(groups: &[String]) -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&top).into_iter().flatten().flatten();
    let places: Vec<_> = hierarchies.map(|entry| entry.path()).chain([top]).collect();
    let all = groups.iter().flat_map(|group| places.iter().map(move |place| place.join(group)));
    all.filter(|path| path.exists()).collect()
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
