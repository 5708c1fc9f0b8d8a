//! A store that counts reads and can be made to go wrong.

use async_trait::async_trait;
use bytes::Bytes;
use repository::store::{ObjectAccess, ObjectInfo};
use repository::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// What was read since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    reads: Reads,
    /// The byte at this offset of each pack is read as another.
    flipped: Option<u64>,
    refuses: bool,
}

/// A store in memory that counts the reads of parts of objects.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    inner: Store,
    state: Arc<Mutex<State>>,
}

impl Counted {
    pub(crate) fn new() -> Self {
        Self { inner: StoreConfig::Memory.open(RetryPolicy::never()).unwrap(), state: Arc::default() }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.clone(), "a counted store", RetryPolicy::never())
    }

    /// What was read since this was last asked.
    pub(crate) fn take(&self) -> Reads {
        std::mem::take(&mut self.state.lock().unwrap().reads)
    }

    pub(crate) fn flip(&self, offset: u64) {
        self.state.lock().unwrap().flipped = Some(offset);
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.lock().unwrap().refuses = refuses;
    }
}

#[async_trait]
impl ObjectAccess for Counted {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if self.state.lock().unwrap().refuses {
            return Err(StoreError::new(StoreErrorKind::Unreachable, "read", name));
        }
        // A request takes a moment, so that others come meanwhile.
        tokio::task::yield_now().await;
        let bytes = self.inner.get_range(name, range.clone()).await?;
        let mut state = self.state.lock().unwrap();
        state.reads.reads += 1;
        state.reads.bytes += bytes.len() as u64;
        match state.flipped {
            Some(offset) if range.contains(&offset) => {
                let mut bytes = bytes.to_vec();
                bytes[(offset - range.start) as usize] ^= 4;
                Ok(bytes.into())
            }
            _ => Ok(bytes),
        }
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}
