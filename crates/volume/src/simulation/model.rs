//! What a pool must hold, kept the slow and obvious way.
//!
//! Each block of each volume has a list of values: the ones that it may have if the power goes now. The last one is what it has otherwise. A
//! flush that is answered cuts off what came before the last value that was answered when it was asked. Requests under way never touch the
//! same block, so the order of values is that in which they were asked.

use crate::units::{BLOCK, Epoch};
use std::collections::BTreeMap;

/// What a block holds: the number of a write, or 0 for zeros.
pub(super) type Value = u64;

/// A value that a block got at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Got {
    pub(super) value: Value,
    /// When it was answered.
    pub(super) answered: Option<u64>,
}

/// A block.
#[derive(Debug, Clone)]
pub(super) struct History(pub(super) Vec<Got>);

impl History {
    fn sure(value: Value) -> Self {
        Self(vec![Got { value, answered: Some(0) }])
    }

    /// The index of the last value that was answered by some time.
    fn answered_by(&self, time: u64) -> usize {
        self.0.iter().rposition(|got| got.answered.is_some_and(|answered| answered <= time)).unwrap_or(0)
    }

    pub(super) fn cut_before(&mut self, time: u64) {
        let first = self.answered_by(time);
        self.0.drain(..first);
    }

    /// What a state may have that was taken after this time.
    pub(super) fn since(&self, time: u64) -> Vec<Value> {
        self.0[self.answered_by(time)..].iter().map(|got| got.value).collect()
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.0.iter().map(|got| got.value).collect()
    }

    pub(super) fn last(&self) -> Value {
        self.0.last().map_or(0, |got| got.value)
    }

    pub(super) fn settle(&mut self, value: Value, time: u64) {
        *self = Self(vec![Got { value, answered: Some(time) }]);
    }
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) id: Option<u64>,
    pub(super) blocks: Vec<History>,
    /// Blocks that a request is under way for.
    pub(super) busy: Vec<bool>,
    /// When each block was last written or discarded.
    pub(super) touched: Vec<u64>,
    /// It was asked to be deleted.
    pub(super) doomed: bool,
    pub(super) line: String,
}

impl Volume {
    pub(super) fn new(blocks: u64) -> Self {
        let count = usize::try_from(blocks).unwrap();
        Self {
            id: None,
            blocks: vec![History::sure(0); count],
            busy: vec![false; count],
            touched: vec![0; count],
            doomed: false,
            line: String::new(),
        }
    }

    pub(super) fn grow(&mut self, blocks: u64) {
        let count = usize::try_from(blocks).unwrap().max(self.blocks.len());
        self.blocks.resize(count, History::sure(0));
        self.busy.resize(count, false);
        self.touched.resize(count, 0);
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.busy.iter().any(|busy| *busy)
    }
}

/// A snapshot.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) id: Option<u64>,
    pub(super) epoch: Epoch,
    /// Each block's possible values; one each as soon as it was read.
    pub(super) blocks: Vec<Vec<Value>>,
    pub(super) volume: String,
    /// When it was asked for.
    pub(super) asked: u64,
    pub(super) doomed: bool,
    pub(super) is_read: bool,
}

/// A pool, by the names of what is in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    /// Counts what happens.
    pub(super) time: u64,
    pub(super) next: u64,
}

impl Model {
    pub(super) fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    pub(super) fn name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}-{}", self.next)
    }

    /// A flush that was asked for at this time is answered.
    pub(super) fn flushed(&mut self, asked: u64) {
        let blocks = self.volumes.values_mut().flat_map(|volume| &mut volume.blocks);
        blocks.for_each(|history| history.cut_before(asked));
    }
}

/// The bytes of a value.
pub(super) fn fill(value: Value, block: &mut [u8]) {
    assert_eq!(block.len(), BLOCK);
    if value == 0 {
        return block.fill(0);
    }
    let mut word = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for (i, chunk) in block.chunks_exact_mut(8).enumerate() {
        // The value in each sector, so that a torn block is seen wherever it is torn.
        word = if i % 64 == 0 { value } else { word.rotate_left(7) ^ value };
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// Which of some values these bytes are.
pub(super) fn recognize(block: &[u8], values: &[Value]) -> Option<Value> {
    let mut expected = vec![0; BLOCK];
    values.iter().copied().find(|value| {
        fill(*value, &mut expected);
        expected == block
    })
}
