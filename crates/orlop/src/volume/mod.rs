//! `orlop volume`: the volumes of a node, or of a pool that no node has open.
//!
//! Both are asked through the same control API; offline, the node is a part of this process. What is printed for programs is the structs of [`show`].

mod args;
mod show;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node::proto::{self, FrontEnd};
use node::{Access, Client, Config, Node, PoolSpec};
use tonic::Status;
use zeroize::Zeroizing;

use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};
pub(crate) use args::VolumeArgs;
use args::{DiffArgs, Verb};
use show::{Attached, Pool, Ranges, Snapshot, Stats, Volume};

/// Memory for maps of an offline pool.
const CACHE_BYTES: usize = 64 << 20;

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
        Verb::GrowPool(args) => {
            let request = proto::GrowPoolRequest { name: args.pool, bytes: args.size.unwrap_or(0) };
            let told = client.grow_pool(request).await.map_err(explain("make the pool larger"))?;
            show::one(format, &Pool::from(told.into_inner()))?;
        }
        Verb::Show(args) if args.name.contains('@') => show::one(format, &one_snapshot(client, args.name).await?)?,
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
            let listen = args.listen.map_or_else(String::new, |address| address.to_string());
            let request = proto::AttachRequest { name: args.of.name, front_end: front_end.into(), secret, listen };
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

/// A snapshot, by its name.
async fn one_snapshot(mut client: Client, name: String) -> Result<Snapshot> {
    let told = client.list_snapshots(proto::ListSnapshotsRequest::default()).await;
    let told = told.map_err(explain("look at the snapshot"))?.into_inner().snapshots;
    let found = told.into_iter().find(|snapshot| snapshot.name == name);
    found.map(Snapshot::from).ok_or_else(|| Error::new(format!("there is no snapshot {name} on this node")))
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
