//! Ours: the node as a process of its own, with all that it has in the way of a request.

use crate::fio::Way;
use crate::peers::Target;
use anyhow::{Context, Result, bail};
use node::proto::{AttachRequest, CreateSnapshotsRequest, CreateVolumeRequest, DetachRequest, FrontEnd};
use node::{Access, Config, Node, PoolSpec, RuntimeDir, Serving};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Nodes that were started.
static NODES: AtomicU64 = AtomicU64::new(0);
/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The file of the pool
    pool: PathBuf,
    /// The folder for sockets
    runtime: PathBuf,
    /// Not through io_uring
    #[arg(long)]
    threads: bool,
}

/// Serves until its standard input ends.
pub(crate) fn serve(arguments: ServeArgs) -> Result<()> {
    // As the node's own process does, before there are threads; it goes on without, too.
    if let Err(error) = fuse::harden() {
        eprintln!("bench-block: warning: {error}");
    }
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let pools = vec![PoolSpec { path: arguments.pool, bytes: None }];
    let claimed = RuntimeDir::claim(&arguments.runtime)?;
    let serving = Some(Serving { runtime: claimed, keeper: None, nbd_tls: None });
    let access = if arguments.threads { Access::Threads } else { Access::Best };
    let node = Arc::new(Node::start(Config {
        pools,
        cache_bytes: 40 << 20,
        access,
        scrub: None,
        serving,
        replication: None,
    })?);
    let stop = CancellationToken::new();
    let ends = stop.clone();
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ends.cancel();
    });
    runtime.block_on(node::serve(node.clone(), &arguments.runtime, stop))?;
    if let Some(node) = Arc::into_inner(node) {
        node.stop();
    }
    Ok(())
}

/// The process, and how to ask it.
pub(crate) struct Daemon {
    child: Child,
    runtime: Runtime,
    client: node::Client,
    attached: std::cell::RefCell<Vec<String>>,
}

impl Daemon {
    /// A daemon with a pool that is made of a file, which is full of something so that all of it is there.
    pub(crate) fn start(pool: &Path, folder: &Path, threads: bool) -> Result<Rc<Self>> {
        let disk = volume::FileDisk::open(pool)?;
        // Block devices are told apart by it, so two runs at once must not have the same.
        let id =
            (u128::from(std::process::id()) << 32 | u128::from(NODES.fetch_add(1, Ordering::Relaxed))).to_le_bytes();
        volume::create(&disk, volume::Shape { id, log_blocks: None, most_changed_nodes: None })?;
        drop(disk);
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new("/proc/self/exe");
        // As the node's own process has it.
        command.arg("serve").arg(pool).arg(folder).env("MALLOC_ARENA_MAX", "1").stdin(Stdio::piped());
        command.args(threads.then_some("--threads"));
        let mut child = command.spawn().context("start the node")?;
        let runtime = Runtime::new()?;
        let (socket, begun) = (node::control_socket(folder), Instant::now());
        let client = loop {
            match runtime.block_on(node::connect(&socket)) {
                Ok(client) => break client,
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            if let Some(status) = child.try_wait()? {
                bail!("the node has ended with {status}");
            }
        };
        Ok(Rc::new(Self { child, runtime, client, attached: std::cell::RefCell::default() }))
    }

    /// A new volume, attached.
    pub(crate) fn volume(
        self: &Rc<Self>,
        title: &'static str,
        name: &str,
        bytes: u64,
        over_nbd: bool,
    ) -> Result<Target> {
        let mut client = self.client.clone();
        let request = CreateVolumeRequest { name: name.into(), bytes, ..CreateVolumeRequest::default() };
        self.runtime.block_on(client.create_volume(request))?;
        let front_end = if over_nbd { FrontEnd::Nbd } else { FrontEnd::Device };
        let front_end = front_end.into();
        let request = AttachRequest { name: name.into(), front_end, ..AttachRequest::default() };
        let place = self.runtime.block_on(client.attach(request))?.into_inner().place;
        self.attached.borrow_mut().push(name.into());
        let way = if over_nbd { Way::Nbd(place) } else { Way::Path(place) };
        Ok(Target::new(title, way, vec![self.child.id()], vec![Box::new(self.clone())]))
    }

    pub(crate) fn snapshot(&self, volume: &str, name: &str) -> Result<()> {
        let request = CreateSnapshotsRequest { names: vec![format!("{volume}@{name}")], ..Default::default() };
        self.runtime.block_on(self.client.clone().create_snapshots(request))?;
        Ok(())
    }

    /// The most memory that it has had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        crate::told(Path::new(&format!("/proc/{}/status", self.child.id())), "VmHWM")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for name in self.attached.take() {
            if let Err(error) = self.runtime.block_on(self.client.clone().detach(DetachRequest { name })) {
                eprintln!("bench-block: {error}");
            }
        }
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}
