//! Where the bytes of a lost blob may be had from: another repository, living sources.

use super::{Origin, RepairSources};
use crate::background;
use crate::check::Examined;
use crate::check::lost::{LostBlob, Part, Place, Use};
use crate::error::{Error, Result};
use crate::extents;
use crate::ids::{BlobRef, PointId, TableRef};
use crate::layout;
use crate::pack::BlobKind;
use crate::point::{RecoveryPoint, Root, RootKind};
use crate::repository::Repository;
use crate::table::Reader;
use crate::tree::entry::{Content, Entry, Extent, Kind};
use crate::tree::{self, TreePath};
use crate::volume::Segment;
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How many recovery points of the other repository are tried that only have a content of the same name.
const TRIED_POINTS: usize = 16;
/// How many uses of a blob are tried one by one.
const TRIED_USES: usize = 8;

/// All places.
pub(super) struct Places {
    pub(super) repo: Repository,
    pub(super) other: Option<Other>,
    living: BTreeMap<String, PathBuf>,
}

/// The other repository.
pub(super) struct Other {
    pub(super) repo: Repository,
    /// Its recovery points, the newest first.
    points: Vec<RecoveryPoint>,
    /// The extents that were found last, because the next blob is likely to be beside.
    last: Option<((PointId, Place), Option<Found>)>,
    /// Blobs of it, and the ones with the same bytes here, as the pages of one recovery point refer to them.
    pub(super) known: HashMap<BlobRef, Option<BlobRef>>,
    pub(super) known_for: Option<(PointId, bool)>,
}

/// The extents of a file, a segment or a stream.
#[derive(Debug, Clone)]
enum Found {
    Inline(Vec<Extent>),
    Table(TableRef),
}

impl Places {
    pub(super) async fn new(repo: &Repository, sources: &RepairSources) -> Result<Self> {
        let mut other = None;
        if let Some(repo) = &sources.from {
            let mut points: Vec<_> = repo.points().await?.into_iter().filter_map(|entry| entry.point.ok()).collect();
            points.sort_by_key(|point| std::cmp::Reverse(point.created));
            other = Some(Other { repo: repo.clone(), points, last: None, known: HashMap::new(), known_for: None });
        }
        Ok(Self { repo: repo.clone(), other, living: sources.living.clone() })
    }

    /// Looks for a blob everywhere; what is found need not be right, unless its identity says so.
    pub(super) async fn find(
        &mut self,
        blob: &BlobRef,
        lost: &LostBlob,
        seen: &Examined,
    ) -> Result<Option<(Bytes, Origin)>> {
        if let Some(other) = self.other.as_ref().filter(|other| other.repo.id() == self.repo.id())
            && let Some(plain) = unless_damaged(other.repo.read_blob(blob).await)?
        {
            return Ok(Some((plain, Origin::Other)));
        }
        if lost.kind == BlobKind::Page {
            return Ok(self.page(blob, lost, seen).await?.map(|plain| (plain, Origin::Other)));
        }
        if let Some(plain) = self.of_other(blob, lost).await? {
            return Ok(Some((plain, Origin::Other)));
        }
        let living = self.living.clone();
        for uses in groups(lost) {
            let mut assembly = Assembly::new(blob);
            for (place, offset, len, blob_offset) in uses.iter().filter_map(|found| as_bytes(found)) {
                assembly.add(blob_offset, len, read_living(&living, place, offset, len).await?);
            }
            if let Some(plain) = assembly.finish().filter(|plain| self.is(blob, plain)) {
                return Ok(Some((plain, Origin::Living)));
            }
        }
        Ok(None)
    }

    fn is(&self, blob: &BlobRef, plain: &[u8]) -> bool {
        self.repo.keys().identify(plain) == blob.id
    }

    /// Looks in the contents of the other repository: first for a blob of the same bytes at the same place, as copies have it, and then for
    /// the bytes, however they are cut there.
    async fn of_other(&mut self, blob: &BlobRef, lost: &LostBlob) -> Result<Option<Bytes>> {
        let Some(mut other) = self.other.take() else { return Ok(None) };
        let found = self.of_points(&mut other, blob, lost).await;
        self.other = Some(other);
        found
    }

    async fn of_points(&self, other: &mut Other, blob: &BlobRef, lost: &LostBlob) -> Result<Option<Bytes>> {
        for found in lost.uses.iter().take(TRIED_USES) {
            let Some((place, offset, ..)) = as_bytes(found) else { continue };
            for point in other.points_for(place) {
                if let Some(plain) = other.blob_at(&point, place, offset).await?.filter(|plain| self.is(blob, plain)) {
                    return Ok(Some(plain));
                }
            }
        }
        for uses in groups(lost) {
            let Some(first) = uses.first() else { continue };
            for point in other.points_for(first.place()) {
                let mut assembly = Assembly::new(blob);
                for (place, offset, len, blob_offset) in uses.iter().filter_map(|found| as_bytes(found)) {
                    assembly.add(blob_offset, len, other.read(&point, place, offset, len).await?);
                }
                if let Some(plain) = assembly.finish().filter(|plain| self.is(blob, plain)) {
                    return Ok(Some(plain));
                }
            }
        }
        Ok(None)
    }
}

/// Takes damage for nothing found.
pub(super) fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

fn as_bytes(found: &Use) -> Option<(&Place, u64, u32, u32)> {
    match found {
        Use::Bytes { place, offset, len, blob_offset } => Some((place.as_ref(), *offset, *len, *blob_offset)),
        Use::Page(_) => None,
    }
}

/// The uses by recovery point, because within one they are of one time; at the end all of them, because one point may use only a part.
fn groups(lost: &LostBlob) -> Vec<Vec<&Use>> {
    let of = |id: &PointId| lost.uses.iter().filter(|found| found.place().point == *id).collect();
    let mut groups: Vec<Vec<&Use>> = lost.points().iter().rev().map(of).collect();
    if groups.len() > 1 {
        groups.push(lost.uses.iter().collect());
    }
    groups
}

/// A blob that is put together from pieces.
struct Assembly {
    bytes: Vec<u8>,
    covered: BTreeSet<(u32, u32)>,
}

impl Assembly {
    fn new(blob: &BlobRef) -> Self {
        Self { bytes: vec![0; blob.plain_len as usize], covered: BTreeSet::new() }
    }

    fn add(&mut self, blob_offset: u32, len: u32, piece: Option<Vec<u8>>) {
        let Some(piece) = piece.filter(|piece| piece.len() == len as usize) else { return };
        let start = blob_offset as usize;
        if let Some(target) = self.bytes.get_mut(start..start + piece.len()) {
            target.copy_from_slice(&piece);
            self.covered.insert((blob_offset, blob_offset + len));
        }
    }

    /// The blob, if the pieces leave no gap.
    fn finish(self) -> Option<Bytes> {
        let mut end = 0;
        for (start, piece_end) in self.covered {
            if start > end {
                return None;
            }
            end = end.max(piece_end);
        }
        (end as usize == self.bytes.len()).then(|| Bytes::from(self.bytes))
    }
}

impl Other {
    /// The recovery points that may have what is at a place: the one of the same name first, then others with a content of that name.
    pub(super) fn points_for(&self, place: &Place) -> Vec<RecoveryPoint> {
        let Part::Root(name) = &place.part else { return self.same(place).cloned().collect() };
        let others = self.points.iter().filter(|point| point.id != place.point && point.root(name).is_some());
        self.same(place).chain(others).take(TRIED_POINTS).cloned().collect()
    }

    /// The recovery point of the same name.
    pub(super) fn same(&self, place: &Place) -> impl Iterator<Item = &RecoveryPoint> {
        self.points.iter().filter(move |point| point.id == place.point)
    }

    /// The bytes of the blob that covers an offset of a content.
    async fn blob_at(&mut self, point: &RecoveryPoint, place: &Place, offset: u64) -> Result<Option<Bytes>> {
        let found = self.extents_of(point, place).await?;
        let extents = self.extents(found, offset, 1).await?;
        match extents.first() {
            Some(extent) => unless_damaged(self.repo.read_blob(&extent.blob).await),
            None => Ok(None),
        }
    }

    /// Bytes of a content.
    async fn read(&mut self, point: &RecoveryPoint, place: &Place, offset: u64, len: u32) -> Result<Option<Vec<u8>>> {
        let found = self.extents_of(point, place).await?;
        if found.is_none() {
            return Ok(None);
        }
        let extents = self.extents(found, offset, len).await?;
        unless_damaged(extents::read(&self.repo, &(offset..offset.saturating_add(u64::from(len))), &extents).await)
    }

    /// The extents that cover some bytes.
    async fn extents(&self, found: Option<Found>, offset: u64, len: u32) -> Result<Vec<Extent>> {
        let span = offset..offset.saturating_add(u64::from(len));
        let touches = |extent: &Extent| extents::clip(extent, &span).is_some();
        match found {
            None => Ok(Vec::new()),
            Some(Found::Inline(extents)) => Ok(extents.into_iter().filter(touches).collect()),
            Some(Found::Table(table)) => {
                let entries = Reader::new(&self.repo, table).scan_covering(&offset.to_be_bytes());
                let mut entries = std::pin::pin!(entries);
                let mut found = Vec::new();
                while let Some(Some((key, value))) = unless_damaged(entries.try_next().await)? {
                    let Some(extent) = unless_damaged(extents::decode(&table, &key, &value))? else { break };
                    if extent.file_offset >= span.end {
                        break;
                    }
                    found.extend(Some(extent).filter(touches));
                }
                Ok(found)
            }
        }
    }

    async fn extents_of(&mut self, point: &RecoveryPoint, place: &Place) -> Result<Option<Found>> {
        let wanted = (point.id.clone(), place.clone());
        if let Some((last, found)) = &self.last
            && *last == wanted
        {
            return Ok(found.clone());
        }
        let found = unless_damaged(find_extents(&self.repo, point, place).await)?.flatten();
        self.last = Some((wanted, found.clone()));
        Ok(found)
    }
}

/// The content at a place in a recovery point.
pub(super) fn root_of<'a>(point: &'a RecoveryPoint, place: &Place) -> Option<&'a Root> {
    match &place.part {
        Part::Root(name) => point.root(name),
        Part::Objects | Part::Ledger => None,
    }
}

/// The extents of the file, the segment or the stream at a place.
async fn find_extents(repo: &Repository, point: &RecoveryPoint, place: &Place) -> Result<Option<Found>> {
    let Some(root) = root_of(point, place) else { return Ok(None) };
    let Some(key) = &place.within else {
        return Ok((root.kind == RootKind::Stream).then_some(Found::Table(root.table)));
    };
    let Some(value) = Reader::new(repo, root.table).get(key).await? else { return Ok(None) };
    let damaged = |what: crate::Malformed| -> Error { what.in_object(layout::point(&point.id)) };
    match root.kind {
        RootKind::Stream => Ok(None),
        RootKind::Volume => Ok(Some(Found::Table(Segment::decode(key, &value).map_err(damaged)?.extents))),
        RootKind::Tree => match Entry::decode(&value).map_err(damaged)?.kind {
            Kind::File(file) => Ok(Some(match file.content {
                Content::Extents(extents) => Found::Inline(extents),
                Content::Table(table) => Found::Table(table),
            })),
            _ => Ok(None),
        },
    }
}

/// Bytes of a living source; none where it does not have them.
async fn read_living(
    living: &BTreeMap<String, PathBuf>,
    place: &Place,
    offset: u64,
    len: u32,
) -> Result<Option<Vec<u8>>> {
    let Part::Root(name) = &place.part else { return Ok(None) };
    let Some(path) = living.get(name.as_ref()).cloned() else { return Ok(None) };
    let within = place.within.clone();
    background::run(move || {
        let file = match within.as_ref().filter(|key| key.len() != Segment::KEY_LEN || path.is_dir()) {
            Some(key) => tree::open_file(&path, &TreePath::from_key(key).ok()?),
            None => File::open(&path),
        };
        let mut bytes = vec![0; len as usize];
        file.ok()?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    })
    .await
}
