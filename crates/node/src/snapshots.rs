//! Snapshots, and what has changed between them.

use crate::error::{Error, Kind, Result, stored};
use crate::node::{Node, check_name, now, split};
use crate::proto;
use crate::records::Record;
use crate::store::Store;
use crate::volumes::{encryption, labels, told_place};
use std::sync::{Arc, mpsc};
use std::time::Instant;
use volume::{BLOCK, Blocks, Page, Since, SnapshotInfo, State, VolumeId};

/// Stretches that are told of in one answer.
const PAGE: usize = 4096;

/// Volumes of one pool, of which snapshots are to be taken: their ids and names, and the names of the snapshots.
struct Part<'s, 'a> {
    store: &'s Arc<Store>,
    volumes: Vec<(VolumeId, &'a str, &'a str)>,
}

impl Node {
    /// Takes snapshots of volumes at one instant. Asked again, those that are all there are a success.
    pub(crate) fn create_snapshots(&self, request: &proto::CreateSnapshotsRequest) -> Result<Vec<proto::Snapshot>> {
        let names = &request.names;
        let labels = labels(&request.labels)?;
        if names.is_empty() {
            return Err(Error::new(
                Kind::Invalid,
                "say of which volumes snapshots are to be taken, as VOLUME@SNAPSHOT",
            ));
        }
        let _changing = self.change();
        let there: Vec<_> = names.iter().filter(|name| self.snapshot(name).is_ok()).collect();
        if there.len() == names.len() {
            return self.tell(names);
        }
        if let Some(name) = there.first() {
            let what = format!("take the snapshot {name}: there is one of this name, and not of the others");
            return Err(Error::new(Kind::Exists, what));
        }
        let wanted = self.by_pool(names)?;
        let record = Record { labels, ..Record::default() };
        for part in wanted.iter().filter(|_| !record.labels.is_empty()) {
            let names = part.volumes.iter().map(|(_, of, snapshot)| format!("{of}@{snapshot}"));
            part.store.note(|records| names.for_each(|name| records.intend(&name, record.clone(), None)))?;
        }
        let taken = self.take(&wanted, names);
        for part in &wanted {
            part.store.follow(now())?;
        }
        taken?;
        self.tell(names)
    }

    /// What is to be taken, for each pool.
    fn by_pool<'a>(&self, names: &'a [String]) -> Result<Vec<Part<'_, 'a>>> {
        let mut parts: Vec<Part<'_, 'a>> = Vec::new();
        for name in names {
            let (of, snapshot) = split(name)?;
            check_name(snapshot)?;
            let (store, volume) = self.volume(of)?;
            let at = parts.iter().position(|part| part.store.name == store.name).unwrap_or_else(|| {
                parts.push(Part { store, volumes: Vec::new() });
                parts.len() - 1
            });
            if parts[at].volumes.iter().any(|(id, _, _)| *id == volume.id) {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("take two snapshots of {of} at one instant: they would be the same"),
                ));
            }
            parts[at].volumes.push((volume.id, of, snapshot));
        }
        Ok(parts)
    }

    /// Takes all of them or none. A pool has one instant for its own; where there are several, changes are held back from before the first to after the last.
    fn take(&self, parts: &[Part<'_, '_>], names: &[String]) -> Result<()> {
        let what = || format!("take the snapshot {}", names.join(" and "));
        let volumes = parts.iter().flat_map(|part| part.volumes.iter().map(|(_, of, _)| *of));
        let several = self.attachments.as_ref().filter(|_| parts.len() > 1);
        let held = several.map(|attachments| attachments.hold(volumes));
        let begun = Instant::now();
        let mut taken = Vec::new();
        for part in parts {
            let wanted: Vec<_> = part.volumes.iter().map(|(id, _, snapshot)| (*id, *snapshot)).collect();
            match part.store.pool.snapshot(&wanted) {
                Ok(ids) => taken.push((part.store, ids)),
                Err(error) => {
                    drop(held);
                    for (store, ids) in taken {
                        for id in ids {
                            store.pool.delete(State::Snapshot(id)).map_err(stored(what()))?;
                        }
                    }
                    return Err(stored(what())(error));
                }
            }
        }
        drop(held);
        if parts.len() > 1 {
            tracing::info!(pools = parts.len(), held = ?begun.elapsed(), "snapshots were taken while changes were held back");
        }
        Ok(())
    }

    fn tell(&self, names: &[String]) -> Result<Vec<proto::Snapshot>> {
        let tell = |name: &String| {
            let (store, snapshot) = self.snapshot(name)?;
            Ok(self.describe_snapshot(store, split(name)?.0, &snapshot))
        };
        names.iter().map(tell).collect()
    }

    /// All snapshots, or those of one volume.
    pub(crate) fn list_snapshots(&self, volume: &str) -> Result<Vec<proto::Snapshot>> {
        let of = |store: &Arc<Store>| -> Vec<_> {
            let snapshots = store.snapshots().into_iter().filter(|(of, _)| volume.is_empty() || of == volume);
            snapshots.map(|(of, snapshot)| self.describe_snapshot(store, &of, &snapshot)).collect()
        };
        let snapshots: Vec<_> = self.stores.iter().flat_map(of).collect();
        if snapshots.is_empty() && !volume.is_empty() {
            self.volume(volume)?;
        }
        Ok(snapshots)
    }

    fn describe_snapshot(&self, store: &Arc<Store>, of: &str, snapshot: &SnapshotInfo) -> proto::Snapshot {
        let record = store.record(snapshot.id.0);
        let name = format!("{of}@{}", snapshot.name);
        proto::Snapshot {
            pool: store.name.clone(),
            bytes: snapshot.blocks * BLOCK as u64,
            created: record.created.unwrap_or(0),
            encryption: encryption(store, &record).into(),
            attachment: self.place(&name).map(told_place),
            labels: record.labels.into_iter().collect(),
            name,
        }
    }

    /// Deletes a snapshot; one that is not there is a success.
    pub(crate) fn delete_snapshot(&self, name: &str) -> Result<()> {
        split(name)?;
        let _changing = self.change();
        let Ok((store, snapshot)) = self.snapshot(name) else { return Ok(()) };
        self.refuse_attached(name, "delete")?;
        store.pool.delete(State::Snapshot(snapshot.id)).map_err(stored(format!("delete the snapshot {name}")))?;
        store.follow(now())
    }

    /// Tells what has changed since a snapshot, or without one what is data, from the block with a byte on, in pages.
    ///
    /// # Errors
    ///
    /// If there is nothing to compare, or who is told wants no more.
    pub(crate) fn diff(
        &self,
        name: &str,
        since: &str,
        start: u64,
        mut tell: impl FnMut(Vec<proto::Range>) -> Result<()>,
    ) -> Result<()> {
        let target = self.target(name)?;
        let blocks = match target.state {
            State::Volume(_) => self.volume(name)?.1.blocks,
            State::Snapshot(_) => self.snapshot(name)?.1.blocks,
        };
        let base = match since {
            "" => None,
            since => Some(target.store.line(target.state).into_iter().find(|(other, _)| other == since).ok_or_else(
                || {
                    let what = format!(
                        "tell what has changed in {name} since {since}: it does not come from a snapshot of this name"
                    );
                    Error::new(Kind::NotFound, what)
                },
            )?),
        };
        let mut at = start / BLOCK as u64;
        while at < blocks {
            let rest = Blocks { start: at, count: blocks - at };
            let (sender, receiver) = mpsc::channel();
            match &base {
                None => {
                    target.store.pool.extents(target.state, rest, PAGE, move |page| drop(sender.send(page.map(data))))
                }
                Some((_, id)) => {
                    let since = Since::Snapshot(*id);
                    target.store.pool.changed(target.state, since, rest, PAGE, move |page| drop(sender.send(page)));
                }
            }
            let page = receiver.recv().unwrap_or(Err(volume::Error::Closed));
            let page = page.map_err(stored(format!("tell what has changed in {name}")))?;
            at = page.next;
            if !page.items.is_empty() {
                tell(page.items.into_iter().map(range).collect())?;
            }
        }
        Ok(())
    }
}

fn data(page: Page<volume::Extent>) -> Page<Blocks> {
    let items = page.items.into_iter().filter(|extent| extent.is_data).map(|extent| extent.blocks).collect();
    Page { items, next: page.next }
}

fn range(blocks: Blocks) -> proto::Range {
    proto::Range { offset: blocks.start * BLOCK as u64, length: blocks.count * BLOCK as u64 }
}
