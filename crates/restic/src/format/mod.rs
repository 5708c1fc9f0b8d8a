//! The format of a restic repository, version 2, as its public design document gives it. Nothing in here knows where the bytes come from.
//!
//! A repository is a folder of files that are named by the SHA-256 of their bytes. *Packs* hold blobs: pieces of files, and the listings of
//! folders (*trees*). An *index* says which pack has which blob, a *snapshot* names the tree at the top. Everything but the key files is
//! sealed with one master key, which the key files hold, wrapped by a password.

mod crypto;
mod error;
mod folder;
mod go_text;
mod id;
mod index;
mod known;
mod lock;
mod node;
mod pack;
mod password;
mod polynomial;
mod repository;
mod sealed;
mod snapshot;
mod tree;

pub use self::error::{Error, Result};
pub use self::id::Id;
pub use self::node::{Attribute, Node, NodeKind};
pub use self::pack::{BlobKind, MAX_BLOB_LEN};
pub use self::repository::{Repository, Written};
pub use self::snapshot::Snapshot;
pub use self::tree::Tree;
