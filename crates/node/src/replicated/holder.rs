//! The replicas that this node holds in its pools.
//!
//! Invariant: an empty replica is made only for somebody who says that there never was one of its id. A pool that was lost must not come back as replicas that
//! are empty and pass for those that they replace: what is in sync by its record is believed to hold everything. And nothing is removed here unless somebody
//! says so who has read that it is not needed.
//!
//! All that is in the pools is offered as soon as the node starts, before any record can be read: who asks for a replica has read the record, and what is
//! asked of one that is no member any more is refused by the epochs.

use super::SnapshotHere;
use crate::error::{Error, Kind, Result};
use crate::store::Store;
use block::Buffer;
use replicas::{HeldSnapshot, PoolStore, Replica, Replicas, StoreError, incarnation, session};
use replication::units::{Epoch, Incarnation, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use volume::{Blocks, Pool, State};

/// The replicas of this node.
pub(super) struct Holder {
    stores: Vec<Arc<Store>>,
    pub(super) offered: Arc<Replicas>,
    incarnation: Incarnation,
    /// In which pool each is, with the volume that has its bytes; without that, it cannot be used.
    held: Mutex<BTreeMap<(VolumeId, ReplicaId), Place>>,
}

#[derive(Clone)]
struct Place {
    store: Arc<Store>,
    data: Option<volume::VolumeId>,
}

impl Holder {
    /// Opens all that is in the pools. One that cannot be opened is told in the log, and not offered.
    pub(super) fn open(stores: Vec<Arc<Store>>) -> Result<Self> {
        let incarnation = incarnation();
        let incarnation = incarnation.map_err(|e| Error::new(Kind::Failed, "hold replicas").because(e))?;
        let holder = Self { stores, offered: Arc::default(), incarnation, held: Mutex::default() };
        for store in &holder.stores {
            for (volume, replica) in PoolStore::all(&store.pool) {
                let data = match PoolStore::open(&store.pool, volume, replica) {
                    Ok(opened) => Some(holder.offer(volume, replica, opened)),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(pool = store.name, %replica, volume = %format_args!("{:032x}", volume.0), error, "a replica cannot be used");
                        None
                    }
                };
                holder.held().insert((volume, replica), Place { store: store.clone(), data });
            }
        }
        Ok(holder)
    }

    /// The replicas in the pools, those that cannot be used too.
    pub(super) fn all(&self) -> BTreeSet<(VolumeId, ReplicaId)> {
        self.held().keys().copied().collect()
    }

    /// Those that can be used: they can be read, and their pools work.
    pub(super) fn usable(&self) -> BTreeSet<(VolumeId, ReplicaId)> {
        let works = |place: &Place| place.data.is_some() && !place.store.told.has_failed.load(Ordering::Relaxed);
        self.held().iter().filter(|(_, place)| works(place)).map(|(id, _)| *id).collect()
    }

    /// The epoch that a replica has sealed; nothing if it cannot be used.
    pub(super) fn sealed_epoch(&self, volume: VolumeId, replica: ReplicaId) -> Option<Epoch> {
        self.offered.find(volume, replica).map(|replica| replica.epoch())
    }

    /// Makes an empty replica where the most room is, and offers it.
    pub(super) fn make(&self, volume: VolumeId, replica: ReplicaId, blocks: u64) -> Result<()> {
        let what = || format!("make {replica} of volume {:032x}", volume.0);
        let sound = self.stores.iter().filter(|store| !store.told.has_failed.load(Ordering::Relaxed));
        let store = sound.max_by_key(|store| store.pool.usage().free);
        let store = store.ok_or_else(|| Error::new(Kind::NoRoom, format!("{}: no pool of this node works", what())))?;
        self.make_in(store, volume, replica, |pool| PoolStore::create(pool, volume, replica, blocks))
    }

    /// Makes one that begins as a snapshot, where that is, and offers it.
    pub(super) fn make_from(&self, volume: VolumeId, replica: ReplicaId, from: &SnapshotHere) -> Result<()> {
        let absent = || {
            let what =
                format!("make {replica} of volume {:032x}: {} is in no pool of this node", volume.0, from.held.0);
            Error::new(Kind::NotFound, what)
        };
        let place = self.held().get(&(from.volume, from.replica)).cloned().ok_or_else(absent)?;
        let snapshot = PoolStore::snapshot(&place.store.pool, from.volume, from.replica, from.held);
        let snapshot = snapshot.ok_or_else(absent)?;
        self.make_in(&place.store, volume, replica, |pool| PoolStore::create_from(pool, volume, replica, snapshot))
    }

    fn make_in(
        &self,
        store: &Arc<Store>,
        volume: VolumeId,
        replica: ReplicaId,
        make: impl FnOnce(&Arc<Pool<Buffer>>) -> std::result::Result<PoolStore, StoreError>,
    ) -> Result<()> {
        let what = || format!("make {replica} of volume {:032x}", volume.0);
        let mut held = self.held();
        if held.contains_key(&(volume, replica)) {
            return Ok(());
        }
        let made = make(&store.pool).map_err(|e| Error::new(kind_of(&e), what()).because(e))?;
        let data = Some(self.offer(volume, replica, made));
        held.insert((volume, replica), Place { store: store.clone(), data });
        Ok(())
    }

    /// Removes a replica for good, whoever uses it.
    pub(super) fn remove(&self, volume: VolumeId, replica: ReplicaId) -> Result<()> {
        let mut held = self.held();
        let Some(place) = held.get(&(volume, replica)).cloned() else { return Ok(()) };
        self.offered.remove(volume, replica);
        let what = || format!("remove {replica} of volume {:032x}", volume.0);
        let removed = PoolStore::remove(&place.store.pool, volume, replica);
        removed.map_err(|e| Error::new(kind_of(&e), what()).because(e))?;
        held.remove(&(volume, replica));
        Ok(())
    }

    /// What its replicas have of snapshots.
    pub(super) fn snapshots(&self) -> Vec<(VolumeId, ReplicaId, HeldSnapshot)> {
        let held = self.held();
        let of = |((volume, replica), place): (&(VolumeId, ReplicaId), &Place)| {
            let all = PoolStore::snapshots(&place.store.pool, *volume, *replica);
            all.into_iter().map(|held| (*volume, *replica, held)).collect::<Vec<_>>()
        };
        held.iter().flat_map(of).collect()
    }

    pub(super) fn remove_snapshot(&self, volume: VolumeId, replica: ReplicaId, held: HeldSnapshot) -> Result<()> {
        let Some(place) = self.held().get(&(volume, replica)).cloned() else { return Ok(()) };
        let what = || format!("remove {} of {replica} of volume {:032x}", held.0, volume.0);
        let removed = PoolStore::remove_snapshot(&place.store.pool, volume, replica, held);
        removed.map_err(|e| Error::new(kind_of(&e), what()).because(e))
    }

    /// Whether a replica has no data; nothing if it is not here.
    pub(super) fn is_blank(&self, volume: VolumeId, replica: ReplicaId) -> Option<Result<bool>> {
        let place = self.held().get(&(volume, replica)).cloned()?;
        let state = State::Volume(place.data?);
        Some(is_blank(&place.store, state))
    }

    fn offer(&self, volume: VolumeId, replica: ReplicaId, opened: PoolStore) -> volume::VolumeId {
        let data = opened.volume();
        self.offered.add(Replica::new(volume, replica, Arc::new(opened), session(), self.incarnation));
        data
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(VolumeId, ReplicaId), Place>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_blank(store: &Store, state: State) -> Result<bool> {
    const PAGE: usize = 256;
    let blocks = store.pool.volumes().into_iter().find(|volume| State::Volume(volume.id) == state);
    // Not blank: whoever asks formats what is.
    let absent = || Error::new(Kind::Damaged, "look for data in a replica: its pool does not have its volume");
    let blocks = blocks.ok_or_else(absent)?.blocks;
    let mut from = 0;
    while from < blocks {
        let (sender, receiver) = std::sync::mpsc::channel();
        let rest = Blocks { start: from, count: blocks - from };
        store.pool.extents(state, rest, PAGE, move |page| drop(sender.send(page)));
        let page = receiver.recv().unwrap_or(Err(volume::Error::Closed));
        let page = page.map_err(crate::error::stored("look for data in a replica"))?;
        if page.items.iter().any(|extent| extent.is_data) {
            return Ok(false);
        }
        from = page.next;
    }
    Ok(true)
}

fn kind_of(error: &StoreError) -> Kind {
    match error {
        StoreError::Pool(volume::Error::Full) => Kind::NoRoom,
        StoreError::NotThere { .. } => Kind::NotFound,
        StoreError::Damaged(_) => Kind::Damaged,
        _ => Kind::Failed,
    }
}
