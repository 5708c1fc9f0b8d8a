//! Reading a stored tree from front to back, for programs that make something else of it than files, such as an archive.

use tokio::runtime::Handle as Runtime;

use super::entry::{Entry, File};
use super::source::{BlobCache, Entries};
use super::{Error, TreePath};
use crate::{Repository, TableRef, table};

/// The entries of a tree in order, each a valid path, below a directory that came before. Blocks; made within a runtime.
pub struct EntryReader(Entries);

impl EntryReader {
    /// Begins at the top.
    #[must_use]
    pub fn new(repository: &Repository, root: &TableRef) -> Self {
        Self(Entries::new(&Runtime::current(), &table::Reader::new(repository, *root)))
    }

    /// The next entry; nothing at the end.
    pub fn next_entry(&mut self) -> Result<Option<(TreePath, Entry)>, Error> {
        self.0.next()
    }
}

/// The content of files, and of streams, which are stored in the same way. Neighbours share what was read. Blocks; made within a runtime.
pub struct ContentReader {
    cache: BlobCache,
    runtime: Runtime,
}

impl ContentReader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(repository: &Repository) -> Self {
        Self { cache: BlobCache::new(repository.clone()), runtime: Runtime::current() }
    }

    /// Gives the data of a file, extent by extent in order, verified: `take` gets the offset and the bytes. What is not given is zeros.
    pub fn read<E: From<Error>>(
        &self,
        path: &TreePath,
        file: &File,
        take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.cache.read_file(&self.runtime, path, file, take)
    }
}
