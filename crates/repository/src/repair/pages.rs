//! Making lost pages again from a copy of their recovery point.
//!
//! A page refers to packs of its own repository, so a copy does not have it. But the copy has the entries: with the references put back to
//! where the blobs of these bytes are here, by the index, they make the same page. Whether it is the same, its identity says.

use super::places::{Other, Places, root_of, unless_damaged};
use crate::background;
use crate::check::Examined;
use crate::check::lost::{LostBlob, PageUse, Part, Place, Use};
use crate::error::Result;
use crate::ids::{BlobId, BlobRef, PackId, PointId, TableRef, WriterId};
use crate::index;
use crate::layout;
use crate::point::RecoveryPoint;
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{Reader, Rebuild};
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::pin::Pin;

/// How many blobs of the other repository are remembered with their places here, at 140 bytes each.
const KNOWN_BLOBS: usize = 1 << 16;
/// How many uses of a page are tried.
const TRIED_USES: usize = 4;

impl Places {
    /// Makes a lost page again.
    pub(super) async fn page(&mut self, blob: &BlobRef, lost: &LostBlob, seen: &Examined) -> Result<Option<Bytes>> {
        let Some(mut other) = self.other.take() else { return Ok(None) };
        let found = self.page_of(&mut other, blob, lost, seen).await;
        self.other = Some(other);
        found
    }

    async fn page_of(
        &self,
        other: &mut Other,
        blob: &BlobRef,
        lost: &LostBlob,
        seen: &Examined,
    ) -> Result<Option<Bytes>> {
        for found in lost.uses.iter().take(TRIED_USES) {
            let Use::Page(page) = found else { continue };
            let PageUse { place, table, values, level, bounds } = &**page;
            let Some(copy) = other.same(place).next().cloned() else { continue };
            let Some(theirs) = unless_damaged(table_at(&other.repo, &copy, place).await)?.flatten() else { continue };
            if theirs.height < *level || theirs.entries != table.entries {
                continue;
            }
            let range = (bounds.first_key().unwrap_or_default(), bounds.end_key());
            for own_first in [true, false] {
                let likely = Likely::new(seen, &place.point, own_first);
                let mut translator = Translator::new(&self.repo, other, likely);
                let made = unless_damaged(translator.page(theirs, *values, *level, range).await)?.flatten();
                if let Some(page) = made.filter(|page| self.repo.keys().identify(page) == blob.id) {
                    return Ok(Some(page));
                }
            }
        }
        Ok(None)
    }
}

/// The table at a place in a recovery point.
async fn table_at(repo: &Repository, point: &RecoveryPoint, place: &Place) -> Result<Option<TableRef>> {
    let (table, values) = match &place.part {
        Part::Objects => (point.objects, Values::Plain),
        Part::Ledger => (point.ledger, Values::Plain),
        Part::Root(_) => match root_of(point, place) {
            Some(root) => (Some(root.table), Values::of_root(root.kind)),
            None => (None, Values::Plain),
        },
    };
    let (Some(table), Some(key)) = (table, &place.within) else { return Ok(table) };
    let Some(value) = Reader::new(repo, table).get(key).await? else { return Ok(None) };
    let found = references::of(values, key, &value).map_err(|what| what.in_object(layout::point(&point.id)))?;
    Ok(found.tables.first().map(|(table, _)| *table))
}

/// Which of several places of a blob a page is likely to refer to. It was written by the backup of a recovery point, which knew the packs of
/// its own session and of earlier ones, and never those of a repair.
struct Likely<'a> {
    point: PointId,
    own_first: bool,
    own: HashSet<PackId>,
    published: HashSet<PackId>,
    repairs: &'a BTreeSet<WriterId>,
}

impl<'a> Likely<'a> {
    fn new(seen: &'a Examined, point: &PointId, own_first: bool) -> Self {
        let packs = |of: &RecoveryPoint| of.packs.iter().map(|pack| pack.id).collect::<Vec<_>>();
        let own = seen.points.iter().filter(|other| other.id == *point).flat_map(packs).collect();
        let published = seen.points.iter().flat_map(packs).collect();
        Self { point: point.clone(), own_first, own, published, repairs: seen.survey.repairs() }
    }

    /// The less, the likelier.
    fn rank(&self, pack: &PackId) -> u8 {
        match (self.own.contains(pack), self.published.contains(pack)) {
            (true, _) if self.own_first => 0,
            (false, true) => 1,
            (true, _) => 2,
            (false, false) if !self.repairs.contains(&pack.writer) => 3,
            (false, false) => 4,
        }
    }
}

/// Turns entries of the other repository into those of this one.
struct Translator<'a> {
    repo: &'a Repository,
    other: &'a mut Other,
    likely: Likely<'a>,
}

type Making<'b, T> = Pin<Box<dyn Future<Output = Result<Option<T>>> + Send + 'b>>;

impl<'a> Translator<'a> {
    fn new(repo: &'a Repository, other: &'a mut Other, likely: Likely<'a>) -> Self {
        let known_for = Some((likely.point.clone(), likely.own_first));
        if other.known_for != known_for {
            other.known.clear();
            other.known_for = known_for;
        }
        Self { repo, other, likely }
    }

    /// Makes the page of `level` over a range of keys; none if something of it is not known here.
    fn page<'b>(
        &'b mut self,
        table: TableRef,
        values: Values,
        level: u8,
        (first, end): (&'b [u8], Option<&'b [u8]>),
    ) -> Making<'b, Bytes> {
        Box::pin(async move {
            let mut page = Rebuild::new(level);
            let mut entries = std::pin::pin!(Reader::new(&self.other.repo, table).scan(first));
            while let Some((key, value)) = entries.try_next().await? {
                if end.is_some_and(|end| key.as_ref() >= end) {
                    break;
                }
                let Some(value) = self.value(&table, values, &key, &value).await? else { return Ok(None) };
                if self.push(&mut page, 0, key, value).await?.is_none() {
                    return Ok(None);
                }
            }
            for level in 0..page.levels() - 1 {
                let Some(below) = page.end(level) else { continue };
                let Some(place) = self.place_of(&below.bytes).await? else { return Ok(None) };
                if self.push(&mut page, level + 1, below.first_key, place.encode().to_vec()).await?.is_none() {
                    return Ok(None);
                }
            }
            Ok(Some(page.finish()))
        })
    }

    /// Adds an entry, and for each page that ends with it one to the level above.
    async fn push(&mut self, page: &mut Rebuild, level: usize, key: Bytes, value: Vec<u8>) -> Result<Option<()>> {
        let mut pending = VecDeque::from([(level, key, value)]);
        while let Some((level, key, value)) = pending.pop_front() {
            for below in page.push(level, &key, &value) {
                let Some(place) = self.place_of(&below.bytes).await? else { return Ok(None) };
                pending.push_back((below.level + 1, below.first_key, place.encode().to_vec()));
            }
        }
        Ok(Some(()))
    }

    /// The value with the references of this repository.
    async fn value(&mut self, table: &TableRef, values: Values, key: &Bytes, value: &Bytes) -> Result<Option<Vec<u8>>> {
        let damaged = |what: crate::Malformed| -> crate::Error { what.in_object(layout::pack(&table.root.pack)) };
        let found = references::of(values, key, value).map_err(damaged)?;
        let (mut blobs, mut tables) = (Vec::new(), Vec::new());
        for blob in &found.blobs {
            let Some(here) = self.blob(blob).await? else { return Ok(None) };
            blobs.push(here);
        }
        for (nested, values) in found.tables {
            let Some(root) = self.page(nested, values, nested.height, (&[], None)).await? else { return Ok(None) };
            let Some(root) = self.place_of(&root).await? else { return Ok(None) };
            tables.push(TableRef { root, ..nested });
        }
        references::replace(values, key, value, blobs.into_iter(), tables.into_iter()).map(Some).map_err(damaged)
    }

    /// Where the blob with the same bytes is here.
    async fn blob(&mut self, theirs: &BlobRef) -> Result<Option<BlobRef>> {
        if let Some(known) = self.other.known.get(theirs) {
            return Ok(*known);
        }
        let plain = self.other.repo.read_blob(theirs).await?;
        let here = self.place_of(&plain).await?;
        if self.other.known.len() >= KNOWN_BLOBS {
            self.other.known.clear();
        }
        self.other.known.insert(*theirs, here);
        Ok(here)
    }

    /// Where this repository has, or had, these bytes.
    async fn place_of(&self, plain: &Bytes) -> Result<Option<BlobRef>> {
        let (repo, plain) = (self.repo.clone(), plain.clone());
        let id: BlobId = background::run(move || repo.keys().identify(&plain)).await?;
        let places = index::find(self.repo, &id).await?;
        Ok(places.into_iter().min_by_key(|place| self.likely.rank(&place.pack)))
    }
}
