//! Those who want snapshots and larger volumes, those who remove what replicas have and the record does not name, and what must be true of both.

use super::world::{Happening, MILLI, World};
use crate::record::snapshots::Taken;
use crate::testing::history::{Step, instant};
use crate::units::{Epoch, ReplicaId, SnapshotId};

/// A snapshot that was wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) asked: Step,
    /// What it has, since it is in the record.
    content: Option<Vec<u64>>,
}

impl World {
    /// Somebody wants something of a volume.
    pub(super) fn wish(&mut self, volume: usize) {
        if self.is_calm {
            return;
        }
        let next = (100 + self.random.below(900)) * MILLI;
        self.later(next, Happening::Wish { volume });
        let Some(found) = self.records.kept.look(self.volumes[volume].id) else { return };
        let record = found.record;
        let there: Vec<SnapshotId> = record.snapshots.keys().copied().collect();
        let next = match self.random.below(10) {
            0 | 1 if record.wanted_blocks < 14 => record.with_wanted_blocks(record.wanted_blocks + 1),
            0..=6 if there.len() < 5 => {
                self.next_id += 1;
                let id = SnapshotId(u128::from(self.next_id));
                let asked = self.moment();
                self.volumes[volume].wanted.insert(id, Wanted { asked, content: None });
                record.with_snapshot(id)
            }
            _ => match self.random.pick(&there) {
                Some(id) => record.without_snapshot(id),
                None => return,
            },
        };
        if let Ok(next) = next
            && self.records.kept.put(self.volumes[volume].id, Some(&found.version), next).is_ok()
        {
            self.record_changed(volume);
        }
    }

    /// Whoever removes garbage looks what a replica has.
    pub(super) fn look_for_garbage(&mut self, volume: usize) {
        let next = (50 + self.random.below(500)) * MILLI;
        self.later(next, Happening::LookForGarbage { volume });
        let all: Vec<ReplicaId> = self.volumes[volume].copies.keys().copied().collect();
        let Some(of) = self.random.pick(&all) else { return };
        let held: Vec<(SnapshotId, Epoch)> = self.volumes[volume].copies[&of].disk.snapshots.keys().copied().collect();
        let later = self.random.below(300) * MILLI;
        self.later(later, Happening::JudgeGarbage { volume, of, held });
    }

    /// Then he reads the record, and some time later removes what it does not need.
    pub(super) fn judge_garbage(&mut self, volume: usize, of: ReplicaId, mut held: Vec<(SnapshotId, Epoch)>) {
        let record = self.record(volume);
        held.retain(|(id, epoch)| record.is_garbage(of, *id, *epoch));
        let later = self.random.below(300) * MILLI;
        self.later(later, Happening::RemoveGarbage { volume, of, held });
    }

    pub(super) fn remove_garbage(&mut self, volume: usize, of: ReplicaId, held: &[(SnapshotId, Epoch)]) {
        let Some(copy) = self.volumes[volume].copies.get_mut(&of) else { return };
        if self.nodes[copy.node].runs {
            for snapshot in held {
                self.counts.removed += u64::from(copy.disk.snapshots.remove(snapshot).is_some());
            }
        }
    }

    /// Rule 11, and what can be asked of the volume from now on.
    pub(super) fn check_sizes(&mut self, volume: usize) -> Result<(), String> {
        let record = self.record(volume);
        let state = &mut self.volumes[volume];
        for id in record.in_sync() {
            let has = state.copies[&id].disk.size();
            if has < record.blocks {
                return Err(format!("{id} is in sync, and has {has} blocks of {}", record.blocks));
            }
        }
        if record.blocks > state.blocks {
            self.counts.grown += 1;
            state.blocks = record.blocks;
            state.histories.resize_with(usize::try_from(record.blocks).unwrap(), Default::default);
        }
        Ok(())
    }

    /// Rule 10: every snapshot in the record is on all of its holders, with what the volume had at one instant.
    pub(super) fn check_snapshots(&mut self, volume: usize) -> Result<(), String> {
        let record = self.record(volume);
        for id in record.snapshots.keys() {
            let Some(taken) = record.taken(*id) else { continue };
            for holder in &taken.holders {
                self.check_snapshot(volume, *id, taken, *holder).map_err(|what| format!("{id}: {what}"))?;
            }
        }
        Ok(())
    }

    fn check_snapshot(
        &mut self,
        volume: usize,
        id: SnapshotId,
        taken: &Taken,
        holder: ReplicaId,
    ) -> Result<(), String> {
        let state = &self.volumes[volume];
        let found = state.copies[&holder].disk.snapshots.get(&(id, taken.epoch));
        let found = found.ok_or_else(|| format!("it is in the record, and {holder} does not have it"))?;
        let size = usize::try_from(taken.blocks).unwrap();
        let split = found.split_at_checked(size);
        let (values, beyond) = split.ok_or_else(|| format!("on {holder} it has {} blocks of {size}", found.len()))?;
        if beyond.iter().any(|value| *value != 0) {
            return Err(format!("on {holder} it has {beyond:?} behind the end of the volume"));
        }
        let values = values.to_vec();
        match &state.wanted[&id].content {
            Some(known) if *known == values => return Ok(()),
            Some(known) => return Err(format!("it is {known:?}, and {values:?} on {holder}")),
            None => {}
        }
        self.is_of_an_instant(volume, id, &values)?;
        self.counts.snapshots += 1;
        if let Some(wanted) = self.volumes[volume].wanted.get_mut(&id) {
            wanted.content = Some(values);
        }
        Ok(())
    }

    /// Whether there is an instant since it was asked for at which all blocks may have been what they are in it.
    fn is_of_an_instant(&mut self, volume: usize, id: SnapshotId, values: &[u64]) -> Result<(), String> {
        let now = self.moment();
        let state = &self.volumes[volume];
        let asked = state.wanted[&id].asked;
        if state.cut_at >= asked {
            // What was not flushed may be lost, and is in it all the same, or is not.
            return Ok(());
        }
        instant(&state.histories, values, asked, now)
    }
}
