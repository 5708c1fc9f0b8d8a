//! The log: a ring of records, written in groups.
//!
//! A change of a map is *applied* (it is in memory, and pending here), then *written*, then *durable*. Each has a count of changes, so that
//! whoever wants a flush waits until `durable` has reached what was `applied` when it asked; one write and one flush serve all who wait.

use crate::format::record::{Body, Change, Header, MOST_RECORD};
use crate::memory::Buffer;
use std::collections::VecDeque;

/// A record that has its place in the ring and is not written yet.
#[derive(Debug)]
struct Sealed {
    /// Bytes from the begin of the log.
    offset: u64,
    bytes: Vec<u8>,
}

/// What the log is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Idle,
    /// Records up to this count of changes, and before this sequence, are being written.
    Writing(u64, u64),
    /// They are being flushed.
    Flushing(u64, u64),
}

/// The log of an open pool.
#[derive(Debug)]
pub(crate) struct Log {
    /// Bytes of the ring.
    len: u64,
    unit: usize,
    /// Positions count on and on; the offset is what is left of them in the ring. From here on a replay would read.
    tail: u64,
    /// Here the next record goes.
    head: u64,
    pub(crate) sequence: u64,
    durable_sequence: u64,
    pub(crate) generation: u64,
    pool: u64,
    pending: VecDeque<Body>,
    pending_bytes: u64,
    /// Blocks of data that they tell of.
    pending_blocks: u64,
    sealed: VecDeque<Sealed>,
    pub(crate) applied: u64,
    sealed_count: u64,
    /// Changes that were taken to be written.
    taken: u64,
    written: u64,
    written_sequence: u64,
    pub(crate) durable: u64,
    pub(crate) stage: Stage,
}

impl Log {
    pub(crate) fn new(len: u64, unit: u32, pool: &[u8; 16]) -> Self {
        Self {
            len,
            unit: unit as usize,
            tail: 0,
            head: 0,
            sequence: 1,
            durable_sequence: 1,
            generation: 0,
            pool: u64::from_le_bytes(std::array::from_fn(|i| pool[i])),
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_blocks: 0,
            sealed: VecDeque::new(),
            applied: 0,
            sealed_count: 0,
            taken: 0,
            written: 0,
            written_sequence: 1,
            durable: 0,
            stage: Stage::Idle,
        }
    }

    /// Begins after the last record that was found.
    pub(crate) fn start(&mut self, offset: u64, sequence: u64, generation: u64) {
        (self.tail, self.head) = (offset, offset);
        (self.sequence, self.durable_sequence, self.written_sequence) = (sequence, sequence, sequence);
        self.generation = generation;
    }

    /// The longest record here: short enough that a few fit into what is kept for a checkpoint.
    fn most_record(&self) -> usize {
        usize::try_from(self.len / 16).unwrap_or(MOST_RECORD).min(MOST_RECORD)
    }

    /// Changes of one leaf, which go into one record: a replay finds all of them or none.
    pub(crate) fn push(&mut self, changes: &[Change]) {
        let most = self.most_record();
        let len = changes.iter().map(Change::len).sum();
        let fits = |body: &&mut Body| body.len(1) + len <= most && body.has_room(len);
        let body = match self.pending.back_mut().filter(fits) {
            Some(body) => body,
            None => {
                self.pending.push_back(Body::default());
                self.pending_bytes += self.unit as u64;
                self.pending.back_mut().expect("it was pushed")
            }
        };
        changes.iter().for_each(|change| body.push(change));
        self.pending_blocks += changes.iter().map(Change::blocks).sum::<u64>();
        self.pending_bytes += len as u64;
        self.applied += 1;
    }

    /// Whether more must not be applied before something is written.
    pub(crate) fn is_crowded(&self) -> bool {
        self.pending_bytes > self.len / 8
    }

    /// Whether records should be written although nobody waits for them.
    pub(crate) fn is_filling(&self) -> bool {
        self.pending_bytes > self.len / 32
    }

    fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Whether a checkpoint should be made, so that the ring does not fill up.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.used() > self.len / 2
    }

    /// Where the next record begins, as an offset.
    pub(crate) fn offset(&self) -> u64 {
        self.head % self.len
    }

    pub(crate) fn position(&self) -> u64 {
        self.head
    }

    /// A replay would begin here: what is before may be overwritten.
    pub(crate) fn trim(&mut self, position: u64) {
        self.tail = position;
    }

    /// Gives all pending changes their places, which leaves a quarter of the ring to a checkpoint unless it is one that asks.
    pub(crate) fn seal(&mut self, checkpoint: u64, for_checkpoint: bool) -> bool {
        let spare = if for_checkpoint { 0 } else { self.len / 4 };
        let need = self.pending_len();
        // At the end of the ring a record that does not fit goes to its begin.
        if self.used() + need + 2 * self.most_record() as u64 + spare > self.len {
            return for_checkpoint && self.pending.is_empty();
        }
        while let Some(body) = self.pending.pop_front() {
            let len = body.len(self.unit) as u64;
            if self.offset() + len > self.len {
                self.head += self.len - self.offset();
            }
            let header = Header {
                pool: self.pool,
                generation: self.generation,
                sequence: self.sequence,
                durable: self.durable_sequence,
                checkpoint,
            };
            let mut bytes = Vec::new();
            body.close(header, self.unit, &mut bytes);
            self.sealed.push_back(Sealed { offset: self.offset(), bytes });
            self.head += len;
            self.sequence += 1;
        }
        (self.pending_bytes, self.pending_blocks) = (0, 0);
        self.sealed_count = self.applied;
        true
    }

    /// What no two records share.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    /// How long the records are that have no place yet.
    pub(crate) fn pending_len(&self) -> u64 {
        self.pending.iter().map(|body| body.len(self.unit) as u64).sum()
    }

    /// Of how many blocks of data they tell.
    pub(crate) fn pending_blocks(&self) -> u64 {
        self.pending_blocks
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// All sealed records as bytes at offsets from the begin of the log, those that follow each other in one; and how many changes they are.
    pub(crate) fn take_sealed(&mut self) -> (Vec<(u64, Buffer)>, u64) {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for sealed in self.sealed.drain(..) {
            match pieces.last_mut() {
                Some((offset, bytes)) if *offset + bytes.len() as u64 == sealed.offset => bytes.extend(sealed.bytes),
                _ => pieces.push((sealed.offset, sealed.bytes)),
            }
        }
        self.stage = Stage::Writing(self.sealed_count, self.sequence);
        let changes = self.sealed_count - std::mem::replace(&mut self.taken, self.sealed_count);
        (pieces.into_iter().map(|(offset, bytes)| (offset, Buffer::copy_of(&bytes))).collect(), changes)
    }

    /// What was taken is written.
    pub(crate) fn set_written(&mut self) {
        if let Stage::Writing(count, sequence) = self.stage {
            (self.written, self.written_sequence) = (count, sequence);
        }
        self.stage = Stage::Idle;
    }

    /// Whether the log has so many changes, or a durable checkpoint does: a process that opens the pool next finds them.
    pub(crate) fn has(&self, count: u64) -> bool {
        self.written.max(self.durable) >= count
    }

    /// Whether a flush of the device would make something durable.
    pub(crate) fn begin_flush(&mut self) -> bool {
        let useful = self.written > self.durable;
        if useful {
            self.stage = Stage::Flushing(self.written, self.written_sequence);
        }
        useful
    }

    pub(crate) fn set_flushed(&mut self) {
        if let Stage::Flushing(count, sequence) = self.stage {
            self.durable = self.durable.max(count);
            self.durable_sequence = sequence;
        }
        self.stage = Stage::Idle;
    }

    /// A checkpoint that has all changes up to this count is durable.
    pub(crate) fn set_in_checkpoint(&mut self, count: u64) {
        self.durable = self.durable.max(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::find;
    use crate::units::VolumeId;

    #[test]
    fn records_follow_each_other_around_the_ring() {
        let mut log = Log::new(64 << 10, 512, b"sixteen bytes of");
        log.start(60 << 10, 8, 3);
        let mut ring = vec![0; 64 << 10];
        for round in 0..200 {
            let change = Change::Discard { volume: VolumeId(1), start: round, count: 1 };
            (0..1 + round % 40).for_each(|_| log.push(std::slice::from_ref(&change)));
            let (mut at, mut sequence) = (log.offset(), log.sequence);
            assert!(log.seal(0, false));
            let (pieces, changes) = log.take_sealed();
            assert_eq!(changes, 1 + round % 40);
            for (offset, bytes) in pieces {
                ring[usize::try_from(offset).unwrap()..][..bytes.len()].copy_from_slice(&bytes);
            }
            log.set_written();
            assert!(log.begin_flush());
            log.set_flushed();
            while sequence < log.sequence {
                let found = find(&ring[usize::try_from(at).unwrap()..], 512);
                let found = found.filter(|found| found.header.sequence == sequence).unwrap_or_else(|| {
                    at = 0;
                    find(&ring, 512).unwrap()
                });
                assert_eq!((found.header.sequence, found.header.generation), (sequence, 3));
                at += found.len as u64;
                sequence += 1;
            }
            log.trim(log.position());
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_but_what_a_checkpoint_needs() {
        let mut log = Log::new(256 << 10, 4096, b"sixteen bytes of");
        let change = Change::Discard { volume: VolumeId(1), start: 0, count: 1 };
        let mut records = 0;
        loop {
            log.push(std::slice::from_ref(&change));
            if !log.seal(0, false) {
                break;
            }
            log.take_sealed();
            log.set_written();
            records += 1;
        }
        assert!(records > 30 && log.wants_checkpoint(), "{records}");
        while !log.is_crowded() {
            log.push(std::slice::from_ref(&change));
        }
        assert!(log.seal(0, true));
        log.trim(log.position());
        log.push(std::slice::from_ref(&change));
        assert!(log.seal(0, false));
    }
}
