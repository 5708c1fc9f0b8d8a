//! `orlop repo serve`: volumes of a recovery point as block devices, over NBD.

mod device;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nbd::{Export, Limits, Listener, Server};
use repository::volume::{BlobCache, CacheError, DiskCache, VolumeReader};
use repository::{RecoveryPoint, Repository, Root, RootKind};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::device::{Said, Served};
use super::PlaceArgs;
use super::open::{is_full, map, point, roots};
use crate::daemons::stop_at_signals;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

/// Bytes of a cache whose size is not said: the part of a volume that a database reads often is less.
const DEFAULT_CACHE_BYTES: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The recovery point, or `latest`
    id: String,
    /// Only this volume or stream; may be given several times. Without it all are served
    #[arg(long, value_name = "NAME")]
    volume: Vec<String>,
    /// The socket to make and listen on, which only this user may connect to; without it one in the folder for temporary files
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// The address and the port to listen on instead; port 0 is any that is free. Whoever reaches it can read the volumes, and nothing is
    /// encrypted
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A folder in which parts of the repository that were read are kept, encrypted as they are there, also for the next time
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How much is kept there, such as 512MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", requires = "cache", value_parser = human::parse_bytes)]
    cache_size: Option<u64>,
}

/// What is served, told when clients can connect.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Offer {
    recovery_point: String,
    exports: Vec<Offered>,
}

#[derive(Debug, Serialize)]
struct Offered {
    name: String,
    bytes: u64,
    uri: String,
}

pub(super) async fn run(place: &PlaceArgs, args: &ServeArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let chosen = chosen(&point, &args.volume)?;
    let cache = open_cache(&repository, args)?;
    let server = server(&repository, &point, &chosen, &cache)?;
    // From here on a signal does not end the process by itself, and would leave the socket behind.
    let stop = CancellationToken::new();
    stop_at_signals(stop.clone())?;
    let listener = listen(args).await?;
    let offered =
        |root: &&Root| Offered { name: root.name.clone(), bytes: root.bytes, uri: server.uri(&listener, &root.name) };
    let offer = Offer { recovery_point: point.id.to_string(), exports: chosen.iter().map(offered).collect() };
    output::print(&output::render(format, &offer, || table(&offer), || uris(&offer))?)?;
    if listener.address().is_some_and(|address| !address.ip().is_loopback()) {
        tracing::warn!("whoever reaches this port can read the volumes, and nothing is encrypted");
    }
    let served = server.serve(listener, stop).await;
    served.map(|()| Exit::Succeeded).map_err(|e| Error::new("serve the volumes").because(e))
}

/// The volumes and streams that are meant: those that are named, or all.
fn chosen<'a>(point: &'a RecoveryPoint, names: &[String]) -> Result<Vec<&'a Root>> {
    let mut chosen: Vec<&Root> = Vec::new();
    for name in names {
        for root in roots(point, Some(name))? {
            if root.kind == RootKind::Tree {
                return Err(Error::usage(format!("{name} was stored as files, and is no block device"))
                    .next("orlop repo restore writes them into a folder"));
            }
            if !chosen.iter().any(|other| other.name == root.name) {
                chosen.push(root);
            }
        }
    }
    if names.is_empty() {
        chosen = point.roots.iter().filter(|root| root.kind != RootKind::Tree).collect();
    }
    if chosen.is_empty() {
        return Err(Error::new(format!("the recovery point {} has no volume that was stored as an image", point.id))
            .next("orlop repo restore writes files into a folder"));
    }
    Ok(chosen)
}

fn open_cache(repository: &Repository, args: &ServeArgs) -> Result<BlobCache> {
    let disk = match &args.cache {
        None => None,
        Some(folder) => {
            let size = args.cache_size.unwrap_or(DEFAULT_CACHE_BYTES);
            let opened = DiskCache::open(folder, size).map_err(|e| {
                let next = match &e {
                    CacheError::InUse(_) => None,
                    CacheError::Folder { source, .. } if is_full(source) => {
                        Some("make room there, name a folder on another disk, or leave --cache out")
                    }
                    CacheError::Folder { .. } => {
                        Some("name a folder that this user may write to, or leave --cache out")
                    }
                };
                let error = Error::new("open the cache").because(e);
                match next {
                    Some(next) => error.next(next),
                    None => error,
                }
            });
            Some(Arc::new(opened?))
        }
    };
    Ok(BlobCache::new(repository, BlobCache::DEFAULT_MEMORY, disk))
}

fn server(repository: &Repository, point: &RecoveryPoint, chosen: &[&Root], cache: &BlobCache) -> Result<Server> {
    let said = Arc::new(Said::default());
    let export = |root: &&Root| {
        let map = map(repository, root)?;
        let device = Served::new(&root.name, VolumeReader::new(map, cache), said.clone());
        let description = format!("{} of the recovery point {}", root.name, point.id);
        Some(Export { name: root.name.clone(), description, device: Arc::new(device) })
    };
    let exports = chosen.iter().filter_map(export).collect();
    Server::new(exports, Limits::default()).map_err(|e| Error::new("serve the volumes").because(e))
}

async fn listen(args: &ServeArgs) -> Result<Listener> {
    let listener = match (args.listen, &args.socket) {
        (Some(address), _) => Listener::tcp(address).await,
        (None, Some(path)) => Listener::unix(path),
        (None, None) => Listener::unix(&default_socket(&std::env::temp_dir())),
    };
    listener.map_err(|e| Error::new("wait for clients").because(e))
}

/// A name that no other process has at the same time.
fn default_socket(folder: &Path) -> PathBuf {
    folder.join(format!("orlop-{}.nbd", std::process::id()))
}

fn table(offer: &Offer) -> String {
    let row = |export: &Offered| [export.name.clone(), human::bytes(export.bytes), export.uri.clone()];
    let text = output::table(["VOLUME", "SIZE", "URI"], offer.exports.iter().map(row));
    format!("{text}\n{} is served read-only until this is interrupted.\n", offer.recovery_point)
}

fn uris(offer: &Offer) -> String {
    offer.exports.iter().map(|export| format!("{}\n", export.uri)).collect()
}
