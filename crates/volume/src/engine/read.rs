//! Reading, and what begins with a request.

use super::io::{Fault, Io, Part};
use super::query::List;
use super::request::{Answer, Request, Scrubbed};
use super::task::{Flow, Task, whole_blocks};
use super::{Engine, Notice, Purpose, Rule, World};
use crate::error::Error;
use crate::format::node::LEAF_ENTRIES;
use crate::map::{Missing, Tree};
use crate::units::{BLOCK, Blocks, Run, TreeId};

impl<W: World> Engine<W> {
    /// Checks a request and makes a task of it, or answers it at once.
    pub(super) fn begin(&mut self, request: Request<W::Memory>, tag: W::Tag) {
        let checked = match &request {
            Request::Read { of, start, into } => {
                let count = whole_blocks(into.as_ref().len());
                count.and_then(|count| self.check_range(*of, Blocks { start: *start, count }))
            }
            Request::Discard { volume, blocks, .. } => self.check_change(*volume, *blocks),
            Request::Extents { of, blocks, .. } | Request::Changed { of, blocks, .. } => self.check_range(*of, *blocks),
            Request::Scrub { of, .. } => self.catalog.live(*of).map(|_| ()).ok_or_else(|| self.absent(*of)),
            _ => Ok(()),
        };
        if let Err(error) = checked {
            return self.answer(tag, Err(error));
        }
        self.start(match request {
            Request::Read { of, start, into } => Task::Read { tag, of, start, next: start, into },
            Request::Write { volume, start, from, sums, durable } => {
                return self.begin_write(tag, volume, start, from, sums, durable);
            }
            Request::Flush => return self.begin_flush(tag),
            Request::Discard { volume, blocks, durable } => {
                Task::Discard { tag, volume, at: blocks.start, end: blocks.end(), durable }
            }
            Request::Extents { of, blocks, most } => {
                let (at, end, most) = (blocks.start, blocks.end(), most.max(1));
                Task::List { tag, of, at, end, most, missed: 0, found: List::Extents(Vec::new()) }
            }
            Request::Changed { of, blocks, since, most } => {
                let (at, end, most) = (blocks.start, blocks.end(), most.max(1));
                Task::List { tag, of, at, end, most, missed: 0, found: List::Changed(since, Vec::new()) }
            }
            Request::Scrub { of, start, most } => {
                let scrubbed = Scrubbed { faults: Vec::new(), read: 0, next: start };
                Task::Scrub { tag, of, left: most.max(1), scrubbed }
            }
            Request::ScrubCatalog => {
                let scrubbed = Scrubbed { faults: Vec::new(), read: 0, next: 0 };
                Task::Scrub { tag, of: TreeId::CATALOG, left: usize::MAX, scrubbed }
            }
            Request::ScrubFixed { start, most } => Task::ScrubFixed { tag, start, most: most.max(1) },
            Request::Admin(admin) => return self.begin_admin(admin, tag),
        });
    }

    /// Looks up where the blocks lie, and has them read: of as many leaves at once as have their nodes in memory, so that a read gets on
    /// however few nodes are kept.
    pub(super) fn read(
        &mut self,
        id: usize,
        tag: W::Tag,
        of: TreeId,
        (start, mut next): (u64, u64),
        mut into: W::Memory,
    ) -> Flow<W> {
        let Some(tree) = self.catalog.live(of) else {
            self.answer(tag, Err(self.absent(of)));
            return Flow::Done;
        };
        let (mut parts, mut sums) = (Vec::new(), Vec::new());
        let looked_up = look_up(tree, &mut self.nodes, (start, &mut next), into.as_mut(), &mut parts, &mut sums);
        match looked_up {
            Err(missing) if parts.is_empty() => {
                return Flow::Wait(Task::Read { tag, of, start, next, into }, missing);
            }
            Err(missing) => self.fetch(missing),
            Ok(()) if parts.is_empty() => {
                self.answer(tag, Ok(Answer::Read(into)));
                return Flow::Done;
            }
            Ok(()) => {}
        }
        let age = self.enter();
        let io = Io::Read { parts: parts.clone(), sums, into, check: W::keeps(Rule::CheckSums) };
        self.ask(Purpose::Read(id, age), io);
        Flow::Keep(Task::Reading { tag, of, start, next, parts })
    }

    pub(super) fn read_done(&mut self, id: usize, into: W::Memory, fault: Option<(u64, Fault)>) {
        let Some(task) = self.tasks.take(id) else { return };
        match task {
            Task::Reading { tag, of, start, next, parts } => {
                let count = (into.as_ref().len() / BLOCK) as u64;
                if fault.is_none() && next < start + count {
                    self.tasks.put_back(id, Task::Read { tag, of, start, next, into });
                    return self.step(id);
                }
                self.tasks.let_go(id);
                let result = match fault {
                    None => Ok(Answer::Read(into)),
                    Some((place, fault)) => {
                        let block = start + block_at(&parts, place);
                        let error = self.fault(of, block, place, fault);
                        self.out.notices.push(Notice::Damage(error.clone()));
                        Err(error)
                    }
                };
                self.answer(tag, result);
            }
            other => self.tasks.put_back(id, other),
        }
    }

    pub(super) fn fault(&self, of: TreeId, block: u64, place: u64, fault: Fault) -> Error {
        let of = self.describe(of);
        match fault {
            Fault::Sum => Error::Corrupt { of, block, place },
            Fault::Disk(reason) => Error::Unreadable { of, block, place, reason },
        }
    }
}

/// Which block of a request lies at a place.
fn block_at(parts: &[Part], place: u64) -> u64 {
    let part = parts.iter().find(|part| (part.run.start.0..part.run.end()).contains(&place));
    part.map_or(0, |part| (part.at / BLOCK) as u64 + place - part.run.start.0)
}

/// Where the blocks from `next` on lie, and how far that is known; what is in holes is filled with zeros.
fn look_up(
    tree: &Tree,
    nodes: &mut crate::map::Nodes,
    (start, next): (u64, &mut u64),
    into: &mut [u8],
    parts: &mut Vec<Part>,
    sums: &mut Vec<u32>,
) -> Result<(), Missing> {
    let end = start + (into.len() / BLOCK) as u64;
    while *next < end {
        let leaf = tree.leaf(nodes, *next)?;
        let last = end.min((*next / LEAF_ENTRIES as u64 + 1) * LEAF_ENTRIES as u64);
        for block in *next..last {
            let at = usize::try_from(block - start).unwrap_or(0) * BLOCK;
            let entry = leaf.entry(block);
            if !entry.place.is_somewhere() {
                into[at..at + BLOCK].fill(0);
                continue;
            }
            sums.push(entry.sum);
            match parts.last_mut() {
                Some(part) if part.run.end() == entry.place.0 && part.at + part.run.count as usize * BLOCK == at => {
                    part.run.count += 1;
                }
                _ => parts.push(Part { at, run: Run::one(entry.place) }),
            }
        }
        *next = last;
    }
    Ok(())
}
