//! Reads everything in the pools from time to time, so that damage is found while there is something to mend it from, and not when it is needed.

use crate::node::now;
use crate::store::Store;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use volume::{BLOCK, Scrubbed, State};

/// MiB that are read in one go: little enough that others hardly wait for it.
const STEP_MIB: usize = 1;
/// The same of pages at fixed places: a MiB of them.
const FIXED_STEP: usize = (1 << 20) / BLOCK;
/// Between two looks at whether a pass is due.
const LOOK: Duration = Duration::from_secs(60);

/// How much is read, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the end of a pass over a pool to the begin of the next.
    pub interval: Duration,
    /// Bytes in a second; a pass over a full pool of 1 TiB at 32 MiB takes nine hours.
    pub bytes_per_second: u64,
}

/// A thread that scrubs, until it is dropped.
pub(crate) struct Scrubber {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    is_stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits so long, or until it is to stop: whether it is.
    fn wait(&self, time: Duration) -> bool {
        let stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Scrubber {
    pub(crate) fn start(stores: Vec<Arc<Store>>, pace: Pace) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let stopped = stop.clone();
        let scrub = move || {
            loop {
                for store in stores.iter().filter(|store| is_due(store, pace.interval)) {
                    if !pass(store, pace, &stopped) {
                        return;
                    }
                }
                if stopped.wait(LOOK.min(pace.interval)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(scrub)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.stop.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            drop(thread.join());
        }
    }
}

fn is_due(store: &Store, interval: Duration) -> bool {
    let last = store.recorded(|records| records.scrubbed).unwrap_or(0);
    now().saturating_sub(last) >= interval.as_secs()
}

/// Reads all of a pool; false if it is to stop before it has.
fn pass(store: &Store, pace: Pace, stop: &Stop) -> bool {
    let volumes = store.pool.volumes().into_iter().map(|volume| (State::Volume(volume.id), volume.blocks));
    let snapshots = store.pool.snapshots().into_iter().map(|snapshot| (State::Snapshot(snapshot.id), snapshot.blocks));
    let mut faults = 0;
    for (state, blocks) in snapshots.chain(volumes) {
        let mut at = 0;
        while at < blocks {
            let (sender, receiver) = mpsc::channel();
            store.pool.scrub(state, at, STEP_MIB, move |done| drop(sender.send(done)));
            let scrubbed = match receiver.recv().unwrap_or(Err(volume::Error::Closed)) {
                Ok(scrubbed) => scrubbed,
                // It was deleted meanwhile.
                Err(volume::Error::NoVolume(_) | volume::Error::NoSnapshot(_)) => break,
                Err(error) => return give_up(store, &error),
            };
            at = scrubbed.next.max(at + 1);
            faults += count(store, &scrubbed);
            if stop.wait(pause(&scrubbed, pace)) {
                return false;
            }
        }
    }
    let (sender, receiver) = mpsc::channel();
    store.pool.scrub_catalog(move |done| drop(sender.send(done)));
    match receiver.recv().unwrap_or(Err(volume::Error::Closed)) {
        Ok(scrubbed) => faults += count(store, &scrubbed),
        Err(error) => return give_up(store, &error),
    }
    let mut next = 0;
    loop {
        let (sender, receiver) = mpsc::channel();
        store.pool.scrub_fixed(next, FIXED_STEP, move |done| drop(sender.send(done)));
        let scrubbed = match receiver.recv().unwrap_or(Err(volume::Error::Closed)) {
            Ok(scrubbed) if scrubbed.next == next => break,
            Ok(scrubbed) => scrubbed,
            Err(error) => return give_up(store, &error),
        };
        next = scrubbed.next;
        faults += count(store, &scrubbed);
        if stop.wait(pause(&scrubbed, pace)) {
            return false;
        }
    }
    let (pool, now) = (&store.name, now());
    match store.note(|records| records.scrubbed = Some(now)) {
        Ok(()) if faults == 0 => tracing::info!(pool, "all of the pool was read, and it is what was written"),
        Ok(()) => tracing::error!(pool, faults, "all of the pool was read, and not all is what was written"),
        Err(error) => tracing::error!(pool, error = error.story(), "it is not recorded that the pool was read"),
    }
    true
}

/// It is begun anew at the next look.
fn give_up(store: &Store, error: &volume::Error) -> bool {
    tracing::error!(pool = store.name, %error, "not all of the pool could be read");
    true
}

/// How long what was read may take.
fn pause(scrubbed: &Scrubbed, pace: Pace) -> Duration {
    Duration::from_secs_f64(to_seconds(scrubbed.read * BLOCK as u64, pace.bytes_per_second))
}

fn to_seconds(bytes: u64, in_a_second: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a pause need not be exact")]
    let seconds = bytes as f64 / in_a_second.max(1) as f64;
    seconds
}

fn count(store: &Store, scrubbed: &Scrubbed) -> u64 {
    store.told.scrubbed.fetch_add(scrubbed.read * BLOCK as u64, Ordering::Relaxed);
    for fault in &scrubbed.faults {
        tracing::error!(pool = store.name, error = %fault, "damage was found by reading everything");
    }
    let faults = scrubbed.faults.len() as u64;
    store.told.scrub_faults.fetch_add(faults, Ordering::Relaxed);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::pool_spec::PoolSpec;
    use std::os::unix::fs::FileExt;
    use volume::Access;

    /// Every metric of a pool that its store has, as Prometheus reads them.
    const STORE: [&str; 14] = [
        "orlop_pool_requests_waiting",
        "orlop_pool_requests_waiting_for_room",
        "orlop_pool_requests_waiting_for_log",
        "orlop_pool_log_writes",
        "orlop_pool_log_bytes",
        "orlop_pool_log_changes",
        "orlop_pool_log_syncs",
        "orlop_pool_map_cached_bytes",
        "orlop_pool_map_changed_bytes",
        "orlop_pool_map_writing_bytes",
        "orlop_pool_map_cache_hits",
        "orlop_pool_map_cache_misses",
        "orlop_pool_checkpoints",
        "orlop_pool_checkpoint_bytes",
    ];

    /// The value of a metric of the pool.
    fn value(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{pool=\"pool\"}} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    #[test]
    fn a_damaged_space_map_is_found_counted_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let spec = PoolSpec { path: path.clone(), bytes: Some(32 << 20) };
        let store = Store::open(&spec, (1 << 20, Access::Best), now()).unwrap();
        let (pace, stop) = (Pace { interval: Duration::ZERO, bytes_per_second: u64::MAX }, Stop::default());
        let told = |store: &Store| {
            assert!(pass(store, pace, &stop));
            Metrics::default().encode(&[store.figures()]).unwrap()
        };
        let before = told(&store);
        assert_eq!((value(&before, "orlop_pool_scrub_faults"), value(&before, "orlop_pool_damage_found")), (0, 0));
        // The bits of the first region are in one of these blocks, and the other is not looked at.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        [6, 7].into_iter().for_each(|block| file.write_all_at(&[0xA5; 64], block * BLOCK as u64 + 1024).unwrap());
        file.sync_all().unwrap();
        for _ in 0..2 {
            // The second pass finds what the first had written anew.
            let after = told(&store);
            let found = (value(&after, "orlop_pool_scrub_faults"), value(&after, "orlop_pool_damage_found"));
            assert_eq!(found, (1, 1));
            assert!(value(&after, "orlop_pool_checkpoints_total") > value(&before, "orlop_pool_checkpoints_total"));
        }
        for name in STORE {
            assert!(before.contains(&format!("# HELP {name} ")), "{name} has no help in {before}");
        }
        let logged = ["writes", "bytes", "changes", "syncs"].map(|what| format!("orlop_pool_log_{what}_total"));
        assert!(logged.iter().all(|name| value(&before, name) > 0), "the records were written: {before}");
        assert!(value(&before, "orlop_pool_map_cached_bytes") > 0);
    }
}
