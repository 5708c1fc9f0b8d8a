//! Looking into a file tree without restoring it: its entries, and the content of one file.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use tokio::runtime::Handle as Runtime;

use super::entry::{Entry, File, Kind};
use super::source::BlobCache;
use super::{Error, TreePath};
use crate::{Repository, TableRef, table};

/// Zeros that are written at once where a file has a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The entry of that path and everything below it, in the order of a walk; nothing if there is none.
pub fn entries(
    repository: &Repository,
    root: &TableRef,
    path: &TreePath,
) -> impl Stream<Item = Result<(TreePath, Entry), Error>> + Send + use<> {
    let top = path.clone();
    let decode = |(key, value): (Bytes, Bytes)| std::future::ready(decode(&key, &value));
    let within = move |(path, _): &(TreePath, Entry)| std::future::ready(Ok(*path == top || path.is_below(&top)));
    let pages = table::Reader::new(repository, *root).scan(path.as_key());
    pages.map_err(Error::from).and_then(decode).try_take_while(within)
}

/// The entry of that path, if there is one.
pub async fn entry(repository: &Repository, root: &TableRef, path: &TreePath) -> Result<Option<Entry>, Error> {
    find(&table::Reader::new(repository, *root), path).await
}

/// As [`entry`], in a tree that is being read.
pub(super) async fn find(reader: &table::Reader, path: &TreePath) -> Result<Option<Entry>, Error> {
    let value = reader.get(path.as_key()).await?;
    value.map(|value| decode(path.as_key(), &value).map(|(_, entry)| entry)).transpose()
}

fn decode(key: &[u8], value: &[u8]) -> Result<(TreePath, Entry), Error> {
    let path = TreePath::from_key(key)?;
    let entry = Entry::decode(value).map_err(|error| Error::damaged(&path, error.to_string()))?;
    Ok((path, entry))
}

/// Writes the content of one file, verified, holes as zeros; returns its size. Another name of a file is as good as the first.
pub async fn dump(
    repository: &Repository,
    root: &TableRef,
    path: &TreePath,
    out: impl Write + Send + 'static,
) -> Result<u64, Error> {
    let reader = table::Reader::new(repository, *root);
    let mut found = find(&reader, path).await?;
    if let Some(Entry { kind: Kind::HardLink { first }, .. }) = &found {
        found = find(&reader, first).await?;
    }
    let file = match found {
        Some(Entry { kind: Kind::File(file), .. }) => file,
        Some(_) => return Err(Error::NotAFile { path: path.to_string() }),
        None => return Err(Error::NoSuchEntry { path: path.to_string() }),
    };
    let (path, runtime) = (path.clone(), Runtime::current());
    let cache = Arc::new(BlobCache::new(repository.clone()));
    tokio::task::spawn_blocking(move || write_file(&cache, &runtime, &path, &file, out)).await?
}

fn write_file(
    cache: &BlobCache,
    runtime: &Runtime,
    path: &TreePath,
    file: &File,
    mut out: impl Write,
) -> Result<u64, Error> {
    let failed =
        |source| Error::FileSystem { action: "write the content of", path: PathBuf::from(path.to_string()), source };
    let mut written = 0;
    cache.read_file(runtime, path, file, |offset, bytes| {
        write_zeros(&mut out, offset - written).and_then(|()| out.write_all(bytes)).map_err(failed)?;
        written = offset + bytes.len() as u64;
        Ok::<_, Error>(())
    })?;
    write_zeros(&mut out, file.size - written).and_then(|()| out.flush()).map_err(failed)?;
    Ok(file.size)
}

pub(super) fn write_zeros(out: &mut impl Write, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let part = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
        out.write_all(&ZEROS[..part])?;
        count -= part as u64;
    }
    Ok(())
}
