//! Restoring a part of a tree.

use tokio::runtime::Handle as Runtime;

use super::super::entry::{Entry, Kind};
use super::super::look::find;
use super::super::{Error, TreePath};
use crate::table;

/// The entry to make for `entry`, if it is wanted: it is `only`, below it, or one of the directories that lead there.
///
/// Another name of a file that is left out becomes the file itself, so that a part is as good as the whole.
pub(super) fn choose(
    only: Option<&TreePath>,
    runtime: &Runtime,
    reader: &table::Reader,
    path: &TreePath,
    entry: Entry,
) -> Result<Option<Entry>, Error> {
    let Some(only) = only else { return Ok(Some(entry)) };
    let wanted = |path: &TreePath| path == only || path.is_below(only);
    match &entry.kind {
        Kind::HardLink { first } if wanted(path) && !wanted(first) => {
            let first_entry = runtime.block_on(find(reader, first))?;
            first_entry.map(Some).ok_or_else(|| Error::damaged(path, format!("its first name {first} is missing")))
        }
        _ => Ok((wanted(path) || only.is_below(path)).then_some(entry)),
    }
}
