//! A store of records, of whatever kind: a node does not have to know which.

use replication::record::Record;
use replication::record::store::{RecordStore, StoreError, SwapError, Version, Versioned, Watch};
use replication::units::VolumeId;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`RecordStore`], as a trait that objects can have.
trait Any: Send + Sync {
    fn get(&self, volume: VolumeId) -> Answer<'_, Result<Option<Versioned>, StoreError>>;
    fn swap(
        &self,
        volume: VolumeId,
        expected: Option<Version>,
        record: Record,
    ) -> Answer<'_, Result<Version, SwapError>>;
    fn remove(&self, volume: VolumeId, expected: Version) -> Answer<'_, Result<(), SwapError>>;
    fn watch(&self, volume: VolumeId) -> Answer<'_, Result<AnyWatch, StoreError>>;
}

/// [`Watch`], likewise.
trait Follow: Send {
    fn next(&mut self) -> Answer<'_, Result<Option<Versioned>, StoreError>>;
}

struct Of<T>(T);

impl<R: RecordStore<Watch: 'static>> Any for Of<R> {
    fn get(&self, volume: VolumeId) -> Answer<'_, Result<Option<Versioned>, StoreError>> {
        Box::pin(self.0.get(volume))
    }

    fn swap(
        &self,
        volume: VolumeId,
        expected: Option<Version>,
        record: Record,
    ) -> Answer<'_, Result<Version, SwapError>> {
        Box::pin(self.0.swap(volume, expected, record))
    }

    fn remove(&self, volume: VolumeId, expected: Version) -> Answer<'_, Result<(), SwapError>> {
        Box::pin(self.0.remove(volume, expected))
    }

    fn watch(&self, volume: VolumeId) -> Answer<'_, Result<AnyWatch, StoreError>> {
        Box::pin(async move { Ok(AnyWatch(Box::new(Of(self.0.watch(volume).await?)))) })
    }
}

impl<W: Watch> Follow for Of<W> {
    fn next(&mut self) -> Answer<'_, Result<Option<Versioned>, StoreError>> {
        Box::pin(self.0.next())
    }
}

/// Records, wherever they are.
#[derive(Clone)]
pub struct AnyRecords(Arc<dyn Any>);

/// Follows one of them.
pub struct AnyWatch(Box<dyn Follow>);

impl AnyRecords {
    /// Those of a store.
    #[must_use]
    pub fn new<R: RecordStore<Watch: 'static> + 'static>(records: R) -> Self {
        Self(Arc::new(Of(records)))
    }
}

impl RecordStore for AnyRecords {
    type Watch = AnyWatch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        self.0.get(volume).await
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        self.0.swap(volume, expected, record).await
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        self.0.remove(volume, expected).await
    }

    async fn watch(&self, volume: VolumeId) -> Result<AnyWatch, StoreError> {
        self.0.watch(volume).await
    }
}

impl Watch for AnyWatch {
    async fn next(&mut self) -> Result<Option<Versioned>, StoreError> {
        self.0.next().await
    }
}

impl fmt::Debug for AnyRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyRecords")
    }
}
