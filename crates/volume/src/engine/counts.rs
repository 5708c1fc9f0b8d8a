//! What a pool has done, in numbers.

use super::{Engine, World};

/// What a pool has done since it was opened, and what it holds and has waiting now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that are not answered.
    pub waiting: usize,
    /// Writes and discards among them that wait for room in the pool.
    pub waiting_for_room: usize,
    /// Those among them that wait until the log has what they have changed, or until it is durable.
    pub waiting_for_log: usize,
    /// How often the log was written, for all who were waiting.
    pub log_writes: u64,
    /// Bytes of that.
    pub log_bytes: u64,
    /// Changes in it; a write or discard is one for each MiB of its volume that it touches. So this over `log_writes` is how many share a write of the log.
    pub log_changes: u64,
    /// How often the device was flushed for the log.
    pub log_syncs: u64,
    /// Nodes of maps in memory as they are on disk.
    pub cached_nodes: usize,
    /// Nodes of maps in memory that have changed since the last checkpoint was begun.
    pub changed_nodes: usize,
    /// Nodes of maps in memory that a checkpoint is writing.
    pub writing_nodes: usize,
    /// How often a node was looked for and was in memory.
    pub node_hits: u64,
    /// How often one was read from the disk.
    pub node_reads: u64,
    /// Checkpoints that have become durable.
    pub checkpoints: u64,
    /// Bytes of maps, catalog and space map in those that were begun.
    pub checkpoint_bytes: u64,
}

impl<W: World> Engine<W> {
    /// The numbers, but for how many are not answered, which whoever asks knows.
    pub(crate) fn counts(&self) -> Counts {
        let held = self.nodes.held();
        Counts {
            waiting_for_room: self.held.len() + self.held_discards.len(),
            waiting_for_log: self.unlogged.len() + self.flushes.len(),
            cached_nodes: held.cached,
            changed_nodes: held.changed,
            writing_nodes: held.writing,
            node_hits: self.nodes.hits(),
            ..self.counts
        }
    }
}
