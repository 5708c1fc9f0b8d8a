//! File trees: a directory with everything in it, stored in one table.
//!
//! The key of an entry is its path ([`TreePath`]), the value is the entry itself ([`entry::Entry`]): attributes, and where
//! the content is. docs/formats/file-tree.md gives every byte.
//!
//! [`backup()`] writes a tree, [`restore()`] fills a directory from one, [`verify()`] checks one, alone or against a directory.
//! All three do their file work on blocking threads, follow no symlink, and need memory that does not depend on the
//! number and the size of files.

pub mod backup;
mod codec;
mod content;
pub mod entry;
mod error;
mod incidents;
mod look;
mod metadata;
mod names;
mod path;
mod read;
pub mod restore;
mod source;
mod stack;
mod tar;
pub mod verify;
mod walk;

pub(crate) use self::content::{Cutter, DataRanges};
pub(crate) use self::source::Places;
pub(crate) use self::stack::open_file;

pub use self::backup::{BackupOptions, SETTLE, TreeSummary, backup};
pub use self::error::Error;
pub use self::incidents::{Incident, Incidents, NAMED_PATHS};
pub use self::look::{dump, entries, entry};
pub use self::path::TreePath;
pub use self::read::{ContentReader, EntryReader};
pub use self::restore::{ExpectedCounts, RestoreOptions, RestoreSummary, restore};
pub use self::tar::{TarSummary, write_tar};
pub use self::verify::{VerifyOptions, VerifySummary, verify};
pub use self::walk::WalkOptions;

use tokio_util::sync::{CancellationToken, DropGuard};

/// Narrows a token to one call: the work on blocking threads ends as well when the caller drops the call.
fn scoped(cancel: &mut CancellationToken) -> DropGuard {
    *cancel = cancel.child_token();
    cancel.clone().drop_guard()
}
