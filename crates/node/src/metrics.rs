//! What a node tells of itself: in the OpenMetrics text format, with names that begin with `orlop_` and carry their unit.

mod store;

use crate::meter::{Gauges, Meter, Operation};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use store::Store;
use volume::Counts;

/// From what memory answers in to what a disk that is being retried takes.
const SECONDS: [f64; 14] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    pool: String,
    volume: String,
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VolumeLabels {
    pool: String,
    volume: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pool: String,
}

/// What is told of a pool when somebody asks.
#[derive(Debug, Clone)]
pub(crate) struct PoolFigures {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) counts: Counts,
    pub(crate) checkpoint: u64,
    pub(crate) damage: u64,
    pub(crate) avoided: u64,
    pub(crate) scrubbed_bytes: u64,
    pub(crate) scrub_faults: u64,
    pub(crate) scrubbed: u64,
    pub(crate) is_full: bool,
    pub(crate) has_failed: bool,
    pub(crate) volumes: usize,
    pub(crate) snapshots: usize,
}

/// Everything that a node counts.
pub(crate) struct Metrics {
    registry: Registry,
    count: Family<OperationLabels, Counter>,
    bytes: Family<OperationLabels, Counter>,
    failed: Family<OperationLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    in_flight: Family<VolumeLabels, Gauge>,
    pool_bytes: Family<PoolLabels, Gauge>,
    pool_free_bytes: Family<PoolLabels, Gauge>,
    store: Store,
    pool_checkpoints: Family<PoolLabels, Gauge>,
    pool_damage: Family<PoolLabels, Gauge>,
    pool_avoided: Family<PoolLabels, Gauge>,
    pool_scrubbed_bytes: Family<PoolLabels, Gauge>,
    pool_scrub_faults: Family<PoolLabels, Gauge>,
    pool_scrubbed: Family<PoolLabels, Gauge>,
    pool_full: Family<PoolLabels, Gauge>,
    pool_failed: Family<PoolLabels, Gauge>,
    pool_volumes: Family<PoolLabels, Gauge>,
    pool_snapshots: Family<PoolLabels, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut new = Self {
            registry: Registry::with_prefix("orlop"),
            count: Family::default(),
            bytes: Family::default(),
            failed: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Family::default(),
            pool_bytes: Family::default(),
            pool_free_bytes: Family::default(),
            store: Store::default(),
            pool_checkpoints: Family::default(),
            pool_damage: Family::default(),
            pool_avoided: Family::default(),
            pool_scrubbed_bytes: Family::default(),
            pool_scrub_faults: Family::default(),
            pool_scrubbed: Family::default(),
            pool_full: Family::default(),
            pool_failed: Family::default(),
            pool_volumes: Family::default(),
            pool_snapshots: Family::default(),
        };
        new.register();
        new
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("volume_operations", "Requests that were answered, well or badly", self.count.clone());
        r.register("volume_operation_failures", "Requests that ended with an error", self.failed.clone());
        let help = "Bytes that were read, written or discarded";
        r.register_with_unit("volume_operation", help, Unit::Bytes, self.bytes.clone());
        let help = "How long requests took, waiting for a limit included";
        r.register_with_unit("volume_operation_duration", help, Unit::Seconds, self.seconds.clone());
        r.register("volume_operations_in_flight", "Requests that are not answered yet", self.in_flight.clone());
        let help = "Bytes that data and maps can have in the pool";
        r.register_with_unit("pool_capacity", help, Unit::Bytes, self.pool_bytes.clone());
        r.register_with_unit("pool_free", "Bytes of them that are free", Unit::Bytes, self.pool_free_bytes.clone());
        r.register("pool_checkpoint", "The number of the last checkpoint", self.pool_checkpoints.clone());
        let help = "Times since the start that blocks were not what was written, or could not be read";
        r.register("pool_damage_found", help, self.pool_damage.clone());
        let help = "Times since the start that the device did not take data, which was written elsewhere";
        r.register("pool_places_avoided", help, self.pool_avoided.clone());
        let help = "Bytes that were read since the start to see whether they are what was written";
        r.register_with_unit("pool_scrubbed", help, Unit::Bytes, self.pool_scrubbed_bytes.clone());
        r.register("pool_scrub_faults", "Times since the start that they were not", self.pool_scrub_faults.clone());
        let help = "When all of the pool was read the last time, in seconds since 1970; 0 if never";
        r.register_with_unit("pool_scrub_end", help, Unit::Seconds, self.pool_scrubbed.clone());
        r.register("pool_full", "1 while writes wait for room", self.pool_full.clone());
        r.register("pool_failed", "1 when the pool takes no more changes", self.pool_failed.clone());
        r.register("pool_volumes", "Volumes in the pool", self.pool_volumes.clone());
        r.register("pool_snapshots", "Snapshots in the pool", self.pool_snapshots.clone());
        self.store.register(r);
    }

    /// What counts for one device.
    pub(crate) fn meter(&self, pool: &str, volume: &str) -> Meter {
        let operations = Operation::ALL.map(|operation| {
            let labels = labels(pool, volume, operation);
            Gauges {
                count: self.count.get_or_create(&labels).clone(),
                bytes: self.bytes.get_or_create(&labels).clone(),
                failed: self.failed.get_or_create(&labels).clone(),
                nanoseconds: Counter::default(),
                seconds: self.seconds.get_or_create(&labels).clone(),
            }
        });
        let labels = VolumeLabels { pool: pool.into(), volume: volume.into() };
        Meter { operations, in_flight: self.in_flight.get_or_create(&labels).clone() }
    }

    /// Tells nothing any more of a device.
    pub(crate) fn forget(&self, pool: &str, volume: &str) {
        for operation in Operation::ALL {
            let labels = labels(pool, volume, operation);
            self.count.remove(&labels);
            self.bytes.remove(&labels);
            self.failed.remove(&labels);
            self.seconds.remove(&labels);
        }
        self.in_flight.remove(&VolumeLabels { pool: pool.into(), volume: volume.into() });
    }

    /// The text, with the pools as they are now.
    pub(crate) fn encode(&self, pools: &[PoolFigures]) -> Result<String, fmt::Error> {
        for pool in pools {
            self.set(pool);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    fn set(&self, pool: &PoolFigures) {
        let labels = PoolLabels { pool: pool.name.clone() };
        let set = |family: &Family<PoolLabels, Gauge>, value: u64| {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.pool_bytes, pool.bytes);
        set(&self.pool_free_bytes, pool.free_bytes);
        set(&self.pool_checkpoints, pool.checkpoint);
        set(&self.pool_damage, pool.damage);
        set(&self.pool_avoided, pool.avoided);
        set(&self.pool_scrubbed_bytes, pool.scrubbed_bytes);
        set(&self.pool_scrub_faults, pool.scrub_faults);
        set(&self.pool_scrubbed, pool.scrubbed);
        set(&self.pool_full, u64::from(pool.is_full));
        set(&self.pool_failed, u64::from(pool.has_failed));
        set(&self.pool_volumes, pool.volumes as u64);
        set(&self.pool_snapshots, pool.snapshots as u64);
        self.store.set(&labels, &pool.counts);
    }
}

fn labels(pool: &str, volume: &str, operation: Operation) -> OperationLabels {
    OperationLabels { pool: pool.into(), volume: volume.into(), operation: operation.name() }
}
