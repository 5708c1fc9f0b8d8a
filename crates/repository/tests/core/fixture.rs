//! A small repository with three recovery points, and what is known about it.

use crate::literals;
use bytes::Bytes;
use futures::TryStreamExt;
use repository::table;
use repository::tree::entry::{Attributes, Content, Entry, Extent, File, Kind};
use repository::{
    BlobKind, BlobRef, PackInfo, Passphrase, PointId, RecoveryPoint, Repository, Result, RootKind, SessionId, Store,
    TableRef, Writer, WrittenPacks,
};
use std::collections::BTreeMap;

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("a passphrase of the tests")
}

pub(crate) async fn create(store: Store) -> Repository {
    Repository::create(store, &passphrase()).await.unwrap()
}

pub(crate) fn point_id(name: &str) -> PointId {
    name.parse().unwrap()
}

/// A recovery point with one content.
pub(crate) fn point(name: &str, table: TableRef, written: &WrittenPacks) -> RecoveryPoint {
    point_of(name, table, written.session, written.packs.clone())
}

/// The same of a session that may not be finished.
pub(crate) fn point_of(name: &str, table: TableRef, session: SessionId, packs: Vec<PackInfo>) -> RecoveryPoint {
    let root = literals::root("/srv", RootKind::Tree, table, (table.entries, 0), literals::passed());
    literals::point(point_id(name), literals::passed(), vec![root], session, packs)
}

/// What a test writes as one recovery point: content by its name.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

pub(crate) fn contents(pairs: &[(&str, &str)]) -> Contents {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// A name that begins like this has its extents in a table of their own.
pub(crate) const SPREAD: &str = "spread";

/// The content of a recovery point as it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) table: TableRef,
    pub(crate) blobs: BTreeMap<String, BlobRef>,
    /// The roots of the tables of extents.
    pub(crate) extent_pages: Vec<BlobRef>,
}

/// Stores contents as files of one blob each; those that `parent` has are referred to.
pub(crate) async fn store_contents(writer: &Writer, contents: &Contents, parent: Option<&Stored>) -> Result<Stored> {
    let (mut blobs, mut extent_pages) = (BTreeMap::new(), Vec::new());
    let mut builder = match parent {
        Some(parent) => table::Builder::with_parent(writer, &parent.table),
        None => table::Builder::new(writer),
    };
    let top = Entry { attributes: Attributes::default(), kind: Kind::Directory };
    builder.push(b"", &top.encode()).await?;
    for (name, content) in contents {
        let known = parent.and_then(|parent| parent.blobs.get(name)).copied();
        let same = move |id: &_| known.filter(|blob: &BlobRef| blob.id == *id);
        let blob = writer.put_blob_unless(BlobKind::Data, Bytes::from(content.clone()), same).await?;
        blobs.insert(name.clone(), blob);
        let extent = Extent { file_offset: 0, len: blob.plain_len, blob_offset: 0, blob };
        let content = if name.starts_with(SPREAD) {
            let mut extents = table::Builder::new(writer);
            extents.push(&extent.encode_key(), &extent.encode_value()).await?;
            let table = extents.finish().await?;
            extent_pages.push(table.root);
            Content::Table(table)
        } else {
            Content::Extents(vec![extent])
        };
        let file = File { size: u64::from(blob.plain_len), settled: true, content };
        let entry = Entry { attributes: Attributes::default(), kind: Kind::File(file) };
        builder.push(name.as_bytes(), &entry.encode()).await?;
    }
    Ok(Stored { table: builder.finish().await?, blobs, extent_pages })
}

/// Writes and publishes one recovery point in a session of its own.
pub(crate) async fn publish(
    repo: &Repository,
    name: &str,
    contents: &Contents,
    parent: Option<&Stored>,
) -> Result<Stored> {
    let writer = repo.writer(&point_id(name)).await?;
    let stored = store_contents(&writer, contents, parent).await?;
    let written = writer.finish().await?;
    repo.publish(&point(name, stored.table, &written)).await?;
    Ok(stored)
}

/// Reads everything of a recovery point back.
pub(crate) async fn restore(repo: &Repository, name: &str) -> Result<Contents> {
    let point = repo.point(&point_id(name)).await?;
    let mut contents = Contents::new();
    let mut entries = std::pin::pin!(table::Reader::new(repo, point.roots[0].table).scan(b""));
    while let Some((key, value)) = entries.try_next().await? {
        if key.is_empty() {
            continue;
        }
        let Kind::File(file) = Entry::decode(&value).unwrap().kind else {
            panic!("{key:?} is no file");
        };
        let extent = match file.content {
            Content::Extents(extents) => extents[0].clone(),
            Content::Table(table) => {
                let offset = 0u64.to_be_bytes();
                let value = table::Reader::new(repo, table).get(&offset).await?.unwrap();
                Extent::decode(&offset, &value).unwrap()
            }
        };
        contents.insert(String::from_utf8(key.to_vec()).unwrap(), repo.read_blob(&extent.blob).await?.to_vec());
    }
    Ok(contents)
}
