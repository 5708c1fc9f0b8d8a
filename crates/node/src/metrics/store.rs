//! What the stores of pools tell: their logs, what waits, maps in memory, and checkpoints.

use super::PoolLabels;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::Ordering;
use volume::{BLOCK, Counts};

type Gauges = Family<PoolLabels, Gauge>;
type Counters = Family<PoolLabels, Counter>;

/// The metrics of all pools.
#[derive(Default)]
pub(super) struct Store {
    waiting: Gauges,
    waiting_for_room: Gauges,
    waiting_for_log: Gauges,
    log_writes: Counters,
    log_bytes: Counters,
    log_changes: Counters,
    log_syncs: Counters,
    cached: Gauges,
    changed: Gauges,
    writing: Gauges,
    hits: Counters,
    reads: Counters,
    checkpoints: Counters,
    checkpoint_bytes: Counters,
}

impl Store {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("pool_requests_waiting", "Requests to the pool that are not answered", self.waiting.clone());
        let help = "Writes and discards among them that wait for room in the pool";
        r.register("pool_requests_waiting_for_room", help, self.waiting_for_room.clone());
        let help = "Requests among them that wait until the log has what they have changed, or until it is durable";
        r.register("pool_requests_waiting_for_log", help, self.waiting_for_log.clone());
        let help = "Writes of the log, each for all changes that were waiting for it";
        r.register("pool_log_writes", help, self.log_writes.clone());
        r.register_with_unit("pool_log", "Bytes of these", Unit::Bytes, self.log_bytes.clone());
        let help = "Changes in these; divided by the writes it is how many share one";
        r.register("pool_log_changes", help, self.log_changes.clone());
        let help = "Flushes of the device for the log, each for all who were waiting for it";
        r.register("pool_log_syncs", help, self.log_syncs.clone());
        let help = "Bytes of nodes of maps in memory that are as on the disk";
        r.register_with_unit("pool_map_cached", help, Unit::Bytes, self.cached.clone());
        let help = "Bytes of nodes of maps in memory that have changed since the last checkpoint was begun";
        r.register_with_unit("pool_map_changed", help, Unit::Bytes, self.changed.clone());
        let help = "Bytes of nodes of maps in memory that a checkpoint is writing";
        r.register_with_unit("pool_map_writing", help, Unit::Bytes, self.writing.clone());
        let help = "Nodes of maps that were looked for and were in memory";
        r.register("pool_map_cache_hits", help, self.hits.clone());
        r.register("pool_map_cache_misses", "Nodes of maps that were read from the disk", self.reads.clone());
        let help = "Checkpoints since the start that have become durable";
        r.register("pool_checkpoints", help, self.checkpoints.clone());
        let help = "Bytes of maps, catalog and space map in checkpoints";
        r.register_with_unit("pool_checkpoint", help, Unit::Bytes, self.checkpoint_bytes.clone());
    }

    pub(super) fn set(&self, pool: &PoolLabels, counts: &Counts) {
        let gauge = |family: &Gauges, value: usize| {
            family.get_or_create(pool).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        // The store counts by itself; it only grows for as long as the pool is open, and so this process lives.
        let counter = |family: &Counters, value: u64| {
            family.get_or_create(pool).inner().store(value, Ordering::Relaxed);
        };
        gauge(&self.waiting, counts.waiting);
        gauge(&self.waiting_for_room, counts.waiting_for_room);
        gauge(&self.waiting_for_log, counts.waiting_for_log);
        counter(&self.log_writes, counts.log_writes);
        counter(&self.log_bytes, counts.log_bytes);
        counter(&self.log_changes, counts.log_changes);
        counter(&self.log_syncs, counts.log_syncs);
        gauge(&self.cached, counts.cached_nodes * BLOCK);
        gauge(&self.changed, counts.changed_nodes * BLOCK);
        gauge(&self.writing, counts.writing_nodes * BLOCK);
        counter(&self.hits, counts.node_hits);
        counter(&self.reads, counts.node_reads);
        counter(&self.checkpoints, counts.checkpoints);
        counter(&self.checkpoint_bytes, counts.checkpoint_bytes);
    }
}
