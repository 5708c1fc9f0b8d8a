//! The backup repository: where recovery points are kept, in a folder or in a bucket.
//!
//! From the bottom up: a [`store`] keeps objects; blobs are sealed into packs by a [`Writer`]; a [`table`] is a sorted map made
//! of blobs; a [`RecoveryPoint`] refers to tables, and is published last. Nothing is ever overwritten. What no recovery point needs any
//! more is deleted by [`Repository::collect`].
//!
//! `docs/formats/repository.md` specifies every byte.

mod background;
mod checked_json;
mod codec;
mod collector;
mod content;
mod crypto;
mod directories;
mod error;
mod extents;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod holding;
mod ids;
mod index;
mod layout;
mod pack;
mod pin;
mod point;
mod progress;
mod references;
mod repository;
mod secret;
mod seen;
mod tags;
mod verify;
mod writer;

pub mod accounting;
pub mod canonical_json;
pub mod check;
pub mod copy;
pub mod diff;
pub mod keys;
pub mod repair;
pub mod retention;
pub mod store;
pub mod table;
pub mod tree;
pub mod volume;

pub use codec::{Fields, Malformed};
pub use collector::{CollectOptions, CollectReport, CollectState, Heart, Run};
pub use content::{ContentError, check_content};
pub use error::{Error, ErrorKind, Result};
pub use ids::{BlobId, BlobRef, KeyId, PackId, PointId, RepositoryId, SessionId, TableRef, WriterId};
pub use keys::{KeyError, Recipient};
pub use pack::{BlobKind, MAX_BLOB_LEN};
pub use pin::{MAX_REASON_LEN, Pin};
pub use point::{Claim, PointEntry, RecoveryPoint, Root, RootKind, Source, Stats};
pub use progress::{Counters, NoProgress, Progress};
pub use repository::{FORMAT_VERSION, Known, Repository};
pub use secret::{NoPassphrase, Passphrase, Secret};
pub use store::{Lock, LockMode, RetryPolicy, S3Location, Store, StoreConfig, StoreError, StoreErrorKind};
pub use tags::{MAX_TAGS, Tag, Tags};
pub use writer::{PackInfo, Writer, WriterStats, WrittenPacks};
