//! A node: its pools, and what it serves of them.

use crate::attachments::{Attachments, Entry, Local, Place};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::pool_spec::PoolSpec;
use crate::proto;
use crate::replicated::{Replicated, Replication};
use crate::runtime::RuntimeDir;
use crate::scrub::{Pace, Scrubber};
use crate::store::Store;
use fuse::{Host, Keeper};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use volume::{Access, BLOCK, SnapshotInfo, State, VolumeInfo};

/// What a node is made of.
#[derive(Debug)]
pub struct Config {
    /// Its pools.
    pub pools: Vec<PoolSpec>,
    /// Bytes of map nodes that are kept in memory, for each pool.
    pub cache_bytes: usize,
    /// How disks are asked.
    pub access: Access,
    /// How often all of the pools is read; without it, it is not.
    pub scrub: Option<Pace>,
    /// How it serves devices; without it, it does not.
    pub serving: Option<Serving>,
    /// How it holds replicas, and serves volumes that have them; without it, it does not. It needs `serving`.
    pub replication: Option<Replication>,
}

/// What is needed to serve devices.
#[derive(Debug)]
pub struct Serving {
    /// Where the list of what is attached, and the sockets of NBD exports, are. For encrypted volumes it must be memory, such as a folder in `/run`.
    pub runtime: RuntimeDir,
    /// Who keeps devices while the process is replaced.
    pub keeper: Option<Keeper>,
    /// By what clients over TCP know it, and it knows them; without it, it listens for them on this machine alone, and speaks to them in clear.
    pub nbd_tls: Option<nbd::Tls>,
}

/// A node.
pub struct Node {
    pub(crate) stores: Vec<Arc<Store>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) attachments: Option<Arc<Attachments>>,
    pub(crate) replicated: Option<Replicated>,
    /// Held by whoever changes which volumes, snapshots and attachments there are: one at a time, so that what was looked at stays as it is.
    changing: Mutex<()>,
    scrubber: Option<Scrubber>,
    /// Let go of last.
    _runtime: Option<RuntimeDir>,
}

impl Node {
    /// Opens the pools, and serves what an earlier process has left attached. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// If a pool cannot be opened. What cannot be attached again is told in the log, and stays on the list.
    pub fn start(config: Config) -> Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let mut stores: Vec<Arc<Store>> = Vec::new();
        for spec in &config.pools {
            if stores.iter().any(|store| store.name == spec.name()) {
                let what =
                    format!("open the pool {}: there are two pools of the name {}", spec.path.display(), spec.name());
                return Err(Error::new(Kind::Invalid, what));
            }
            stores.push(Arc::new(Store::open(spec, (config.cache_bytes, config.access), now())?));
        }
        let (attachments, runtime) = match config.serving {
            None => (None, None),
            Some(Serving { runtime, keeper, nbd_tls }) => {
                let attachments =
                    Attachments::new(Host::new(keeper), (runtime.path(), nbd_tls), &stores, metrics.clone())?;
                (Some(Arc::new(attachments)), Some(runtime))
            }
        };
        let replicated = match (config.replication, &attachments) {
            (None, _) => None,
            (Some(replication), Some(attachments)) => {
                Some(Replicated::start(replication, stores.clone(), attachments.clone())?)
            }
            (Some(_), None) => {
                let what = "hold replicas: a node that serves no devices cannot serve volumes that have them";
                return Err(Error::new(Kind::Invalid, what));
            }
        };
        let (changing, scrubber) = (Mutex::default(), None);
        let mut node = Self { stores, metrics, attachments, replicated, changing, scrubber, _runtime: runtime };
        node.resume()?;
        if let Some(pace) = config.scrub {
            let scrubber = Scrubber::start(node.stores.clone(), pace);
            node.scrubber = Some(scrubber.map_err(|e| Error::new(Kind::Failed, "start to scrub").because(e))?);
        }
        Ok(node)
    }

    fn resume(&self) -> Result<()> {
        let Some(attachments) = &self.attachments else { return Ok(()) };
        for entry in attachments.left() {
            if entry.replicated.is_some() {
                match &self.replicated {
                    Some(replicated) => replicated.resume(entry),
                    None => tracing::error!(
                        name = entry.name,
                        "a replicated volume that was attached is not served: start the node as a part of its cluster again"
                    ),
                }
                continue;
            }
            match self.attach_again(attachments, &entry) {
                Ok(place) => tracing::info!(name = entry.name, place = place.place, "served again"),
                Err(error) if error.kind() == Kind::NotFound && self.store(&entry.pool).is_ok() => {
                    tracing::warn!(name = entry.name, error = error.story(), "what was attached is not there any more");
                    attachments.give_up(&entry)?;
                }
                Err(error) if error.kind() == Kind::NotFound => tracing::error!(
                    name = entry.name,
                    pool = entry.pool,
                    "what was attached is not served, and whoever uses it waits: start the node with its pool again"
                ),
                Err(error) => {
                    tracing::error!(name = entry.name, error = error.story(), "what was attached is not served")
                }
            }
        }
        Ok(())
    }

    fn attach_again(&self, attachments: &Attachments, entry: &Entry) -> Result<Place> {
        let target = self.target(&entry.name)?;
        attachments.attach(&target.target(), entry.front_end, entry.key.clone())
    }

    /// Whoever keeps its block devices answers. Without one that does, they end with this process.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.attachments.as_ref().is_none_or(|attachments| attachments.is_kept())
    }

    /// Has another keeper keep its block devices, in place of one that has ended.
    ///
    /// # Errors
    ///
    /// If that one does not take all of them; then it is as it was before.
    pub fn keep_with(&self, keeper: Keeper) -> Result<()> {
        self.attachments.as_ref().map_or(Ok(()), |attachments| attachments.keep_with(keeper))
    }

    /// Ends: devices are left for the next process, and the pools are closed so that it opens them fast.
    pub fn stop(self) {
        drop(self.scrubber);
        if let Some(replicated) = &self.replicated {
            replicated.settle();
        }
        let is_handed_over = self.attachments.as_ref().is_none_or(|attachments| attachments.hand_over());
        if let Some(replicated) = self.replicated {
            replicated.stop(is_handed_over);
        }
        drop(self.attachments);
        for store in self.stores {
            match Arc::into_inner(store) {
                Some(store) => store.close(),
                None => tracing::warn!("a pool is still in use; it is closed without a last checkpoint"),
            }
        }
    }

    /// What it tells of itself, for Prometheus.
    ///
    /// # Errors
    ///
    /// If the text cannot be made.
    pub fn metrics(&self) -> std::result::Result<String, std::fmt::Error> {
        self.metrics.encode(&self.stores.iter().map(|store| store.figures()).collect::<Vec<_>>())
    }

    /// The pools.
    pub(crate) fn pools(&self) -> Vec<proto::Pool> {
        self.stores.iter().map(|store| describe_pool(store)).collect()
    }

    /// Makes a pool larger while it is used; writes that wait for room go on.
    pub(crate) fn grow_pool(&self, name: &str, bytes: u64) -> Result<proto::Pool> {
        let _changing = self.change();
        let store = self.store(name)?;
        store.grow(bytes)?;
        Ok(describe_pool(store))
    }

    /// The pool of this name, or the only one.
    pub(crate) fn store(&self, name: &str) -> Result<&Arc<Store>> {
        let names = || self.stores.iter().map(|store| store.name.as_str()).collect::<Vec<_>>().join(", ");
        match (name, self.stores.as_slice()) {
            ("", [only]) => Ok(only),
            ("", _) => Err(Error::new(Kind::Invalid, format!("say in which pool: there are {}", names()))),
            _ => self.stores.iter().find(|store| store.name == name).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("there is no pool {name} on this node, but {}", names()))
            }),
        }
    }

    /// The volume of this name, and where it is.
    pub(crate) fn volume(&self, name: &str) -> Result<(&Arc<Store>, VolumeInfo)> {
        let found = self.stores.iter().find_map(|store| store.volume(name).map(|volume| (store, volume)));
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no volume {name} on this node")))
    }

    /// The snapshot of this name, VOLUME@SNAPSHOT, and where it is.
    pub(crate) fn snapshot(&self, name: &str) -> Result<(&Arc<Store>, SnapshotInfo)> {
        let (volume, snapshot) = split(name)?;
        let found = self.stores.iter().find_map(|store| store.snapshot(volume, snapshot).map(|info| (store, info)));
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no snapshot {name} on this node")))
    }

    /// What is served under a name: VOLUME, or VOLUME@SNAPSHOT.
    pub(crate) fn target(&self, name: &str) -> Result<Local> {
        let (store, state, id) = if name.contains('@') {
            let (store, snapshot) = self.snapshot(name)?;
            (store, State::Snapshot(snapshot.id), snapshot.id.0)
        } else {
            let (store, volume) = self.volume(name)?;
            (store, State::Volume(volume.id), volume.id.0)
        };
        let limits = store.record(id).limits;
        Ok(Local { store: store.clone(), name: name.to_owned(), state, limits })
    }

    /// Where something is served.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        self.attachments.as_ref()?.place(name)
    }

    /// Refuses what would pull a volume or snapshot away from those who use it.
    pub(crate) fn refuse_attached(&self, name: &str, what: &str) -> Result<()> {
        match self.place(name) {
            None => Ok(()),
            Some(place) => Err(Error::new(
                Kind::Precondition,
                format!("{what} {name}: it is attached as {}; detach it first", place.place),
            )),
        }
    }

    /// Waits until nobody else changes what there is.
    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe_pool(store: &Store) -> proto::Pool {
    let usage = store.pool.usage();
    proto::Pool {
        name: store.name.clone(),
        bytes: usage.blocks * BLOCK as u64,
        free_bytes: usage.free * BLOCK as u64,
        full: store.told.is_full.load(Ordering::Relaxed),
        failed: store.told.has_failed.load(Ordering::Relaxed),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The two parts of VOLUME@SNAPSHOT.
pub(crate) fn split(name: &str) -> Result<(&str, &str)> {
    match name.split_once('@') {
        Some((volume, snapshot)) if !volume.is_empty() && !snapshot.is_empty() => Ok((volume, snapshot)),
        _ => {
            let what = format!(
                "{name:?} is no name of a snapshot, which is VOLUME@SNAPSHOT; `orlop volume snapshot` takes one of a volume"
            );
            Err(Error::new(Kind::Invalid, what))
        }
    }
}

/// Refuses names that would be something else, or that no tool could show.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= volume::MOST_NAME && name.chars().all(fits) {
        return Ok(());
    }
    let what = format!(
        "{name:?} cannot be a name: it begins with a letter or digit, goes on with those and - _ . : and has up to {} characters",
        volume::MOST_NAME
    );
    Err(Error::new(Kind::Invalid, what))
}
