//! Where records are kept.

use super::Record;
use crate::units::VolumeId;
use std::future::Future;
use std::sync::Arc;

/// A state of one record. No two states of it, ever, have the same version; what it consists of is the store's own matter (Kubernetes'
/// `resourceVersion`, etcd's `mod_revision`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub Arc<str>);

/// A record, and which state of it this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Which state.
    pub version: Version,
    /// What it says.
    pub record: Record,
}

/// The store did not answer, or could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record store: {reason}; it is asked again")]
pub struct StoreError {
    /// What is known of why.
    pub reason: String,
}

/// Why a swap was not done, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The record has another version now, or is there already, or is gone. Nothing was changed, and this swap never will change it.
    #[error("the record has changed meanwhile; it is read again")]
    Conflict,
    /// Nobody knows: it may have been done, or may still be done at any later time while the version is what was expected.
    #[error("the record store: {reason}; whether it was changed is not known, so it is read again")]
    Unknown {
        /// What is known of why.
        reason: String,
    },
}

/// Compare-and-swap with watch.
///
/// This is all that is asked of the Kubernetes API or etcd. What implements it must pass [`crate::testing::record_store`]. The trait is asynchronous and names
/// no runtime; the state machines do not call it, they say in actions what is to be asked, so that they stay free of both.
pub trait RecordStore: Send + Sync {
    /// What [`RecordStore::watch`] gives.
    type Watch: Watch;

    /// The record as it is now: later than every swap that was answered before this was asked. (Not out of a cache.)
    fn get(&self, volume: VolumeId) -> impl Future<Output = Result<Option<Versioned>, StoreError>> + Send;

    /// Writes the record if its version is `expected`, or if it is not there and none is; gives the new version.
    fn swap(
        &self,
        volume: VolumeId,
        expected: Option<Version>,
        record: Record,
    ) -> impl Future<Output = Result<Version, SwapError>> + Send;

    /// Removes the record if its version is `expected`.
    fn remove(&self, volume: VolumeId, expected: Version) -> impl Future<Output = Result<(), SwapError>> + Send;

    /// Follows a record.
    fn watch(&self, volume: VolumeId) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;
}

/// The states of a record from some time on.
pub trait Watch: Send {
    /// The first time what is there, then what it has become, in their order; states between two others may be left out, the last one never is.
    /// `None` is a record that is not there.
    fn next(&mut self) -> impl Future<Output = Result<Option<Versioned>, StoreError>> + Send;
}
