//! Control groups: where the kubelet of each node finds the root of its pods.
//!
//! Both versions are supported, told apart by the file system that is mounted. With version 1 every controller has a
//! hierarchy of its own and the same groups are made in each. With version 2 there is one, and a controller works in a
//! group only when every group above has handed it down, which one that has processes of its own may not. Version 2 is written from its documentation and has not been
//! run: the machines at hand have version 1.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files;
use crate::wait;

const MOUNT: &str = "/sys/fs/cgroup";
/// The number by which the kernel knows a file system of control groups of version 2.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Without these, version 1's hierarchies are too few for runc and kubelet.
const NEEDED_V1: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
/// Handed down in version 2, where the machine has them; the first four are needed.
const WANTED_V2: &[&str] = &["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];
const NEEDED_V2: usize = 4;
/// Where processes of the root group go when they are in the way.
const INIT: &str = "init";
/// How often they are moved before that is given up: some are started while others move.
const MOVES: usize = 10;
/// How long the processes of a group may take to leave it after they were killed.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);
const EMPTY_LOOK: Duration = Duration::from_millis(20);

/// The control groups of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    V1 {
        controllers: Vec<PathBuf>,
        /// Version 2 beside version 1, without controllers: runc makes groups there, so they are removed there too.
        unified: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
        controllers: Vec<String>,
    },
}

impl Hierarchy {
    pub(crate) fn detect() -> Result<Self> {
        let root = Path::new(MOUNT);
        let kind = rustix::fs::statfs(root).map_err(|errno| Error::file("look at", root)(errno.into()))?;
        if u64::try_from(kind.f_type).is_ok_and(|magic| magic == CGROUP2_MAGIC) {
            return Self::v2(root);
        }
        let missing: Vec<_> = NEEDED_V1.iter().filter(|c| !root.join(c).is_dir()).copied().collect();
        if !missing.is_empty() {
            return Err(Error::machine(
                format!("control groups of version 1 lack {} below {MOUNT}", missing.join(", ")),
                "mount them (in a container: give it the host's /sys/fs/cgroup writable), or start the machine with version 2",
            ));
        }
        let mut controllers = Vec::new();
        let mut unified = None;
        for name in files::list(root)? {
            let path = root.join(name);
            // The names of joint hierarchies are links to one directory.
            if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                continue;
            }
            if path.join("cgroup.controllers").exists() {
                unified = Some(path);
            } else {
                controllers.push(path);
            }
        }
        Ok(Self::V1 { controllers, unified })
    }

    fn v2(root: &Path) -> Result<Self> {
        let text = files::read(&root.join("cgroup.controllers"))?.unwrap_or_default();
        let present: Vec<&str> = text.split_whitespace().collect();
        let missing: Vec<_> = WANTED_V2[..NEEDED_V2].iter().filter(|c| !present.contains(c)).copied().collect();
        if !missing.is_empty() {
            return Err(Error::machine(
                format!("control groups of version 2 lack {} at {MOUNT}", missing.join(", ")),
                "start the machine with these controllers (in a container: hand them down to it, and give it a control group namespace of its own)",
            ));
        }
        let controllers = WANTED_V2.iter().filter(|c| present.contains(c)).map(|c| (*c).to_owned()).collect();
        Ok(Self::V2 { root: root.to_owned(), controllers })
    }

    /// Makes a group of that path (without a slash in front) and those above it.
    pub(crate) fn create(&self, group: &str) -> Result<()> {
        match self {
            Self::V1 { controllers, .. } => controllers.iter().try_for_each(|root| create_v1(root, group)),
            Self::V2 { root, controllers } => create_v2(root, controllers, group),
        }
    }

    /// Removes a group and those below; its processes must have been killed.
    pub(crate) async fn remove(&self, group: &str) -> Result<()> {
        let roots: Vec<&PathBuf> = match self {
            Self::V1 { controllers, unified } => controllers.iter().chain(unified).collect(),
            Self::V2 { root, .. } => vec![root],
        };
        for root in roots {
            let path = root.join(group);
            wait::until(
                &format!("the end of the processes in {}", path.display()),
                EMPTY_LIMIT,
                EMPTY_LOOK,
                async || match remove_tree(&path) {
                    Ok(()) => Ok(Some(())),
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
                    Err(error) => Err(Error::file("remove control group", &path)(error)),
                },
            )
            .await?;
        }
        Ok(())
    }
}

fn create_v1(root: &Path, group: &str) -> Result<()> {
    let mut path = root.to_owned();
    for part in group.split('/') {
        let parent = path.clone();
        path.push(part);
        files::create_dir(&path)?;
        // A new group of cpuset takes no process until it has these two, from the one above.
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            if let Some(value) = files::read(&parent.join(setting))? {
                set(&path.join(setting), &value)?;
            }
        }
    }
    Ok(())
}

fn create_v2(root: &Path, controllers: &[String], group: &str) -> Result<()> {
    let hand_down: String = controllers.iter().map(|name| format!("+{name} ")).collect();
    let hand_down = hand_down.trim();
    make_room(root, hand_down, &mut |path, value| fs::write(path, value))?;
    let mut path = root.to_owned();
    for part in group.split('/') {
        set(&path.join("cgroup.subtree_control"), hand_down)?;
        path.push(part);
        files::create_dir(&path)?;
    }
    set(&path.join("cgroup.subtree_control"), hand_down)
}

/// Has the root hand its controllers down.
///
/// A group that has processes hands nothing down (only the machine's own root may, and the root of a container is none), so they
/// move into a group beside ours first. It stays, as they do.
fn make_room(root: &Path, hand_down: &str, write: &mut impl FnMut(&Path, &str) -> io::Result<()>) -> Result<()> {
    let control = root.join("cgroup.subtree_control");
    let init = root.join(INIT);
    for _ in 0..MOVES {
        match write(&control, hand_down) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            written => return written.map_err(Error::file("write", &control)),
        }
        files::create_dir(&init)?;
        for process in files::read(&root.join("cgroup.procs"))?.unwrap_or_default().lines() {
            // One that has ended meanwhile, or that belongs to the kernel, cannot be moved; whether it matters is seen at the next try.
            let _ = write(&init.join("cgroup.procs"), process);
        }
    }
    let left = files::read(&root.join("cgroup.procs"))?.unwrap_or_default();
    Err(Error::machine(
        format!(
            "the control group {} has processes that cannot be moved into {INIT} ({}), so it cannot hand controllers down",
            root.display(),
            left.split_whitespace().collect::<Vec<_>>().join(", ")
        ),
        "give the container a control group namespace of its own, and start it with nothing in the root group that cannot be moved",
    ))
}

fn set(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::file("write", path))
}

/// Groups are removed from the deepest up; the files in them are the kernel's and go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control groups of version 2 as far as moving goes: a directory, and writes that do what the kernel would.
    struct Kernel {
        root: tempfile::TempDir,
        stuck: &'static str,
    }

    impl Kernel {
        fn with(processes: &str, stuck: &'static str) -> Self {
            let root = tempfile::tempdir().expect("a temporary directory");
            fs::write(root.path().join("cgroup.procs"), processes).expect("written");
            Self { root, stuck }
        }

        fn write(&self, path: &Path, value: &str) -> io::Result<()> {
            let procs = self.root.path().join("cgroup.procs");
            let there = fs::read_to_string(&procs)?;
            if path.ends_with("cgroup.subtree_control") {
                return if there.is_empty() { fs::write(path, value) } else { Err(io::ErrorKind::ResourceBusy.into()) };
            }
            assert_eq!(path, self.root.path().join("init/cgroup.procs"));
            if value == self.stuck {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let rest = there.lines().filter(|line| *line != value).map(|line| format!("{line}\n"));
            fs::write(&procs, rest.collect::<String>())?;
            let moved = fs::read_to_string(path).unwrap_or_default();
            fs::write(path, format!("{moved}{value}\n"))
        }

        fn make_room(&self) -> Result<()> {
            make_room(self.root.path(), "+cpu +memory", &mut |path, value| self.write(path, value))
        }

        fn has(&self, file: &str) -> String {
            fs::read_to_string(self.root.path().join(file)).unwrap_or_default()
        }
    }

    #[test]
    fn processes_in_the_root_make_room() {
        let kernel = Kernel::with("1\n42\n", "none");
        kernel.make_room().expect("they move");
        assert_eq!(kernel.has("init/cgroup.procs"), "1\n42\n");
        assert_eq!(kernel.has("cgroup.subtree_control"), "+cpu +memory");
    }

    #[test]
    fn a_root_without_processes_is_left_as_it_is() {
        let kernel = Kernel::with("", "none");
        kernel.make_room().expect("nothing is in the way");
        assert!(!kernel.root.path().join("init").exists());
    }

    #[test]
    fn a_process_that_cannot_be_moved_is_named() {
        let kernel = Kernel::with("1\n42\n", "42");
        let error = kernel.make_room().expect_err("it stays").to_string();
        assert!(error.contains("cannot be moved into init (42)") && error.contains("namespace of its own"), "{error}");
    }
}
