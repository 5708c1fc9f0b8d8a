//! Process 1 of a node: it makes the node's root directory, says that it is ready, and then only reaps.
//!
//! It runs in mount, network, PID, UTS and IPC namespaces of its own; killing it ends everything in them. Of the machine
//! the node sees `/usr` (read-only), the devices, and the programs of the distribution; all else is its own. The kernel
//! settings that a kubelet writes are the whole machine's, so it gets files of its own in their place.

use std::ffi::CStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::files;
use crate::process::ProcessId;

/// What process 1 says on its standard output once the node is there.
pub(crate) const READY: &str = "ready";
/// Where a node sees the distribution.
pub(crate) const PROGRAMS: &str = "/opt/kube";

/// What a node starts with.
#[derive(Debug, clap::Args)]
pub struct ProcessOne {
    /// The node's root directory, as the machine sees it.
    #[arg(long)]
    root: PathBuf,
    /// The programs that the node runs.
    #[arg(long)]
    distribution: PathBuf,
    /// The node's host name.
    #[arg(long)]
    name: String,
    /// Where to write by which number the machine knows process 1.
    #[arg(long)]
    pid_file: PathBuf,
}

/// What the kubelet wants to find and would write into the kernel of the whole machine.
const SETTINGS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

const DIRECTORIES: &[&str] = &[
    "usr",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "etc",
    "root",
    "home",
    "mnt",
    "media",
    "srv",
    "opt/kube",
    ".machine",
    "var/lib",
    "var/log",
    "var/cache",
    "var/tmp",
];

/// Links on a machine whose programs are all in `/usr`, directories on an older one.
const TOP_OF_USR: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs of the machine look up in `/etc`.
const ETC: &[&str] = &["passwd", "group", "ld.so.cache", "services", "protocols", "mke2fs.conf"];

impl ProcessOne {
    /// Makes the node and stays until it is told to end; must be process 1 of new namespaces.
    pub fn run(&self) -> Result<()> {
        // While `/proc` is still the machine's, it tells this process's number there.
        ProcessId::own()?.save(&self.pid_file)?;
        rustix::system::sethostname(self.name.as_bytes())
            .map_err(|errno| Error::input(format!("name the node {}: {errno}", self.name)))?;
        bind(&self.root, &self.root)?;
        self.make_directories()?;
        self.mount_machine()?;
        self.mount_kernel()?;
        self.enter()?;
        allow_forwarding()?;
        let mut out = std::io::stdout();
        writeln!(out, "{READY}")
            .and_then(|()| out.flush())
            .map_err(Error::file("write to", Path::new("standard output")))?;
        reap()
    }

    fn make_directories(&self) -> Result<()> {
        for name in DIRECTORIES {
            files::create_dir(&self.root.join(name))?;
        }
        for name in ["tmp", "var/tmp"] {
            let path = self.root.join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))
                .map_err(Error::file("open to all", &path))?;
        }
        for (target, name) in [("/run", "var/run"), ("/run/lock", "var/lock"), ("/proc/self/mounts", "etc/mtab")] {
            link(Path::new(target), &self.root.join(name))?;
        }
        for name in ETC {
            let from = Path::new("/etc").join(name);
            if from.exists() {
                fs::copy(&from, self.root.join("etc").join(name)).map_err(Error::file("copy", &from))?;
            }
        }
        let alternatives = Path::new("/etc/alternatives");
        let own = self.root.join("etc/alternatives");
        for name in files::list(alternatives)? {
            // A file beside the links explains them; only the links are of use.
            let Ok(target) = fs::read_link(alternatives.join(&name)) else {
                continue;
            };
            files::create_dir(&own)?;
            link(&target, &own.join(&name))?;
        }
        Ok(())
    }

    fn mount_machine(&self) -> Result<()> {
        for name in TOP_OF_USR {
            let (machine, own) = (Path::new("/").join(name), self.root.join(name));
            if let Ok(target) = fs::read_link(&machine) {
                link(&target, &own)?;
            } else if machine.is_dir() {
                files::create_dir(&own)?;
                bind(&machine, &own)?;
                read_only(&own)?;
            }
        }
        for (from, to) in [(Path::new("/usr"), "usr"), (&self.distribution, "opt/kube")] {
            let to = self.root.join(to);
            bind(from, &to)?;
            read_only(&to)?;
        }
        for (from, to) in [("/dev", "dev"), ("/sys/fs/cgroup", "sys/fs/cgroup")] {
            let to = self.root.join(to);
            if to.ends_with("sys/fs/cgroup") {
                mount("sysfs", &self.root.join("sys"), None)?;
            }
            rustix::mount::mount_bind_recursive(from, &to).map_err(at("bind", &to))?;
            let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change(&to, slave).map_err(at("separate", &to))?;
        }
        let shared_memory = self.root.join("dev/shm");
        if shared_memory.is_dir() {
            // With what is mounted below it: a device that is mounted there is the machine's, and would not go while this node has it too.
            while rustix::mount::unmount(&shared_memory, UnmountFlags::DETACH).is_ok() {}
            mount("tmpfs", &shared_memory, Some(c"mode=1777"))?;
        }
        Ok(())
    }

    fn mount_kernel(&self) -> Result<()> {
        mount("proc", &self.root.join("proc"), None)?;
        let run = self.root.join("run");
        mount("tmpfs", &run, Some(c"mode=755"))?;
        for name in ["lock", "netns"] {
            files::create_dir(&run.join(name))?;
        }
        for (setting, value) in SETTINGS {
            let own = run.join("settings").join(setting.replace('/', "."));
            files::write(&own, format!("{value}\n"), files::PUBLIC)?;
            let kernel = self.root.join("proc/sys").join(setting);
            if kernel.exists() {
                bind(&own, &kernel)?;
            }
        }
        Ok(())
    }

    /// Makes the root directory the root, and lets go of the machine's.
    fn enter(&self) -> Result<()> {
        std::env::set_current_dir(&self.root).map_err(Error::file("enter", &self.root))?;
        let machine = Path::new("/.machine");
        rustix::process::pivot_root(".", ".machine").map_err(at("make the root", &self.root))?;
        std::env::set_current_dir("/").map_err(Error::file("enter", Path::new("/")))?;
        rustix::mount::unmount(machine, UnmountFlags::DETACH).map_err(at("unmount", machine))?;
        fs::remove_dir(machine).map_err(Error::file("remove", machine))?;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", shared).map_err(at("share mounts below", Path::new("/")))
    }
}

fn allow_forwarding() -> Result<()> {
    let network = Path::new("/proc/sys/net");
    for (setting, needed) in [
        ("ipv4/ip_forward", true),
        ("bridge/bridge-nf-call-iptables", false),
        ("bridge/bridge-nf-call-ip6tables", false),
    ] {
        let path = network.join(setting);
        if needed || path.exists() {
            fs::write(&path, "1").map_err(Error::file("write", &path))?;
        }
    }
    Ok(())
}

/// Everything in the node whose parent has gone becomes a child of process 1, which has to take leave of it.
fn reap() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::file("start", Path::new("/proc/self")))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(Error::file("listen to signals of", Path::new("/proc/self")));
        let (mut child, mut end) = (listen(SignalKind::child())?, listen(SignalKind::terminate())?);
        loop {
            tokio::select! {
                _ = child.recv() => {
                    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
                }
                _ = end.recv() => return Ok(()),
            }
        }
    })
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Error {
    let failed = Error::file(action, path);
    move |errno| failed(errno.into())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    rustix::mount::mount_bind(from, to).map_err(at("bind", to))
}

fn read_only(path: &Path) -> Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(path, flags, c"").map_err(at("make read-only", path))
}

fn mount(kind: &str, path: &Path, options: Option<&CStr>) -> Result<()> {
    rustix::mount::mount(kind, path, kind, MountFlags::empty(), options).map_err(at("mount", path))
}

/// A link with this content, whatever was there from an earlier start.
fn link(target: &Path, path: &Path) -> Result<()> {
    files::remove(path)?;
    symlink(target, path).map_err(Error::file("link", path))
}
