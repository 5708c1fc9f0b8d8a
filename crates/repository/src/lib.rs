//! The backup repository: where recovery points are kept, in a folder or in a bucket.
//!
//! From the bottom up: a [`store`] keeps objects; blobs are sealed into packs by a [`Writer`]; a [`table`] is a sorted map made
//! of blobs; a [`RecoveryPoint`] refers to tables, and is published last. Nothing is ever overwritten.
//!
//! `docs/formats/repository.md` specifies every byte.

mod background;
mod checked_json;
mod codec;
mod crypto;
mod directories;
mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ids;
mod index;
mod layout;
mod pack;
mod point;
mod progress;
mod references;
mod repository;
mod secret;
mod seen;
mod verify;
mod writer;

pub mod canonical_json;
pub mod check;
pub mod store;
pub mod table;
pub mod tree;
pub mod volume;

pub use codec::{Fields, Malformed};
pub use error::{Error, ErrorKind, Result};
pub use ids::{BlobId, BlobRef, KeyId, PackId, PointId, RepositoryId, TableRef, WriterId};
pub use pack::{BlobKind, MAX_BLOB_LEN};
pub use point::{Claim, PointEntry, RecoveryPoint, Root, RootKind, Source, Stats};
pub use progress::{Counters, NoProgress, Progress};
pub use repository::{FORMAT_VERSION, Repository};
pub use secret::{Passphrase, Secret};
pub use store::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};
pub use writer::{PackInfo, Writer, WriterStats, WrittenPacks};
