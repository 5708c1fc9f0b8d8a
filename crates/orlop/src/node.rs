//! `orlop node` and `orlop keeper`: what runs on each node that has volumes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use fuse::{Keeper, KeeperServer};
use node::{Access, Config, Node, Pace, PoolSpec, RuntimeDir, Serving};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::csi_driver::{self, CsiArgs};
use crate::daemons::stop_at_signals;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::member::{self, Member, MemberArgs};
use crate::nbd_tls;

/// Where a node's sockets are if nobody says it: memory, which is gone when the machine restarts, as what is attached is.
pub(crate) const RUNTIME_DIR: &str = "/run/orlop";
/// How long a keeper that something else runs is waited for: it starts at once, but its image may have to come first.
const KEEPER_LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked for.
const KEEPER_LOOK: Duration = Duration::from_millis(100);
/// How often it is asked whether it is still there; until it is replaced, block devices depend on this process.
const KEEPER_WATCH: Duration = Duration::from_secs(2);
/// What a keeper says when it listens.
const READY: &str = "ready";

/// Serve the volumes of this node
///
/// Volumes are made and attached with `orlop volume`. Block devices that are attached go on when this process is stopped, killed or replaced by a newer
/// one: requests wait for the next `orlop node` with the same folder and pools.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// A pool: a file or a raw device. With a size, a file is made if there is none, and a pool in one that is smaller grows; a device that has grown is
    /// taken in with `size=0`
    #[arg(long, value_name = "PATH[,size=BYTES]", required = true, value_parser = parse_pool)]
    pool: Vec<PoolSpec>,
    /// The folder for sockets and for the list of what is attached; for encrypted volumes it must be memory
    #[arg(long, env = "ORLOP_RUNTIME_DIR", hide_env_values = true, value_name = "DIR", default_value = RUNTIME_DIR)]
    runtime_dir: PathBuf,
    /// Who keeps block devices while this process is replaced: a keeper that it starts, if none is there, or one that something else runs with `orlop keeper`
    /// and that is waited for. In a pod it must be the latter, since a keeper that was started there ends with its pod
    #[arg(long, value_name = "WHOSE", default_value = "started", value_parser = ["started", "awaited"])]
    keeper: String,
    /// Memory for maps of volumes, for each pool
    #[arg(long, value_name = "BYTES", default_value = "40Mi", value_parser = human::parse_bytes)]
    cache: u64,
    /// How disks are asked: through io_uring (Linux 6.1 and later), or by threads that wait. `best` is io_uring if it can be had; the log tells
    #[arg(long, value_name = "HOW", default_value = "best", value_parser = ["best", "io-uring", "threads"])]
    disk_access: String,
    /// How long after all of a pool was read it is read again, to find damage early; 0s is never
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = human::parse_duration)]
    scrub_interval: Duration,
    /// How much of a pool is read in a second for that
    #[arg(long, value_name = "BYTES", default_value = "16Mi", value_parser = human::parse_bytes)]
    scrub_rate: u64,
    /// The folder with the certificates for NBD over TCP: tls.crt and tls.key of this node, and ca.crt, which has signed those of clients. Without it,
    /// `orlop volume attach --nbd --listen` takes addresses of this machine alone
    #[arg(long, value_name = "DIR")]
    nbd_tls: Option<PathBuf>,
    /// Where health and metrics are served; without it they are not
    #[arg(long, env = "ORLOP_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    csi: CsiArgs,
    #[command(flatten)]
    member: MemberArgs,
}

/// Keep the block devices of a node while its process is replaced; `orlop node` starts this
#[derive(Debug, Args)]
pub(crate) struct KeeperArgs {
    /// The folder of the node
    #[arg(long, env = "ORLOP_RUNTIME_DIR", hide_env_values = true, value_name = "DIR", default_value = RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

pub(crate) fn parse_pool(text: &str) -> Result<PoolSpec, String> {
    let (path, options) = text.split_once(',').map_or((text, None), |(path, options)| (path, Some(options)));
    if path.is_empty() {
        return Err("a pool has a path".to_owned());
    }
    let mut spec = PoolSpec { path: PathBuf::from(path), bytes: None };
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        match option.split_once('=') {
            Some(("size", bytes)) => spec.bytes = Some(human::parse_bytes(bytes)?),
            _ => return Err(format!("{option:?} is no option of a pool, which has size=BYTES alone")),
        }
    }
    Ok(spec)
}

/// Readies the process for being in the path of writing memory back. To be called before there are threads.
pub(crate) fn harden() {
    if let Err(error) = fuse::harden() {
        eprintln!("orlop: warning: {error}: {}; under memory pressure volumes of this node may stall", cause(&error));
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(String::new, ToString::to_string)
}

/// Runs the node until it is told to stop.
pub(crate) async fn run(args: NodeArgs) -> Result<Exit> {
    let stop = CancellationToken::new();
    stop_at_signals(stop.clone())?;
    let metrics = match args.listen {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|e| Error::new(format!("listen on {address}")).because(e))?;
            Some((listener.local_addr().unwrap_or(address), listener))
        }
    };
    let member = member::wanted(args.member, csi_driver::node_name(&args.csi)).await?;
    let csi = csi_driver::wanted(args.csi).await?;
    let replication = member.as_ref().map(Member::replication);
    let runtime = args.runtime_dir.clone();
    let cache_bytes =
        usize::try_from(args.cache).map_err(|e| Error::usage("--cache is more than memory can be").because(e))?;
    let access = match args.disk_access.as_str() {
        "io-uring" => Access::Ring,
        "threads" => Access::Threads,
        _ => Access::Best,
    };
    let pace = Pace { interval: args.scrub_interval, bytes_per_second: args.scrub_rate };
    let scrub = (!args.scrub_interval.is_zero()).then_some(pace);
    let awaited = args.keeper == "awaited";
    let nbd_tls = args.nbd_tls.as_deref().map(nbd_tls::read).transpose()?;
    let start = move || {
        let claimed = RuntimeDir::claim(&args.runtime_dir).map_err(|e| Error::new("start the node").because(e))?;
        let keeper = if awaited { await_keeper(&args.runtime_dir, KEEPER_LIMIT)? } else { keeper(&args.runtime_dir)? };
        let serving = Some(Serving { runtime: claimed, keeper: Some(keeper), nbd_tls });
        Node::start(Config { pools: args.pool, cache_bytes, access, scrub, serving, replication })
            .map_err(|e| Error::new("start the node").because(e))
    };
    let started = tokio::task::spawn_blocking(start).await;
    let node = Arc::new(started.map_err(|e| Error::new("start the node").because(e))??);
    let figures = metrics.map(|(address, listener)| {
        tracing::info!(%address, "health and metrics are served");
        tokio::spawn(node::serve_metrics(node.clone(), listener, stop.clone()))
    });
    let watching = tokio::spawn(watch_keeper(node.clone(), runtime.clone(), awaited, stop.clone()));
    let following = member.as_ref().map(|member| member.follow(&node, stop.clone()));
    let csi = match csi {
        None => None,
        Some(csi) => {
            let volumes = member::volumes(member, node.clone());
            Some(csi_driver::start(csi, volumes, runtime.clone(), stop.clone()).await?)
        }
    };
    let served = node::serve(node.clone(), &runtime, stop.clone()).await;
    stop.cancel();
    let csi_served = match csi {
        None => Ok(()),
        Some(csi) => csi.await.map_err(|e| Error::new("serve CSI").because(e))?,
    };
    if let Some(figures) = figures {
        let ended = figures.await.map_err(|e| Error::new("serve metrics").because(e))?;
        ended.map_err(|e| Error::new("serve metrics").because(e))?;
    }
    if let Some(following) = following {
        following.await.map_err(|e| Error::new("follow the cluster").because(e))?;
    }
    watching.await.map_err(|e| Error::new("watch the keeper").because(e))?;
    let ended = tokio::task::spawn_blocking(move || match Arc::into_inner(node) {
        Some(node) => node.stop(),
        None => tracing::warn!("a request is still under way; the pools are closed without a last checkpoint"),
    });
    ended.await.map_err(|e| Error::new("stop the node").because(e))?;
    csi_served?;
    served.map(|()| Exit::Succeeded).map_err(|e| Error::new("serve the control API").because(e))
}

fn keeper_socket(runtime: &Path) -> PathBuf {
    runtime.join("keeper.sock")
}

/// Connects to a keeper that something else runs, when it is there.
fn await_keeper(runtime: &Path, limit: Duration) -> Result<Keeper> {
    let socket = keeper_socket(runtime);
    let begin = Instant::now();
    let mut is_told = false;
    loop {
        match Keeper::connect(&socket) {
            Ok(keeper) => return Ok(keeper),
            Err(error) if begin.elapsed() >= limit => {
                let what = format!(
                    "wait for a keeper of block devices for {} s: run `orlop keeper --runtime-dir {}` beside this process, or leave --keeper out",
                    limit.as_secs(),
                    runtime.display()
                );
                return Err(Error::new(what).because(error));
            }
            Err(_) if !is_told && !limit.is_zero() => {
                tracing::info!(socket = %socket.display(), "waiting for the keeper");
                is_told = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(KEEPER_LOOK);
    }
}

/// Has the block devices kept by another keeper when the one that kept them has ended, so that they outlive this process again.
async fn watch_keeper(node: Arc<Node>, runtime: PathBuf, awaited: bool, stop: CancellationToken) {
    let mut is_told = false;
    while stop.run_until_cancelled(tokio::time::sleep(KEEPER_WATCH)).await.is_some() {
        let (node, runtime) = (node.clone(), runtime.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if node.is_kept() {
                return Ok(false);
            }
            let keeper = if awaited { await_keeper(&runtime, Duration::ZERO)? } else { keeper(&runtime)? };
            node.keep_with(keeper).map_err(|e| Error::new("have the block devices kept again").because(e))?;
            Ok::<_, Error>(true)
        });
        match looked.await {
            Ok(Ok(false)) => is_told = false,
            Ok(Ok(true)) => tracing::warn!("the keeper had ended; another one keeps the block devices now"),
            Ok(Err(error)) if !is_told => {
                tracing::error!(%error, "the keeper has ended, and block devices would end with this process; looking for another one");
                is_told = true;
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "looking for the keeper has panicked, which is a defect"),
        }
    }
}

/// Connects to the keeper, which is started if none is there.
fn keeper(runtime: &Path) -> Result<Keeper> {
    let socket = keeper_socket(runtime);
    if let Ok(keeper) = Keeper::connect(&socket) {
        return Ok(keeper);
    }
    let failed = || Error::new("start the keeper of block devices");
    // A group of its own: what a terminal sends to this process must not end the keeper.
    let spawned = Command::new("/proc/self/exe")
        .arg0("orlop")
        .args(["keeper", "--runtime-dir"])
        .arg(runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = spawned.map_err(|e| failed().because(e))?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said).map_err(|e| failed().because(e))?;
    }
    if said.trim() != READY {
        let ended = child.wait().map_err(|e| failed().because(e))?;
        return Err(Error::new(format!(
            "start the keeper of block devices: it ended with {ended}; what it said is above"
        )));
    }
    Keeper::connect(&socket).map_err(|e| failed().because(e))
}

/// Keeps until it is told to stop by SIGTERM, when what it keeps ends in errors; or until there is no node and nothing to keep.
pub(crate) async fn keep(args: KeeperArgs) -> Result<Exit> {
    let failed = || Error::new("keep block devices");
    std::fs::create_dir_all(&args.runtime_dir).map_err(|e| failed().because(e))?;
    let server = KeeperServer::bind(&keeper_socket(&args.runtime_dir)).map_err(|e| failed().because(e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed().because(e))?;
    // A shell that ends must not end it.
    let _hangup = signal(SignalKind::hangup()).map_err(|e| failed().because(e))?;
    let (stop, stopped) = std::io::pipe().map_err(|e| failed().because(e))?;
    let mut keeping = tokio::task::spawn_blocking(move || server.run(stop));
    crate::output::print(&format!("{READY}\n"))?;
    let kept = tokio::select! {
        kept = &mut keeping => kept,
        _ = terminate.recv() => {
            drop(stopped);
            keeping.await
        }
    };
    let kept = kept.map_err(|e| failed().because(e))?;
    kept.map(|()| Exit::Succeeded).map_err(|e| failed().because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_is_waited_for_and_what_helps_is_told_when_none_comes() {
        let folder = tempfile::tempdir().unwrap();
        let refused = await_keeper(folder.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("orlop keeper --runtime-dir"), "{refused}");
        let waiting = {
            let folder = folder.path().to_owned();
            std::thread::spawn(move || await_keeper(&folder, Duration::from_secs(60)).map(drop))
        };
        let server = KeeperServer::bind(&keeper_socket(folder.path())).unwrap();
        let (stop, stopped) = std::io::pipe().unwrap();
        let keeping = std::thread::spawn(move || server.run(stop));
        waiting.join().unwrap().unwrap();
        drop(stopped);
        keeping.join().unwrap().unwrap();
    }

    #[test]
    fn a_pool_is_a_path_with_options() {
        let spec = |path: &str, bytes| PoolSpec { path: path.into(), bytes };
        assert_eq!(parse_pool("/dev/sdb"), Ok(spec("/dev/sdb", None)));
        assert_eq!(parse_pool("/x/pool.img,size=2GiB"), Ok(spec("/x/pool.img", Some(2 << 30))));
        for wrong in ["", ",size=1", "/x,size=lots", "/x,name=a", "/x,"] {
            assert!(parse_pool(wrong).is_err(), "{wrong}");
        }
    }
}
