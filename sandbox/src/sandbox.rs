//! A sandbox: a directory with clusters in it, and the programs they run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::cgroup::Hierarchy;
use crate::cluster::Cluster;
use crate::daemon::{Daemon, Minor};
use crate::distribution::Distribution;
use crate::error::{self, Error, Result};
use crate::files;
use crate::image::{self, ImageConfig};
use crate::process;
use crate::wait;

/// File systems that can be the upper layer of an overlay, which is what containers are; with the kernel's numbers.
const FILE_SYSTEMS: &[(u64, &str)] = &[(0xEF53, "ext4"), (0x5846_5342, "xfs"), (0x9123_683E, "btrfs")];
/// Tools of the machine that are called, and Debian's packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("losetup", "mount"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
];
/// How long to wait for another command that works on the same sandbox: the longest, an image for many nodes, is done.
const LOCK_LIMIT: Duration = Duration::from_secs(120);
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// A directory with clusters in it. Cheap to clone.
///
/// Two sandboxes have nothing in common but the machine, so tests take one each.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    program: PathBuf,
    cgroups: Hierarchy,
    programs: OnceCell<Programs>,
}

/// What clusters run.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) distribution: Distribution,
    /// Of each daemon of Kubernetes.
    minors: BTreeMap<Daemon, Minor>,
}

impl Programs {
    async fn find(directory: &Path) -> Result<Self> {
        let distribution = find_or_build(directory).await?;
        let daemons = Daemon::OF_CONTROL_PLANE.iter().chain(Daemon::OF_NODE).filter(|daemon| daemon.is_of_kubernetes());
        let minors = daemons.map(async |daemon| {
            let mut command = Command::new(distribution.program(daemon.name()));
            let version = process::run(command.arg("--version"), "").await?;
            Ok::<_, Error>((*daemon, version.parse()?))
        });
        let minors = futures::future::try_join_all(minors).await?.into_iter().collect();
        Ok(Self { distribution, minors })
    }

    /// The release of a daemon, by which its flags are chosen; those that are not of Kubernetes have the same in all.
    pub(crate) fn minor(&self, daemon: Daemon) -> Minor {
        self.minors.get(&daemon).copied().unwrap_or(Minor(0))
    }
}

impl Sandbox {
    /// Opens a sandbox, making its directory when it is not there; fails at once where none can run, and says why.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, own_program()?)
    }

    /// The same for those who know where the program `sandbox` is, as its own tests do.
    pub fn open_with(directory: &Path, program: PathBuf) -> Result<Self> {
        require_root()?;
        require_tools()?;
        files::create_dir(directory)?;
        let directory = std::fs::canonicalize(directory).map_err(Error::file("find", directory))?;
        require_file_system(&directory)?;
        Ok(Self(Arc::new(Inner { directory, program, cgroups: Hierarchy::detect()?, programs: OnceCell::new() })))
    }

    /// The directory that `SANDBOX_DIR` names, or `.sandbox` in the current one.
    pub fn default_directory() -> PathBuf {
        std::env::var_os("SANDBOX_DIR").map_or_else(|| ".sandbox".into(), PathBuf::from)
    }

    /// Where a test has its clusters, below the directory that `SANDBOX_DIR` names or else below cargo's for tests. It is the same
    /// in each run, so that the next one, and `tools/test`, find and end what a run that was killed has left.
    pub fn test_directory(name: &str, cargo: &str) -> PathBuf {
        std::env::var_os("SANDBOX_DIR").map_or_else(|| cargo.into(), PathBuf::from).join(format!("test-{name}"))
    }

    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    pub(crate) fn program(&self) -> &Path {
        &self.0.program
    }

    pub(crate) fn cgroups(&self) -> &Hierarchy {
        &self.0.cgroups
    }

    /// Finds the programs when they are first needed: looking at what runs, and ending it, needs none of them.
    pub(crate) async fn programs(&self) -> Result<&Programs> {
        self.0.programs.get_or_try_init(async || Programs::find(self.directory()).await).await
    }

    /// Finds the programs now, or says which are missing; a test that cannot run without asks this first.
    pub async fn require_programs(&self) -> Result<()> {
        self.programs().await.map(drop)
    }

    pub(crate) fn clusters_directory(&self) -> PathBuf {
        self.0.directory.join("clusters")
    }

    /// All clusters, up or down, by name.
    pub fn clusters(&self) -> Result<Vec<Cluster>> {
        let mut clusters = Vec::new();
        for name in files::list(&self.clusters_directory())? {
            clusters.extend(Cluster::load(self, &name)?);
        }
        Ok(clusters)
    }

    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Result<Cluster> {
        match Cluster::load(self, name)? {
            Some(cluster) => Ok(cluster),
            None => {
                let names: Vec<_> = self.clusters()?.iter().map(|c| c.name().to_owned()).collect();
                let there = if names.is_empty() { "none yet: `sandbox up NAME`".into() } else { names.join(", ") };
                Err(Error::input(format!("no cluster is called {name:?}; there are: {there}")))
            }
        }
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.0.directory.join("images")
    }

    /// Makes an image of a directory and gives it to every node, now and at each later start.
    pub async fn image_from_directory(&self, name: &str, directory: &Path, config: &ImageConfig) -> Result<()> {
        image::from_directory(&self.images(), name, directory, config).await?;
        self.hand_out_images().await
    }

    /// Gives the images of an archive, of the OCI's or Docker's form, to every node.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        image::take_archive(&self.images(), archive)?;
        self.hand_out_images().await
    }

    async fn hand_out_images(&self) -> Result<()> {
        let clusters = self.clusters()?;
        let nodes = clusters.iter().flat_map(Cluster::nodes);
        futures::future::try_join_all(nodes.map(async |node| node.load_images().await)).await?;
        Ok(())
    }

    /// Ends all clusters and forgets their state.
    pub async fn wipe(&self) -> Result<()> {
        for cluster in self.clusters()? {
            cluster.destroy().await?;
        }
        files::remove_dir(&self.clusters_directory())?;
        files::remove_dir(&self.images())?;
        files::remove_dir(&self.0.directory.join("distribution"))?;
        files::remove(&self.0.directory.join("lock"))
    }

    /// One at a time, of those who change what clusters have in common, over all processes.
    pub(crate) async fn lock(&self) -> Result<std::fs::File> {
        let path = self.0.directory.join("lock");
        let file = std::fs::File::create(&path).map_err(Error::file("create", &path))?;
        // Waiting is done by asking, as a thread that waits inside the kernel would hold up other tasks of this process.
        wait::until("the lock of the sandbox", LOCK_LIMIT, LOCK_LOOK, async || match file.try_lock() {
            Ok(()) => Ok(Some(())),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::file("lock", &path)(error)),
        })
        .await?;
        Ok(file)
    }

    /// A sandbox that is wiped when the guard goes out of scope, for tests.
    pub fn guard(self) -> Guard {
        Guard(self)
    }
}

/// Wipes its sandbox when it is dropped, also while a test fails.
#[derive(Debug)]
pub struct Guard(Sandbox);

impl std::ops::Deref for Guard {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let sandbox = self.0.clone();
        // A runtime cannot be started inside another: this one has a thread to itself.
        let wiped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::file("wipe", sandbox.directory()))?
                .block_on(sandbox.wipe())
        })
        .join();
        match wiped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                eprintln!("wipe the sandbox {}: {}", self.0.directory().display(), error::line(&error))
            }
            Err(_) => eprintln!("wipe the sandbox {}: panicked", self.0.directory().display()),
        }
    }
}

/// Builds what is missing only when `SANDBOX_BUILD` is 1: nobody who starts a cluster expects minutes of compilation.
async fn find_or_build(directory: &Path) -> Result<Distribution> {
    let found = Distribution::find(directory);
    if found.is_err() && std::env::var_os("SANDBOX_BUILD").is_some_and(|value| value == "1") {
        crate::build::build().await?;
        return Distribution::find(directory);
    }
    found
}

fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::machine(
        "nodes need namespaces, mounts and control groups, which only root can make",
        "run as root (`sudo -E`), or in a container that is privileged",
    ))
}

fn require_tools() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &str| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| !found(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    let packages: Vec<_> = packages.into_iter().collect();
    Err(Error::machine(
        format!("these tools are not on the PATH: {}", tools.join(", ")),
        format!("run `apt-get install {}`", packages.join(" ")),
    ))
}

fn require_file_system(directory: &Path) -> Result<()> {
    let found = rustix::fs::statfs(directory).map_err(|errno| Error::file("look at", directory)(errno.into()))?;
    let magic = u64::try_from(found.f_type).unwrap_or_default();
    if FILE_SYSTEMS.iter().any(|(number, _)| *number == magic) {
        return Ok(());
    }
    let names: Vec<_> = FILE_SYSTEMS.iter().map(|(_, name)| *name).collect();
    Err(Error::machine(
        format!(
            "{} is on a file system (number {magic:#x}) on which containers cannot be stacked",
            directory.display()
        ),
        format!("name a directory on {} in SANDBOX_DIR", names.join(", ")),
    ))
}

/// The `sandbox` program, which also is process 1 of nodes, forwarder and provisioner.
fn own_program() -> Result<PathBuf> {
    const NAME: &str = "sandbox";
    if let Some(path) = std::env::var_os("SANDBOX_PROGRAM") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(Error::file("find", Path::new("/proc/self/exe")))?;
    if own.file_name().is_some_and(|name| name == NAME) {
        return Ok(own);
    }
    // A test is one or two directories below where cargo puts programs, or its package is below their directory's parent.
    let beside = own.ancestors().skip(1).take(3).map(|directory| directory.join(NAME));
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let built =
        package.iter().flat_map(|package| package.ancestors()).map(|above| above.join("target/debug").join(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(NAME));
    beside.chain(built).chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
        Error::machine(
            "the program `sandbox` is not found",
            "build it, and name it in SANDBOX_PROGRAM or put it on the PATH",
        )
    })
}
