//! Records in memory: for tests, and the shortest example of what a record store is.

use super::Record;
use super::store::{RecordStore, StoreError, SwapError, Version, Versioned, Watch};
use crate::units::VolumeId;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct Kept {
    records: BTreeMap<VolumeId, Versioned>,
    /// Counts changes of any record; each version is a number that was never used.
    changes: u64,
    waiting: Vec<Waker>,
}

impl Kept {
    fn may_change(&self, volume: VolumeId, expected: Option<&Version>) -> Result<(), SwapError> {
        let found = self.records.get(&volume).map(|kept| &kept.version);
        if found == expected { Ok(()) } else { Err(SwapError::Conflict) }
    }

    fn has_changed(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Records that last as long as the last clone of this.
#[derive(Debug, Clone, Default)]
pub struct MemoryRecords(Arc<Mutex<Kept>>);

impl MemoryRecords {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held, and each change is made as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`RecordStore::get`] gives, at once.
    #[must_use]
    pub fn look(&self, volume: VolumeId) -> Option<Versioned> {
        self.kept().records.get(&volume).cloned()
    }

    /// What [`RecordStore::swap`] does, at once.
    ///
    /// # Errors
    /// The version is another.
    pub fn put(&self, volume: VolumeId, expected: Option<&Version>, record: Record) -> Result<Version, SwapError> {
        let mut kept = self.kept();
        kept.may_change(volume, expected)?;
        kept.changes += 1;
        let version = Version(kept.changes.to_string().into());
        kept.records.insert(volume, Versioned { version: version.clone(), record });
        kept.has_changed();
        Ok(version)
    }
}

impl RecordStore for MemoryRecords {
    type Watch = MemoryWatch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        Ok(self.look(volume))
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        self.put(volume, expected.as_ref(), record)
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        let mut kept = self.kept();
        kept.may_change(volume, Some(&expected))?;
        kept.records.remove(&volume);
        kept.has_changed();
        Ok(())
    }

    async fn watch(&self, volume: VolumeId) -> Result<MemoryWatch, StoreError> {
        Ok(MemoryWatch { records: self.clone(), volume, told: None })
    }
}

/// Follows one record.
#[derive(Debug)]
pub struct MemoryWatch {
    records: MemoryRecords,
    volume: VolumeId,
    told: Option<Option<Version>>,
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Option<Versioned>, StoreError> {
        poll_fn(|context| {
            let mut kept = self.records.kept();
            let found = kept.records.get(&self.volume).cloned();
            let version = found.as_ref().map(|kept| kept.version.clone());
            if self.told.as_ref() == Some(&version) {
                kept.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            self.told = Some(version);
            Poll::Ready(Ok(found))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryRecords;
    use crate::testing;

    #[test]
    fn records_in_memory_pass_the_suite_of_record_stores() {
        let suite = testing::record_store(MemoryRecords::default);
        futures::executor::block_on(suite).unwrap_or_else(|what| panic!("{what}"));
    }
}
