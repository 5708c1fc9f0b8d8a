//! Restoring a part of a tree.

use std::collections::HashMap;

use tokio::runtime::Handle as Runtime;

use super::super::entry::{Entry, Kind};
use super::super::look::find;
use super::super::{Error, TreePath};
use crate::table;

/// Files outside of the part whose name inside of it is kept, so that further names become links to it. Names of more files than
/// these become files of their own.
const KEPT_FILES: usize = 1 << 16;

/// Chooses the entries to make: `only`, what is below it, and the directories that lead there.
pub(super) struct Choice {
    only: Option<TreePath>,
    /// For files whose first name is left out, the first name that is not.
    instead: HashMap<TreePath, TreePath>,
}

impl Choice {
    pub(super) fn new(only: Option<TreePath>) -> Self {
        Self { only, instead: HashMap::new() }
    }

    /// The entry to make for `entry`, if it is wanted.
    ///
    /// Another name of a file that is left out becomes the file itself, and further names become links to it, so that a part is
    /// as good as the whole.
    pub(super) fn choose(
        &mut self,
        runtime: &Runtime,
        reader: &table::Reader,
        path: &TreePath,
        entry: Entry,
    ) -> Result<Option<Entry>, Error> {
        let Some(only) = &self.only else { return Ok(Some(entry)) };
        let wanted = |path: &TreePath| path == only || path.is_below(only);
        let first = match &entry.kind {
            Kind::HardLink { first } if wanted(path) && !wanted(first) => first,
            _ => return Ok((wanted(path) || only.is_below(path)).then_some(entry)),
        };
        if let Some(instead) = self.instead.get(first) {
            let kind = Kind::HardLink { first: instead.clone() };
            return Ok(Some(Entry { attributes: entry.attributes, kind }));
        }
        let first_entry = runtime.block_on(find(reader, first))?;
        let first_entry =
            first_entry.ok_or_else(|| Error::damaged(path, format!("its first name {first} is missing")))?;
        if self.instead.len() < KEPT_FILES {
            self.instead.insert(first.clone(), path.clone());
        }
        Ok(Some(first_entry))
    }
}
