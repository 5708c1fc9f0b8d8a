//! Making replicas equal: after an unclean end (rule 5), when one comes back or is new (rule 6), and where one is damaged.
//!
//! ```text
//! lists of what may differ ──► pieces ──► lock ──► compare ─── equal ──────────────► next piece
//!                                                    │ different                ▲
//!                                                    └► read ──► write ──► compare what was written
//! ```
//! Several pieces are under way to a replica that is brought back, so that disks, network and processors do not wait for each other; where all are made
//! equal it is one, since there the source of a piece may turn out to be damaged and become a target.
//!
//! A piece is locked: no change of its blocks is under way on any replica, or begins, until it is done. So what is compared is the same on both
//! sides, and no copy can bring back what a later write has replaced.

use super::link::Purpose;
use super::{Attachment, Ending, Notice, Phase};
use crate::message::{Body, Changed, Refusal, Reply};
use crate::rules::{Rule, keeps};
use crate::units::{Blocks, Digest, Epoch, ReplicaId, Time};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often a piece is copied that does not compare equal; then it is not the copying.
const MOST_ATTEMPTS: u32 = 3;
/// Repairs that wait; more are found again by the next read or scrub.
const MOST_REPAIRS: usize = 64;

/// What a piece is copied for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// By the block that it begins with.
    Copy(u64),
    /// One at a time.
    Repair,
}

impl Slot {
    pub(super) fn is_copy(self) -> bool {
        matches!(self, Self::Copy(_))
    }
}

/// Goes through what may differ.
#[derive(Debug)]
pub(super) struct Copier {
    /// Whom it brings back; without, all in-sync replicas are made equal.
    joiner: Option<ReplicaId>,
    since: Epoch,
    /// Whose list is read, and from which block on.
    lists: VecDeque<(ReplicaId, u64)>,
    /// What is found, and not begun.
    found: VecDeque<Blocks>,
    /// Blocks of the pieces that are under way.
    begun: u64,
}

impl Copier {
    fn new(joiner: Option<ReplicaId>, since: Epoch, lists: impl IntoIterator<Item = ReplicaId>) -> Self {
        let lists = lists.into_iter().map(|id| (id, 0)).collect();
        Self { joiner, since, lists, found: VecDeque::new(), begun: 0 }
    }

    pub(super) fn left(&self) -> (usize, usize) {
        (self.lists.len(), self.found.len())
    }

    pub(super) fn target(&self) -> Option<ReplicaId> {
        self.joiner
    }

    pub(super) fn is_listing(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Blocks that are found and not done.
    pub(super) fn blocks_left(&self) -> u64 {
        self.found.iter().map(|blocks| blocks.count).sum::<u64>() + self.begun
    }

    pub(super) fn is_for_all(&self) -> bool {
        self.joiner.is_none()
    }

    pub(super) fn is_done(&self) -> bool {
        self.lists.is_empty() && self.found.is_empty() && self.begun == 0
    }
}

#[derive(Debug)]
enum Step {
    Locking,
    Comparing { asked: BTreeSet<ReplicaId>, digests: BTreeMap<ReplicaId, Option<Digest>> },
    Reading,
    Writing { missing: BTreeSet<ReplicaId> },
}

/// Blocks that are being made equal.
#[derive(Debug)]
pub(super) struct Piece {
    blocks: Blocks,
    /// Who holds what is right; the first is taken, the others if that one is damaged.
    sources: VecDeque<ReplicaId>,
    targets: BTreeSet<ReplicaId>,
    /// What the source has there. It stays so while the piece is locked.
    right: Option<Digest>,
    /// Those that differ.
    different: BTreeSet<ReplicaId>,
    step: Step,
    attempts: u32,
}

impl Attachment {
    /// Begins to make all in-sync replicas equal; what may differ was born since the record's `equal` on one of them.
    pub(super) fn equalize(&mut self) {
        self.copier = Some(Copier::new(None, self.base, self.in_sync()));
        self.pieces.clear();
    }

    /// Begins to bring a replica back: what it has itself since it was complete (rule 6), and what was born on the source from then on. Its own list comes first:
    /// later, all that is copied would be in it.
    pub(super) fn begin_copies_to(&mut self, joiner: ReplicaId, complete: Epoch) {
        // Rule 7: from the record.
        let since = if keeps(Rule::CompleteFromRecord) { complete } else { self.epoch() };
        let source = self.sources().into_iter().find(|id| *id != joiner);
        let own = Some(joiner).filter(|_| keeps(Rule::CopyOwn));
        self.copier = Some(Copier::new(Some(joiner), since, own.into_iter().chain(source)));
    }

    /// In-sync replicas that may be copied from: those that have lost nothing, if there are any (rule 5); the local one first.
    fn sources(&self) -> VecDeque<ReplicaId> {
        let all = self.in_sync();
        let is_whole = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.is_whole);
        let whole: Vec<ReplicaId> = all.iter().copied().filter(is_whole).collect();
        let fit = if whole.is_empty() || !keeps(Rule::WholeSource) { all } else { whole };
        let (local, others): (Vec<_>, Vec<_>) = fit.into_iter().partition(|id| Some(*id) == self.options.local);
        local.into_iter().chain(others).collect()
    }

    /// Whether a change of these blocks has to wait.
    pub(super) fn is_locked(&self, blocks: Blocks) -> bool {
        self.pieces.values().any(|piece| piece.blocks.overlap(blocks))
    }

    pub(super) fn want_repair(&mut self, damaged: ReplicaId, blocks: Blocks) {
        let is_known = self.repairs.contains(&(damaged, blocks));
        if !is_known && self.repairs.len() < MOST_REPAIRS {
            self.repairs.push_back((damaged, blocks));
            self.notice(Notice::Damage(damaged, blocks));
        }
    }

    /// The epoch has changed: what was asked in the old one is asked again, from the begin of the piece.
    pub(super) fn epoch_changes_copies(&mut self) {
        let begun = std::mem::take(&mut self.pieces);
        let in_sync = self.in_sync();
        if let Some(copier) = &mut self.copier {
            let copies = begun.iter().filter(|(slot, _)| slot.is_copy()).map(|(_, piece)| piece.blocks);
            copier.found = copies.chain(copier.found.drain(..)).collect();
            copier.begun = 0;
            let is_source_gone = copier.lists.iter().any(|(id, _)| copier.joiner != Some(*id) && !in_sync.contains(id));
            if copier.joiner.is_none() || is_source_gone {
                self.copier = None;
            }
        }
        self.joiner_in_new_epoch();
    }

    /// Goes on with what is being copied.
    pub(super) fn copy(&mut self, now: Time) {
        if !matches!(self.phase, Phase::Equalizing | Phase::Serving) {
            return;
        }
        self.begin_pieces();
        self.ask_for_list(now);
        self.next_repair();
        for slot in self.pieces.keys().copied().collect::<Vec<_>>() {
            let Some(piece) = self.pieces.get(&slot) else { continue };
            let blocks = piece.blocks;
            let overlaps = |other: &super::Operation| other.changes().is_some_and(|changed| changed.overlap(blocks));
            let is_busy = |other: &super::Operation| other.is_under_way() && overlaps(other);
            if matches!(piece.step, Step::Locking) && !self.operations.values().any(is_busy) {
                self.compare(slot, now);
            }
        }
    }

    fn begin_pieces(&mut self) {
        let Some(joiner) = self.copier.as_ref().map(|copier| copier.joiner) else { return };
        let at_once = if joiner.is_some() { self.limits.copies_at_once.max(1) } else { 1 };
        while let Some(copier) = &mut self.copier
            && self.pieces.keys().filter(|slot| slot.is_copy()).count() < at_once
            && let Some(blocks) = copier.found.front().copied()
            // Lists have blocks in common, and one that is being repaired may be in them.
            && !self.pieces.values().any(|other| other.blocks.overlap(blocks))
        {
            copier.found.pop_front();
            copier.begun += blocks.count;
            let sources: VecDeque<ReplicaId> = self.sources().into_iter().filter(|id| joiner != Some(*id)).collect();
            let targets = match joiner {
                Some(joiner) => BTreeSet::from([joiner]),
                None => self.in_sync().into_iter().filter(|id| Some(id) != sources.front()).collect(),
            };
            self.pieces.insert(Slot::Copy(blocks.start), piece(blocks, sources, targets));
        }
    }

    /// Asks what else there is, when all that was found is under way.
    fn ask_for_list(&mut self, now: Time) {
        let Some(copier) = self.copier.as_ref().filter(|copier| copier.found.is_empty()) else { return };
        let Some((of, from)) = copier.lists.front().copied() else { return };
        let body = Body::Changed { since: copier.since, from, most: self.limits.most_ranges };
        if !self.link(of).has(Purpose::List) {
            self.send(of, Purpose::List, body, now);
        }
    }

    fn next_repair(&mut self) {
        if self.phase != Phase::Serving || self.pieces.contains_key(&Slot::Repair) {
            return;
        }
        let Some((damaged, blocks)) = self.repairs.pop_front() else { return };
        let sources: VecDeque<ReplicaId> = self.in_sync().into_iter().filter(|id| *id != damaged).collect();
        let is_member = self.in_sync().contains(&damaged);
        let overlaps = self.pieces.values().any(|other| other.blocks.overlap(blocks));
        // What is being copied anyway is found damaged there, too.
        if is_member && !overlaps && !sources.is_empty() {
            self.pieces.insert(Slot::Repair, piece(blocks, sources, BTreeSet::from([damaged])));
        }
    }

    /// A replica has told what has changed.
    pub(super) fn listed(&mut self, of: ReplicaId, reply: Result<Reply, Refusal>, now: Time) {
        let most = self.limits.copy_blocks.max(1);
        let size = self.record().map_or(0, |record| record.blocks);
        let Some(copier) = self.copier.as_mut().filter(|copier| copier.lists.front().is_some_and(|(id, _)| *id == of))
        else {
            return;
        };
        let Ok(Reply::Changed(Changed { ranges, next })) = reply else {
            return self.copies_failed(Blocks { start: 0, count: size }, now);
        };
        for range in ranges {
            // One that is brought back may be larger already than the volume is; nobody has anything behind its end.
            let (mut start, end) = (range.start, range.end().min(size));
            while start < end {
                let count = most.min(end - start);
                copier.found.push_back(Blocks { start, count });
                start += count;
            }
        }
        copier.lists.pop_front();
        if let Some(next) = next {
            copier.lists.push_front((of, next));
        }
    }

    fn compare(&mut self, slot: Slot, now: Time) {
        let Some(piece) = self.pieces.get_mut(&slot) else { return };
        let asked: BTreeSet<ReplicaId> = match piece.right {
            Some(_) => piece.different.clone(),
            None => piece.sources.front().into_iter().chain(&piece.targets).copied().collect(),
        };
        piece.step = Step::Comparing { asked: asked.clone(), digests: BTreeMap::new() };
        let body = Body::Digest { blocks: piece.blocks };
        for id in asked {
            self.send(id, Purpose::Piece(slot), body.clone(), now);
        }
    }

    /// A replica has answered for a piece.
    pub(super) fn piece_answered(&mut self, slot: Slot, from: ReplicaId, reply: Result<Reply, Refusal>, now: Time) {
        let Some(piece) = self.pieces.get_mut(&slot) else { return };
        match (&mut piece.step, reply) {
            (Step::Comparing { asked, digests }, reply) => {
                digests.insert(from, if let Ok(Reply::Digest(digest)) = reply { Some(digest) } else { None });
                if digests.len() >= asked.len() {
                    self.compared(slot, now);
                }
            }
            (Step::Reading, Ok(Reply::Data(data))) => self.write_piece(slot, &data, now),
            (Step::Reading, _) => self.other_source(slot, now),
            (Step::Writing { missing }, Ok(_)) => {
                missing.remove(&from);
                let is_done = missing.is_empty();
                if is_done && keeps(Rule::Compare) {
                    self.compare(slot, now);
                } else if is_done {
                    self.piece_done(slot);
                }
            }
            (Step::Writing { .. }, Err(_)) => self.link(from).has_failed = true,
            (Step::Locking, _) => {}
        }
    }

    fn compared(&mut self, slot: Slot, now: Time) {
        let Some(piece) = self.pieces.get_mut(&slot) else { return };
        let (Step::Comparing { asked, digests }, Some(source)) = (&piece.step, piece.sources.front().copied()) else {
            return;
        };
        let of = |id: &ReplicaId| digests.get(id).copied().flatten();
        let Some(right) = piece.right.or(of(&source)) else { return self.other_source(slot, now) };
        piece.different = asked.iter().copied().filter(|id| *id != source && of(id) != Some(right)).collect();
        piece.right = Some(right);
        if piece.different.is_empty() {
            return self.piece_done(slot);
        }
        if piece.attempts >= MOST_ATTEMPTS {
            // It is not what was written to it: its store cannot be trusted with more.
            for id in std::mem::take(&mut piece.different) {
                self.link(id).has_failed = true;
            }
            let blocks = self.pieces.remove(&slot).map(|piece| piece.blocks);
            return if slot.is_copy() {
                self.copies_failed(blocks.unwrap_or(Blocks { start: 0, count: 0 }), now)
            };
        }
        piece.attempts += 1;
        piece.step = Step::Reading;
        let body = Body::Read { blocks: piece.blocks };
        self.send(source, Purpose::Piece(slot), body, now);
    }

    fn write_piece(&mut self, slot: Slot, data: &Bytes, now: Time) {
        let Some(piece) = self.pieces.get_mut(&slot) else { return };
        piece.step = Step::Writing { missing: piece.different.clone() };
        let body = Body::Write { blocks: piece.blocks, data: data.clone() };
        for id in piece.different.clone() {
            self.send(id, Purpose::Piece(slot), body.clone(), now);
        }
    }

    /// The source is damaged there: another one is taken, and where all are made equal the damaged one becomes a target.
    fn other_source(&mut self, slot: Slot, now: Time) {
        let is_mutual = slot.is_copy() && self.copier.as_ref().is_some_and(|copier| copier.joiner.is_none());
        let Some(piece) = self.pieces.get_mut(&slot) else { return };
        let damaged = piece.sources.pop_front();
        let Some(next) = piece.sources.front().copied() else {
            let blocks = piece.blocks;
            self.pieces.remove(&slot);
            return if slot.is_copy() {
                self.copies_failed(blocks, now)
            };
        };
        piece.right = None;
        if is_mutual {
            piece.targets.extend(damaged);
            piece.targets.remove(&next);
        }
        piece.step = Step::Locking;
    }

    fn piece_done(&mut self, slot: Slot) {
        let Some(piece) = self.pieces.remove(&slot) else { return };
        match (slot, &mut self.copier) {
            (Slot::Copy(_), Some(copier)) => copier.begun -= piece.blocks.count,
            (Slot::Copy(_), None) => {}
            (Slot::Repair, _) => {
                for id in piece.targets {
                    self.notice(Notice::Repaired(id, piece.blocks));
                }
            }
        }
    }

    /// What is being copied cannot be. A returning replica stays stale; replicas that may differ cannot be served.
    fn copies_failed(&mut self, blocks: Blocks, now: Time) {
        let joiner = self.copier.take().and_then(|copier| copier.joiner);
        self.pieces.retain(|slot, _| !slot.is_copy());
        let has_failed = self.in_sync().iter().any(|id| self.links.get(id).is_some_and(|link| link.has_failed));
        match joiner {
            Some(_) => self.give_up_joiner(now),
            // One whose store fails leaves, or is waited for; then it begins again.
            None if has_failed => self.phase = Phase::Sealing,
            None => self.end(Ending::Damaged { blocks }),
        }
    }

    /// Whether a returning replica has all that was to be copied to it.
    pub(super) fn are_copies_done(&self) -> bool {
        self.copier.as_ref().is_some_and(Copier::is_done)
    }
}

fn piece(blocks: Blocks, sources: VecDeque<ReplicaId>, targets: BTreeSet<ReplicaId>) -> Piece {
    Piece { blocks, sources, targets, right: None, different: BTreeSet::new(), step: Step::Locking, attempts: 0 }
}
