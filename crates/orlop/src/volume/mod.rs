//! `orlop volume`: the volumes of a node, or of a pool that no node has open.
//!
//! Both are asked through the same control API; offline, the node is a part of this process. What is printed for programs is the structs of [`show`].

mod show;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use node::proto::{self, FrontEnd};
use node::{Access, Client, Config, Node, PoolSpec};
use tonic::Status;
use zeroize::Zeroizing;

use crate::error::{Error, Exit, Result};
use crate::human;
use crate::node::RUNTIME_DIR;
use crate::output::{self, Format, OutputArgs};
use show::{Attached, Pool, Ranges, Snapshot, Stats, Volume};

/// Memory for maps of an offline pool.
const CACHE_BYTES: usize = 64 << 20;

/// Make, attach, snapshot and compare volumes of this node
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct AtArgs {
    /// The folder of the node that is asked
    #[arg(
        long,
        env = "ORLOP_RUNTIME_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = RUNTIME_DIR,
        global = true
    )]
    runtime_dir: PathBuf,
    /// A pool that no node has open, which is used instead
    #[arg(long, value_name = "POOL", global = true)]
    store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the pools of the node
    Pools,
    /// Make an empty volume
    Create(CreateArgs),
    /// List volumes, or snapshots
    List(ListArgs),
    /// Tell what is known of a volume
    Show(NameArgs),
    /// Serve a volume, or a snapshot read-only, and print where
    Attach(AttachArgs),
    /// Stop serving a volume or a snapshot, unless somebody has it open
    Detach(StateArgs),
    /// Take snapshots, of several volumes at one instant
    Snapshot(SnapshotArgs),
    /// Make a volume that begins as a snapshot
    Clone(CloneArgs),
    /// Print which bytes were written or discarded since a snapshot, or without one which are data, as lines of offset and length
    Diff(DiffArgs),
    /// Make a volume what it was at a snapshot; all its snapshots stay
    Rollback(FromArgs),
    /// Make a volume larger, attached or not
    Grow(GrowArgs),
    /// Change how much may be asked of a volume in a second
    Limit(LimitArgs),
    /// Delete a volume, of which the snapshots stay, or a snapshot
    Delete(DeleteArgs),
    /// Give back the room of blocks that are all zeros, of a volume that is not attached; a mounted one is trimmed by fstrim
    Trim(TrimArgs),
    /// Tell what was asked of a volume since it was attached
    Stats(StateArgs),
    /// Wrap the key of an encrypted volume, its snapshots and its clones with another secret
    ChangeSecret(ChangeSecretArgs),
    /// Destroy the key of an encrypted volume, its snapshots and its clones, which nobody can read from then on
    DestroyKey(StateArgs),
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The volume
    name: String,
}

#[derive(Debug, Args)]
struct StateArgs {
    /// VOLUME, or VOLUME@SNAPSHOT
    name: String,
}

#[derive(Debug, Args)]
struct FromArgs {
    /// VOLUME@SNAPSHOT
    snapshot: String,
}

#[derive(Debug, Default, Args)]
struct LimitsArgs {
    /// Requests in a second; 0 is no limit
    #[arg(long, value_name = "NUMBER")]
    iops: Option<u64>,
    /// Bytes in a second, such as 100MiB; 0 is no limit
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    bandwidth: Option<u64>,
}

impl LimitsArgs {
    fn over(&self, old: proto::Limits) -> proto::Limits {
        proto::Limits {
            iops: self.iops.unwrap_or(old.iops),
            bytes_per_second: self.bandwidth.unwrap_or(old.bytes_per_second),
        }
    }
}

#[derive(Debug, Args)]
struct SecretArgs {
    /// File with the secret that the key of an encrypted volume is wrapped with, taken as it is
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    of: NameArgs,
    /// Its size, such as 10GiB
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    size: u64,
    /// The pool, where there are several
    #[arg(long, value_name = "NAME", default_value = "")]
    pool: String,
    #[command(flatten)]
    limits: LimitsArgs,
    #[command(flatten)]
    secret: SecretArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// List snapshots
    #[arg(long)]
    snapshots: bool,
    /// Of this volume alone
    #[arg(requires = "snapshots")]
    volume: Option<String>,
}

#[derive(Debug, Args)]
struct AttachArgs {
    #[command(flatten)]
    of: StateArgs,
    /// Serve it over NBD on a unix socket, not as a block device
    #[arg(long)]
    nbd: bool,
    #[command(flatten)]
    secret: SecretArgs,
}

#[derive(Debug, Args)]
struct SnapshotArgs {
    /// VOLUME@SNAPSHOT for each
    #[arg(required = true)]
    snapshot: Vec<String>,
}

#[derive(Debug, Args)]
struct CloneArgs {
    #[command(flatten)]
    from: FromArgs,
    /// The name of the new volume
    name: String,
    #[command(flatten)]
    limits: LimitsArgs,
}

#[derive(Debug, Args)]
struct DiffArgs {
    #[command(flatten)]
    of: StateArgs,
    /// The name of a snapshot that it comes from
    #[arg(long, value_name = "SNAPSHOT", default_value = "")]
    since: String,
}

#[derive(Debug, Args)]
struct GrowArgs {
    #[command(flatten)]
    of: NameArgs,
    /// Its new size
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    size: u64,
}

#[derive(Debug, Args)]
struct LimitArgs {
    #[command(flatten)]
    of: NameArgs,
    #[command(flatten)]
    limits: LimitsArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    #[command(flatten)]
    of: StateArgs,
    /// Delete the snapshots of the volume, too
    #[arg(long)]
    with_snapshots: bool,
}

#[derive(Debug, Args)]
struct TrimArgs {
    #[command(flatten)]
    of: NameArgs,
    #[command(flatten)]
    secret: SecretArgs,
}

#[derive(Debug, Args)]
struct ChangeSecretArgs {
    #[command(flatten)]
    of: StateArgs,
    /// File with the secret that the key is wrapped with now
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// File with the secret that it is to be wrapped with
    #[arg(long, value_name = "FILE")]
    new_secret_file: PathBuf,
}

pub(crate) async fn run(args: VolumeArgs) -> Result<Exit> {
    let Some(store) = args.at.store else {
        let socket = node::control_socket(&args.at.runtime_dir);
        let client = node::connect(&socket).await.map_err(|e| {
            Error::new("ask the node")
                .because(e)
                .next("start `orlop node`, or name a pool that none has open with --store")
        })?;
        return ask(client, args.verb, args.output.format()).await;
    };
    let failed = || Error::new("use the pool");
    let node = open(store).await?;
    let (client, service) = node::offline(node.clone()).await.map_err(|e| failed().because(e))?;
    let asked = ask(client, args.verb, args.output.format()).await;
    service.await.map_err(|e| failed().because(e))?;
    if let Some(node) = Arc::into_inner(node) {
        tokio::task::spawn_blocking(move || node.stop()).await.map_err(|e| failed().because(e))?;
    }
    asked
}

async fn open(store: PathBuf) -> Result<Arc<Node>> {
    let failed = || Error::new("use the pool");
    let start = move || {
        let pools = vec![PoolSpec { path: store, bytes: None }];
        Node::start(Config {
            pools,
            cache_bytes: CACHE_BYTES,
            access: Access::Best,
            scrub: None,
            serving: None,
            replication: None,
        })
    };
    let started = tokio::task::spawn_blocking(start).await.map_err(|e| failed().because(e))?;
    started.map(Arc::new).map_err(|e| failed().because(e))
}

async fn ask(mut client: Client, verb: Verb, format: Format) -> Result<Exit> {
    match verb {
        Verb::Pools => {
            let told = client.list_pools(proto::ListPoolsRequest {}).await.map_err(explain("list the pools"))?;
            show::list(format, &told.into_inner().pools.into_iter().map(Pool::from).collect::<Vec<_>>())?;
        }
        Verb::List(args) if args.snapshots => {
            let volume = args.volume.unwrap_or_default();
            let told = client.list_snapshots(proto::ListSnapshotsRequest { volume }).await;
            let told = told.map_err(explain("list the snapshots"))?.into_inner().snapshots;
            show::list(format, &told.into_iter().map(Snapshot::from).collect::<Vec<_>>())?;
        }
        Verb::List(_) => {
            let told = client.list_volumes(proto::ListVolumesRequest {}).await.map_err(explain("list the volumes"))?;
            show::list(format, &told.into_inner().volumes.into_iter().map(Volume::from).collect::<Vec<_>>())?;
        }
        Verb::Attach(args) => {
            let front_end = if args.nbd { FrontEnd::Nbd } else { FrontEnd::Device };
            let secret = secret(args.secret.secret_file.as_deref())?;
            let request = proto::AttachRequest { name: args.of.name, front_end: front_end.into(), secret };
            let what = format!("attach {}", request.name);
            let told = client.attach(request).await.map_err(explain(what))?;
            show::one(format, &Attached::from(told.into_inner()))?;
        }
        Verb::Snapshot(args) => {
            let request = proto::CreateSnapshotsRequest { names: args.snapshot, labels: HashMap::new() };
            let told =
                client.create_snapshots(request).await.map_err(explain("take snapshots"))?.into_inner().snapshots;
            show::list(format, &told.into_iter().map(Snapshot::from).collect::<Vec<_>>())?;
        }
        Verb::Diff(args) => diff(client, args, format).await?,
        Verb::Stats(args) => {
            let told = client.get_stats(proto::GetStatsRequest { name: args.name }).await;
            show::one(format, &Stats::from(told.map_err(explain("tell what was asked"))?.into_inner()))?;
        }
        Verb::Create(..) | Verb::Show(..) | Verb::Clone(..) | Verb::Rollback(..) | Verb::Grow(..) | Verb::Limit(..) => {
            show::one(format, &Volume::from(one_volume(client, verb).await?))?;
        }
        Verb::Detach(..) | Verb::Delete(..) | Verb::Trim(..) | Verb::ChangeSecret(..) | Verb::DestroyKey(..) => {
            output::print(&done(client, verb).await?)?;
        }
    }
    Ok(Exit::Succeeded)
}

/// What ends with a volume.
async fn one_volume(mut client: Client, verb: Verb) -> Result<proto::Volume> {
    let (what, told) = match verb {
        Verb::Create(args) => {
            let request = proto::CreateVolumeRequest {
                name: args.of.name,
                pool: args.pool,
                bytes: args.size,
                limits: Some(args.limits.over(proto::Limits::default())),
                secret: secret(args.secret.secret_file.as_deref())?,
                labels: HashMap::new(),
            };
            ("make the volume", client.create_volume(request).await)
        }
        Verb::Clone(args) => {
            let limits = Some(args.limits.over(proto::Limits::default()));
            let request = proto::CloneSnapshotRequest {
                snapshot: args.from.snapshot,
                name: args.name,
                limits,
                labels: HashMap::new(),
            };
            ("clone the snapshot", client.clone_snapshot(request).await)
        }
        Verb::Rollback(args) => {
            let request = proto::RollbackVolumeRequest { snapshot: args.snapshot };
            ("roll the volume back", client.rollback_volume(request).await)
        }
        Verb::Grow(args) => {
            let request = proto::GrowVolumeRequest { name: args.of.name, bytes: args.size };
            ("make the volume larger", client.grow_volume(request).await)
        }
        Verb::Limit(args) => {
            let name = args.of.name;
            let now = client.get_volume(proto::GetVolumeRequest { name: name.clone() }).await;
            let now = now.map_err(explain("look at the volume"))?.into_inner().limits.unwrap_or_default();
            let request = proto::SetLimitsRequest { name, limits: Some(args.limits.over(now)) };
            ("limit the volume", client.set_limits(request).await)
        }
        Verb::Show(args) => {
            ("look at the volume", client.get_volume(proto::GetVolumeRequest { name: args.name }).await)
        }
        _ => return Err(Error::new("find what ends with a volume; this is a defect of the program")),
    };
    told.map(tonic::Response::into_inner).map_err(explain(what))
}

/// What ends with a sentence.
async fn done(mut client: Client, verb: Verb) -> Result<String> {
    match verb {
        Verb::Detach(args) => {
            let request = proto::DetachRequest { name: args.name.clone() };
            client.detach(request).await.map_err(explain(format!("detach {}", args.name)))?;
            Ok(format!("{} is not attached.\n", args.name))
        }
        Verb::Delete(args) if args.of.name.contains('@') => {
            if args.with_snapshots {
                return Err(Error::usage("--with-snapshots is for volumes, and this is a snapshot"));
            }
            let request = proto::DeleteSnapshotRequest { name: args.of.name.clone() };
            client.delete_snapshot(request).await.map_err(explain("delete the snapshot"))?;
            Ok(format!("{} is deleted.\n", args.of.name))
        }
        Verb::Delete(args) => {
            let request =
                proto::DeleteVolumeRequest { name: args.of.name.clone(), with_snapshots: args.with_snapshots };
            client.delete_volume(request).await.map_err(explain("delete the volume"))?;
            Ok(format!("{} is deleted.\n", args.of.name))
        }
        Verb::Trim(args) => {
            let secret = secret(args.secret.secret_file.as_deref())?;
            let request = proto::TrimVolumeRequest { name: args.of.name.clone(), secret };
            let told = client.trim_volume(request).await.map_err(explain("trim the volume"))?;
            Ok(format!(
                "{} of {} were zeros, and take no room any more.\n",
                human::bytes(told.into_inner().freed_bytes),
                args.of.name
            ))
        }
        Verb::ChangeSecret(args) => {
            let request = proto::ChangeSecretRequest {
                name: args.of.name.clone(),
                old_secret: secret(Some(&args.secret_file))?,
                new_secret: secret(Some(&args.new_secret_file))?,
            };
            client.change_secret(request).await.map_err(explain("change the secret"))?;
            Ok(format!("{}, its snapshots and its clones open with the new secret alone.\n", args.of.name))
        }
        Verb::DestroyKey(args) => {
            let request = proto::DestroyKeyRequest { name: args.name.clone() };
            client.destroy_key(request).await.map_err(explain("destroy the key"))?;
            Ok(format!("The key of {} is destroyed.\n", args.name))
        }
        _ => Err(Error::new("find what ends with a sentence; this is a defect of the program")),
    }
}

async fn diff(mut client: Client, args: DiffArgs, format: Format) -> Result<()> {
    let request = proto::DiffRequest { name: args.of.name, since: args.since, start: 0 };
    let failed = || explain("compare");
    let mut told = client.diff(request).await.map_err(failed())?.into_inner();
    let mut all = Vec::new();
    while let Some(page) = told.message().await.map_err(failed())? {
        if format == Format::Table {
            // As it comes: the list may be longer than memory.
            let lines = page.ranges.iter().map(|range| format!("{} {}\n", range.offset, range.length));
            output::print(&lines.collect::<String>())?;
        } else {
            all.extend(page.ranges);
        }
    }
    if format == Format::Table { Ok(()) } else { show::one(format, &Ranges::from(all)) }
}

/// The bytes of a file with a secret; nothing without a file.
fn secret(file: Option<&Path>) -> Result<Vec<u8>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let read = std::fs::read(file).map(Zeroizing::new);
    let mut bytes = read.map_err(|e| Error::new(format!("read the secret in {}", file.display())).because(e))?;
    if bytes.is_empty() {
        return Err(Error::new(format!("read the secret in {}: it is empty", file.display())));
    }
    Ok(std::mem::take(&mut *bytes))
}

/// The node says what was to be done itself, when it has understood what it was asked.
fn explain(what: impl Into<String>) -> impl FnOnce(Status) -> Error {
    let what = what.into();
    move |status| match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => Error::new(what).because(status),
        _ => Error::new(status.message().to_owned()),
    }
}
