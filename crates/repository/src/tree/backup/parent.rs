//! The parent tree, read in step with the walk.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;

use super::super::entry::{Entry, Kind};
use super::super::{Error, TreePath};
use crate::{Repository, TableRef, table};

/// Finds for each path of a walk the entry of the parent, both going forward only.
pub(super) struct Parent {
    runtime: Handle,
    reader: table::Reader,
    entries: BoxStream<'static, crate::Result<(Bytes, Bytes)>>,
    /// The first entry that no path has come to yet.
    next: Option<(Bytes, Bytes)>,
}

impl Parent {
    pub(super) fn open(runtime: &Handle, repository: &Repository, root: TableRef) -> Result<Self, Error> {
        let reader = table::Reader::new(repository, root);
        let entries = reader.scan(&[]).boxed();
        let mut parent = Self { runtime: runtime.clone(), reader, entries, next: None };
        parent.advance()?;
        Ok(parent)
    }

    /// The entry of `path`, which lies after every path that was asked for before. Another name of a file gives the
    /// entry that holds the content, because which name comes first may have changed.
    pub(super) fn find(&mut self, path: &TreePath) -> Result<Option<Entry>, Error> {
        while self.next.as_ref().is_some_and(|(key, _)| key[..] < *path.as_key()) {
            self.advance()?;
        }
        let Some((_, value)) = self.next.as_ref().filter(|(key, _)| key[..] == *path.as_key()) else { return Ok(None) };
        let entry = decode(path, value)?;
        let Kind::HardLink { first } = &entry.kind else { return Ok(Some(entry)) };
        let value = self.runtime.block_on(self.reader.get(first.as_key()))?;
        value.map(|value| decode(first, &value)).transpose()
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.next = self.runtime.block_on(self.entries.next()).transpose()?;
        Ok(())
    }
}

fn decode(path: &TreePath, value: &[u8]) -> Result<Entry, Error> {
    Entry::decode(value).map_err(|error| Error::damaged(path, error.to_string()))
}
