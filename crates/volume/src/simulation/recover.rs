//! Crashes, and what must be true after them.

use super::model::{Value, recognize};
use super::run::{CACHE, Run};
use crate::disk::Disk;
use crate::engine::{self, Admin, Answer, Extent, Io, Page, Request, World};
use crate::memory::Buffer;
use crate::offline;
use crate::units::{BLOCK, Blocks, TreeId};

impl<W: World<Tag = u64, Memory = Buffer>> Run<W> {
    /// The process ends, or the power goes: what is under way may have come to the disk or not.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.counts.crashes += 1;
        for (_, io) in std::mem::take(&mut self.ios) {
            if matches!(io, Io::Write { .. } | Io::Pages { .. } | Io::Nodes { .. }) && self.random.chance(50) {
                io.perform(&self.disk);
            }
        }
        self.asked.clear();
        let mut power_went = false;
        // It may end again while the pool is being opened, more than once; each time it is the power that goes, or the process alone: then what it has
        // written is read, and can be lost still.
        loop {
            if self.random.chance(60) {
                self.disk.crash(&mut self.random);
                power_went = true;
            } else {
                self.counts.killed += 1;
                self.disk.set_fuse(None);
            }
            if !self.random.chance(40) {
                break;
            }
            self.counts.reopened_twice += 1;
            self.disk.set_fuse(Some(self.random.below(30)));
            let _ = engine::open::<W>(&self.disk, CACHE);
        }
        if !power_went {
            // All that was answered is there, flushed or not.
            let now = self.model.tick();
            self.model.flushed(now);
        }
        self.engine = engine::open::<W>(&self.disk, CACHE).map_err(|e| format!("it does not open: {e}"))?;
        Ok(())
    }

    /// Compares all that is there with all that must be.
    pub(super) fn recover(&mut self) -> Result<(), String> {
        self.more = true;
        let checked = offline::check(&self.disk, true).map_err(|e| format!("it cannot be checked: {e}"))?;
        if let Some(problem) = checked.problems.first() {
            return Err(format!("the checker finds: {problem}; {} more", checked.problems.len() - 1));
        }
        let names: Vec<String> = self.model.volumes.keys().cloned().collect();
        for name in names {
            self.recover_volume(&name)?;
        }
        let names: Vec<String> = self.model.snapshots.keys().cloned().collect();
        for name in names {
            self.recover_snapshot(&name)?;
        }
        let expected = self.model.volumes.len() + self.model.snapshots.len();
        let found = self.engine.live_states();
        if found != expected {
            return Err(format!("there are {found} volumes and snapshots, and should be {expected}"));
        }
        Ok(())
    }

    fn recover_volume(&mut self, name: &str) -> Result<(), String> {
        let found = self.engine.find_volume(name);
        let volume = self.model.volumes.get_mut(name).unwrap();
        let Some((id, blocks)) = found else {
            let may_be_gone = volume.id.is_none() || volume.doomed;
            self.model.volumes.remove(name);
            return if may_be_gone { Ok(()) } else { Err(format!("{name} is gone")) };
        };
        volume.grow(blocks);
        if volume.blocks.len() as u64 != blocks {
            return Err(format!("{name} has {blocks} blocks instead of {}", volume.blocks.len()));
        }
        (volume.id, volume.doomed) = (Some(id.0), false);
        let bytes = self.read_all(id, blocks)?;
        let now = self.model.tick();
        let volume = self.model.volumes.get_mut(name).unwrap();
        // What was under way may have been done at any time until now.
        let under_way = volume.touched.iter_mut().zip(&volume.busy).filter(|(_, busy)| **busy);
        under_way.for_each(|(touched, _)| *touched = now);
        volume.busy.fill(false);
        for (i, (block, history)) in bytes.chunks_exact(BLOCK).zip(&mut volume.blocks).enumerate() {
            let values = history.values();
            self.counts.compared += 1;
            let value =
                recognize(block, &values).ok_or_else(|| format!("block {i} of {name} is none of {values:?}"))?;
            history.settle(value, now);
        }
        Ok(())
    }

    fn recover_snapshot(&mut self, name: &str) -> Result<(), String> {
        let snapshot = self.model.snapshots.get_mut(name).unwrap();
        let Some((id, epoch, blocks)) = self.engine.find_snapshot(name) else {
            let may_be_gone = snapshot.id.is_none() || snapshot.doomed;
            self.model.snapshots.remove(name);
            return if may_be_gone { Ok(()) } else { Err(format!("{name} is gone")) };
        };
        (snapshot.id, snapshot.epoch, snapshot.doomed) = (Some(id.0), epoch, false);
        // A volume may have grown in the same checkpoint, before it.
        snapshot.blocks.resize(usize::try_from(blocks).unwrap(), vec![0]);
        let bytes = self.read_all(id, blocks)?;
        self.snapshot_read(name, &bytes)
    }

    /// Reads with nothing else under way.
    fn read_all(&mut self, of: TreeId, blocks: u64) -> Result<Vec<u8>, String> {
        let into = Buffer::copy_of(&vec![0xEE; usize::try_from(blocks).unwrap() * BLOCK]);
        let out = self.engine.submit(Request::Read { of, start: 0, into }, u64::MAX);
        let driven = engine::drive_ios(&mut self.engine, &self.disk, out);
        match driven.answers.into_iter().next() {
            Some((_, Ok(Answer::Read(bytes)))) => Ok(bytes.to_vec()),
            other => Err(format!("{of} is not read: {other:?}")),
        }
    }

    /// What has changed must be told; what is told must have been touched.
    pub(super) fn was_compared(&mut self, of: &str, since: &str, page: &Page<Blocks>) -> Result<(), String> {
        self.counts.diffs += 1;
        let Some(volume) = self.model.volumes.get_mut(of) else { return Ok(()) };
        volume.busy.fill(false);
        let Some(snapshot) = self.model.snapshots.get(since) else { return Ok(()) };
        let next = usize::try_from(page.next).unwrap();
        let mut told = vec![false; volume.blocks.len()];
        for blocks in &page.items {
            let range = usize::try_from(blocks.start).unwrap()..usize::try_from(blocks.end()).unwrap();
            told[range].fill(true);
        }
        for (block, told) in told.into_iter().enumerate().take(next) {
            let before: Value = snapshot.blocks.get(block).map_or(0, |values| values[0]);
            let now = volume.blocks[block].last();
            if before != now && !told {
                return Err(format!("block {block} of {of} has changed since {since}, and nobody says so"));
            }
            if told && volume.touched[block] <= snapshot.asked && volume.line != since {
                return Err(format!("block {block} of {of} has not changed since {since}, and is told to have"));
            }
        }
        Ok(())
    }

    pub(super) fn extents_told(&mut self, name: &str, page: &Page<Extent>) -> Result<(), String> {
        let Some(volume) = self.model.volumes.get_mut(name) else { return Ok(()) };
        volume.busy.fill(false);
        let mut at = 0;
        for extent in &page.items {
            if extent.blocks.start != at {
                return Err(format!("the extents of {name} have a gap at {at}"));
            }
            at = extent.blocks.end();
            for block in extent.blocks.start..at {
                let value = volume.blocks[usize::try_from(block).unwrap()].last();
                if (value != 0) != extent.is_data {
                    return Err(format!("block {block} of {name}: data is {}, its value is {value}", extent.is_data));
                }
            }
        }
        if at == page.next { Ok(()) } else { Err(format!("the extents of {name} end at {at}, not {}", page.next)) }
    }

    /// Everything comes to rest, is deleted, and leaves nothing behind.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.drain()?;
        let ids: Vec<u64> = self.model.snapshots.values().filter(|s| !s.doomed).filter_map(|s| s.id).collect();
        let volumes: Vec<u64> = self.model.volumes.values().filter(|v| !v.doomed).filter_map(|v| v.id).collect();
        let all = self.random.chance(50);
        for id in ids.into_iter().chain(volumes).filter(|_| all) {
            let out = self.engine.submit(Request::Admin(Admin::Delete { of: TreeId(id) }), u64::MAX);
            engine::drive(&mut self.engine, &self.disk, out);
        }
        let out = self.engine.submit(Request::Admin(Admin::Checkpoint { clean: true }), u64::MAX);
        engine::drive(&mut self.engine, &self.disk, out);
        let checked = offline::check(&self.disk, true).map_err(|e| format!("it cannot be checked: {e}"))?;
        if let Some(problem) = checked.problems.first() {
            return Err(format!("the checker finds at the end: {problem}; {} more", checked.problems.len() - 1));
        }
        if all && checked.states > 0 {
            return Err(format!(
                "{} volumes or snapshots are left of {}",
                checked.states,
                self.disk.bytes().unwrap_or(0)
            ));
        }
        Ok(())
    }
}
