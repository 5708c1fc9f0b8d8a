//! What differs between two states of a file tree.

use super::bytes;
use crate::ids::TableRef;
use crate::repository::Repository;
use crate::table::{self, Difference};
use crate::tree::entry::{Attributes, Entry, Kind};
use crate::tree::{Error, TreePath};
use futures::TryStreamExt;

/// What happened to one file, or other thing of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// Both have it, and it differs.
    Changed(Changed),
}

/// In what something differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// It is another kind of thing, or leads to another file, or stands for another device.
    pub kind: bool,
    /// Its bytes differ.
    pub content: bool,
    /// What else differs of what a restore brings back: `mode`, `owner`, `mtime`, `xattrs`.
    pub metadata: Vec<&'static str>,
}

/// How many things differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Only the second tree has them.
    pub added: u64,
    /// Only the first tree has them.
    pub removed: u64,
    /// They are another kind of thing, or lead elsewhere.
    pub kind: u64,
    /// Their bytes differ.
    pub content: u64,
    /// Their attributes differ, and perhaps their bytes.
    pub metadata: u64,
}

impl Counts {
    fn add(&mut self, change: &FileChange) {
        match change {
            FileChange::Added => self.added += 1,
            FileChange::Removed => self.removed += 1,
            FileChange::Changed(changed) => {
                self.kind += u64::from(changed.kind);
                self.content += u64::from(changed.content);
                self.metadata += u64::from(!changed.metadata.is_empty());
            }
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares two states of a tree, at `path` and below it; tells everything that differs, in the order of a walk.
///
/// What a restore does not bring back is not compared: inode, device, time of the last change.
pub async fn tree(
    repo: &Repository,
    old: &TableRef,
    new: &TableRef,
    path: &TreePath,
    tell: &mut (dyn FnMut(&TreePath, FileChange) + Send),
) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    let mut differences = std::pin::pin!(table::differences(repo, *old, *new));
    while let Some(Difference { key, old, new }) = differences.try_next().await? {
        let here = TreePath::from_key(&key)?;
        if here != *path && !here.is_below(path) {
            continue;
        }
        let decode = |value: Option<::bytes::Bytes>| {
            let entry = value.map(|value| Entry::decode(&value)).transpose();
            entry.map_err(|what| Error::Damaged { path: here.to_string(), what: what.to_string() })
        };
        let change = match (decode(old)?, decode(new)?) {
            (None, None) => None,
            (None, Some(_)) => Some(FileChange::Added),
            (Some(_), None) => Some(FileChange::Removed),
            (Some(old), Some(new)) => changed(repo, &old, &new).await?.map(FileChange::Changed),
        };
        if let Some(change) = change {
            counts.add(&change);
            tell(&here, change);
        }
    }
    Ok(counts)
}

async fn changed(repo: &Repository, old: &Entry, new: &Entry) -> Result<Option<Changed>, Error> {
    let mut changed = Changed { metadata: metadata(&old.attributes, &new.attributes), ..Changed::default() };
    match (&old.kind, &new.kind) {
        (Kind::File(old), Kind::File(new)) if old.size == new.size => {
            let sides = bytes::of_files(repo, &old.content, &new.content).await?;
            bytes::compare(repo, sides, |_| {
                changed.content = true;
                false
            })
            .await?;
        }
        (Kind::File(_), Kind::File(_)) => changed.content = true,
        (old, new) => changed.kind = old != new,
    }
    Ok(Some(changed).filter(|changed| *changed != Changed::default()))
}

fn metadata(old: &Attributes, new: &Attributes) -> Vec<&'static str> {
    let differs = [
        ("mode", old.mode != new.mode),
        ("owner", (old.uid, old.gid) != (new.uid, new.gid)),
        ("mtime", old.mtime != new.mtime),
        ("xattrs", old.xattrs != new.xattrs),
    ];
    differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
