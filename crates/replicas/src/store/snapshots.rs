//! Snapshots of a replica: those of its volume in the pool, named after what they are.
//!
//! A snapshot is known by its id and the epoch that it was taken in ([`replication::record::snapshots`]), and its name in the pool says both. The pool takes it with
//! all that was answered, as a whole and durably, or not at all; so there is nothing to be recorded beside it.

use super::{PoolStore, Seen, StoreError, find, names};
use block::Buffer;
use replication::look::{Look, Unseen};
use replication::message::Changed;
pub use replication::units::HeldSnapshot;
use replication::units::{Blocks, Epoch, ReplicaId, SnapshotId, VolumeId};
use std::collections::BTreeMap;
use volume::{Page, Pool, Since, State};

fn name((id, epoch): HeldSnapshot) -> String {
    format!("{:032x}-{:016x}", id.0, epoch.0)
}

fn held(text: &str) -> Option<HeldSnapshot> {
    let (id, epoch) = text.split_once('-')?;
    let id = u128::from_str_radix(id, 16).ok().map(SnapshotId)?;
    let epoch = u64::from_str_radix(epoch, 16).ok().map(Epoch)?;
    (name((id, epoch)) == text).then_some((id, epoch))
}

/// Takes a snapshot, unless it is there.
pub(super) fn take(pool: &Pool<Buffer>, volume: volume::VolumeId, held: HeldSnapshot) -> Result<(), volume::Error> {
    match pool.snapshot(&[(volume, &name(held))]) {
        Ok(_) | Err(volume::Error::NameTaken(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The snapshots of a volume of the pool.
fn of(pool: &Pool<Buffer>, volume: volume::VolumeId) -> BTreeMap<HeldSnapshot, volume::SnapshotId> {
    let all = pool.snapshots().into_iter().filter(|snapshot| snapshot.volume == volume);
    all.filter_map(|snapshot| Some((held(&snapshot.name)?, snapshot.id))).collect()
}

/// Removes all that is left of a volume of the pool.
pub(super) fn remove_all(pool: &Pool<Buffer>, volume: volume::VolumeId) -> Result<(), volume::Error> {
    of(pool, volume).into_values().try_for_each(|id| pool.delete(State::Snapshot(id)))
}

/// Tells what a snapshot of a volume of the pool has.
pub(super) fn look(pool: &Pool<Buffer>, volume: volume::VolumeId, look: &Look, seen: Seen) {
    let all = of(pool, volume);
    let find = |held: HeldSnapshot| {
        let absent = || Unseen::Absent(format!("{} of {}", held.0, held.1));
        all.get(&held).copied().ok_or_else(absent)
    };
    let (state, since) = match (find(look.of), look.since.map(find).transpose()) {
        (Ok(id), Ok(since)) => (State::Snapshot(id), since),
        (Err(unseen), _) | (_, Err(unseen)) => return seen(Err(unseen)),
    };
    let blocks = volume::Blocks { start: look.blocks.start, count: look.blocks.count };
    let (end, most) = (look.blocks.end(), usize::try_from(look.most).unwrap_or(usize::MAX));
    match since {
        None => pool.extents(state, blocks, most, move |page| {
            let is_data = |extent: volume::Extent| extent.is_data.then_some(extent.blocks);
            seen(page.map(|page| told(page, is_data, end)).map_err(|error| unseen(&error)));
        }),
        Some(since) => pool.changed(state, Since::Snapshot(since), blocks, most, move |page| {
            seen(page.map(|page| told(page, Some, end)).map_err(|error| unseen(&error)));
        }),
    }
}

fn told<T>(page: Page<T>, wanted: impl Fn(T) -> Option<volume::Blocks>, end: u64) -> Changed {
    let ranges = page.items.into_iter().filter_map(wanted);
    let ranges = ranges.map(|blocks| Blocks { start: blocks.start, count: blocks.count }).collect();
    Changed { ranges, next: Some(page.next).filter(|next| *next < end) }
}

fn unseen(error: &volume::Error) -> Unseen {
    use volume::Error as E;
    let reason = error.to_string();
    match error {
        E::NoSnapshot(_) | E::BeyondEnd { .. } => Unseen::Absent(reason),
        E::Unrelated { .. } => Unseen::Unrelated(reason),
        E::Corrupt { .. } | E::Unreadable { .. } | E::MapLost { .. } => Unseen::Damaged(reason),
        _ => Unseen::Failed(reason),
    }
}

impl PoolStore {
    /// The snapshots that a replica has; none if it is not there.
    #[must_use]
    pub fn snapshots(pool: &Pool<Buffer>, volume: VolumeId, replica: ReplicaId) -> Vec<HeldSnapshot> {
        let data = find(pool, &names(volume, replica).0);
        data.map(|data| of(pool, data.id).into_keys().collect()).unwrap_or_default()
    }

    /// Removes a snapshot of a replica; one that is not there is left so. Only what a record that was read since it was found says to be garbage.
    ///
    /// # Errors
    /// The pool refuses.
    pub fn remove_snapshot(
        pool: &Pool<Buffer>,
        volume: VolumeId,
        replica: ReplicaId,
        held: HeldSnapshot,
    ) -> Result<(), StoreError> {
        match Self::snapshot(pool, volume, replica, held) {
            Some(id) => Ok(pool.delete(State::Snapshot(id))?),
            None => Ok(()),
        }
    }

    /// A snapshot of a replica, as the pool knows it.
    #[must_use]
    pub fn snapshot(
        pool: &Pool<Buffer>,
        volume: VolumeId,
        replica: ReplicaId,
        held: HeldSnapshot,
    ) -> Option<volume::SnapshotId> {
        let data = find(pool, &names(volume, replica).0)?;
        of(pool, data.id).get(&held).copied()
    }
}
