//! Following everything that recovery points refer to, and checking it against the rules that a restore depends on.
//!
//! A page that was found to be clean with everything below it is not read again, whichever recovery point has it. One below which
//! something is wrong is, so that each recovery point that it hits is known.

use super::findings::Findings;
use super::lost::{Lost, Part, Place, Use};
use super::rules::{Extents, Found, Rules};
use super::seen::{Clean, Seen};
use super::survey::Survey;
use super::told;
use crate::codec::Malformed;
use crate::directories::{Directories, Wrong};
use crate::error::{Error, Result};
use crate::ids::{BlobId, BlobRef, PackId, PointId, TableRef};
use crate::index;
use crate::layout;
use crate::pack::BlobKind;
use crate::point::{RecoveryPoint, RootKind};
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{self, Bounds, Page};
use crate::tree::entry::{Content, Entry, Extent, Kind};
use crate::tree::{Places, TreePath};
use crate::volume::{Blobs, Segment};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;

/// How many pages are read ahead, at up to 256 KiB each.
const AHEAD: usize = 4;
/// How many pages are kept for looking up further names of files.
const KEPT_PAGES: usize = 16;
/// How many blobs are remembered that were looked for elsewhere, at 40 bytes each.
const KEPT_ANSWERS: usize = 1 << 18;

/// A walk over recovery points.
pub(super) struct Walk<'a> {
    repo: &'a Repository,
    survey: &'a Survey,
    findings: &'a mut Findings,
    /// What recovery points need and cannot have, if somebody wants to know.
    lost: Option<&'a mut Lost>,
    directories: Directories,
    seen: Seen,
    recent: VecDeque<(BlobRef, Page)>,
    elsewhere: HashMap<BlobId, bool>,
    pages: u64,
    references: u64,
}

/// A page to be read.
#[derive(Clone)]
struct Visit {
    blob: BlobRef,
    level: u8,
    /// The keys that it may hold.
    bounds: Bounds,
}

/// A table that is being walked.
struct Table {
    table: TableRef,
    values: Values,
    place: Place,
    rules: Rules,
    /// The sums that the entry of a segment gives for its extents.
    sums: Option<(u64, u64)>,
    seen: u64,
    /// Pages that may still be read: as many as a table with so many entries can have at most. A hostile one may refer to the same
    /// pages again and again.
    pages_left: u64,
    /// Whether all pages could be read, so that the count means something.
    whole: bool,
    /// Whether a rule was broken; the first one is told, and the others may follow from it.
    broken: bool,
}

type Walking<'b, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'b>>;

impl<'a> Walk<'a> {
    pub(super) fn new(
        repo: &'a Repository,
        survey: &'a Survey,
        findings: &'a mut Findings,
        lost: Option<&'a mut Lost>,
    ) -> Self {
        Self {
            repo,
            survey,
            findings,
            lost,
            directories: Directories::new(repo),
            seen: Seen::default(),
            recent: VecDeque::new(),
            elsewhere: HashMap::new(),
            pages: 0,
            references: 0,
        }
    }

    /// How many pages were read and references followed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.pages, self.references)
    }

    /// Follows everything from one recovery point.
    pub(super) async fn follow(&mut self, point: &RecoveryPoint) -> Result<()> {
        for info in &point.packs {
            self.check_pack_len(&info.id, info.bytes, &point.id);
        }
        let plain = [point.objects.map(|_| Part::Objects), point.ledger.map(|_| Part::Ledger)];
        let plain = plain.into_iter().flatten().map(|part| (part, Rules::None));
        let roots = point.roots.iter().map(|root| {
            let rules = match root.kind {
                RootKind::Tree => Rules::Tree(Places::default()),
                RootKind::Volume => Rules::Segments { size: root.bytes },
                RootKind::Stream => Rules::Extents(Extents::within((0, root.bytes), false)),
            };
            (Part::Root(root.name.as_str().into()), rules)
        });
        for ((table, values), (part, rules)) in references::tables_of(point).into_iter().zip(plain.chain(roots)) {
            let place = Place { point: point.id.clone(), part, within: None };
            self.table(Table::new(table, values, place, rules)).await?;
        }
        Ok(())
    }

    /// Walks a table; gives whether all of it is clean.
    fn table(&mut self, mut table: Table) -> Walking<'_, bool> {
        Box::pin(async move {
            let root = Visit { blob: table.table.root, level: table.table.height, bounds: Bounds::of_root() };
            let mut clean = self.page(&mut table, root, None).await?;
            if table.whole && table.seen != table.table.entries {
                clean = false;
                let what = format!("a table has {} entries instead of {}", table.seen, table.table.entries);
                self.findings.add(&layout::point(&table.place.point), &what, Some(&table.place.point));
            }
            if let (Some(sums), Rules::Extents(extents), true) =
                (table.sums, &table.rules, table.whole && !table.broken)
            {
                let found = (extents.bytes, extents.blobs.as_ref().map_or(0, |blobs| blobs.bytes));
                let known = self.seen.get(&table.table.root).is_some_and(|clean| clean.sums == Some(sums));
                if !known && found != sums {
                    clean = false;
                    self.break_rule(&mut table, "a segment has other sums than its extents");
                } else if clean && !known {
                    self.remember_sums(&table, sums);
                }
            }
            Ok(clean)
        })
    }

    fn remember_sums(&mut self, table: &Table, sums: (u64, u64)) {
        if let Some(mut clean) = self.seen.get(&table.table.root).cloned() {
            clean.sums = Some(sums);
            self.seen.insert(table.table.root, clean);
        }
    }

    /// Walks a page and everything below it; gives whether all of it is clean.
    fn page<'b>(&'b mut self, table: &'b mut Table, visit: Visit, read: Option<Result<Page>>) -> Walking<'b, bool> {
        Box::pin(async move {
            if self.pass(table, &visit) {
                return Ok(true);
            }
            let point = table.place.point.clone();
            let Some(left) = table.pages_left.checked_sub(1) else {
                table.whole = false;
                let what = "a table has more pages than its entries need";
                self.findings.add(&layout::point(&point), what, Some(&point));
                return Ok(false);
            };
            table.pages_left = left;
            let hit = !self.check_references(&[visit.blob], &point).await?.is_empty();
            let read = match read {
                Some(page) => page,
                None => read_page(self.repo.clone(), visit.clone()).await,
            };
            let page = match read.and_then(|page| visit.bounds.check(&page, &visit.blob).map(|()| page)) {
                Ok(page) => page,
                Err(error) => {
                    table.whole = false;
                    let error = told(self.repo, error).await;
                    self.findings.add_error(&layout::pack(&visit.blob.pack), error, Some(&point))?;
                    self.lose_page(table, &visit);
                    return Ok(false);
                }
            };
            if hit {
                self.lose_page(table, &visit);
            }
            self.pages += 1;
            self.keep(visit.blob, &page);
            let entry = Entered::new(table);
            let clean = match visit.level {
                0 => self.leaf(table, &page, &visit).await?,
                _ => self.children(table, &page, &visit).await?,
            };
            let clean = clean && !hit;
            if clean {
                self.remember(table, &visit, &page, entry);
            }
            Ok(clean)
        })
    }

    /// Goes past a page that is known to be clean.
    fn pass(&mut self, table: &mut Table, visit: &Visit) -> bool {
        let Some(clean) = self.seen.get(&visit.blob).filter(|clean| clean.values == table.values) else { return false };
        let is_root = visit.blob == table.table.root;
        let first = visit.bounds.first_key().unwrap_or_default();
        let passed = !table.broken && table.rules.pass(first, clean, table.sums.filter(|_| is_root));
        if passed {
            table.seen += clean.entries;
        }
        passed
    }

    fn remember(&mut self, table: &Table, visit: &Visit, page: &Page, entered: Entered) {
        let first = match (&table.rules, page.len()) {
            (Rules::Extents(_), 1..) => u64::from_be_bytes(page.key(0).try_into().unwrap_or_default()),
            _ => 0,
        };
        let (span, exit) = table.rules.exit(first, entered.bytes);
        let counted = matches!(&table.rules, Rules::Extents(extents) if extents.blobs.is_some());
        let blobs = (counted && visit.level == 0).then(|| blobs_of(page));
        let entries = table.seen - entered.seen;
        self.seen.insert(visit.blob, Clean { values: table.values, span, entries, exit, blobs, sums: None });
    }

    async fn children(&mut self, table: &mut Table, page: &Page, visit: &Visit) -> Result<bool> {
        let malformed = |what: Malformed| what.in_object(layout::pack(&visit.blob.pack));
        let mut clean = true;
        let mut visits = Vec::new();
        for index in 0..page.len() {
            match page.child(index).map_err(malformed) {
                Ok(blob) => {
                    visits.push(Visit { blob, level: visit.level - 1, bounds: visit.bounds.of_child(page, index) });
                }
                Err(error) => {
                    clean = false;
                    self.findings.add_error("", error, Some(&table.place.point))?;
                }
            }
        }
        let reads = visits.iter().map(|visit| {
            let needed = self.seen.get(&visit.blob).is_none().then(|| read_page(self.repo.clone(), visit.clone()));
            async move {
                match needed {
                    Some(read) => Some(read.await),
                    None => None,
                }
            }
        });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(AHEAD).boxed();
        for visit in visits {
            let read = reads.next().await.flatten();
            clean &= self.page(table, visit, read).await?;
        }
        Ok(clean)
    }

    async fn leaf(&mut self, table: &mut Table, page: &Page, visit: &Visit) -> Result<bool> {
        let point = table.place.point.clone();
        let malformed = |what: Malformed| what.in_object(layout::pack(&visit.blob.pack));
        table.seen += page.len() as u64;
        let (mut blobs, mut clean, mut again) = (Vec::new(), true, true);
        for index in 0..page.len() {
            let (key, value) = page.entry(index);
            match references::of(table.values, &key, &value).map_err(malformed) {
                Ok(found) => blobs.extend(found.blobs),
                Err(error) => {
                    clean = false;
                    self.findings.add_error("", error, Some(&point))?;
                    continue;
                }
            }
            if table.broken {
                clean &= self.nested_anyway(table, &key, &value).await?;
                continue;
            }
            match table.rules.entry(&key, &value) {
                Ok(Found::Nothing) => {}
                Ok(Found::Table(nested, values, rules)) => {
                    clean &= self.nested(table, (&key, &value), nested, values, rules).await?;
                }
                Ok(Found::Link(path, first)) => {
                    // Whether the first name is there depends on other pages.
                    again = false;
                    self.check_link(table, &path, &first).await?;
                }
                Err(what) => {
                    self.break_rule(table, &what);
                    clean &= self.nested_anyway(table, &key, &value).await?;
                }
            }
        }
        let hit = self.check_references(&blobs, &point).await?;
        if !hit.is_empty() {
            self.lose_extents(table, page, &hit);
        }
        Ok(clean && again && hit.is_empty() && !table.broken)
    }

    async fn nested(
        &mut self,
        table: &Table,
        (key, value): (&Bytes, &Bytes),
        nested: TableRef,
        values: Values,
        rules: Rules,
    ) -> Result<bool> {
        let place = Place { within: Some(key.clone()), ..table.place.clone() };
        let mut inner = Table::new(nested, values, place, rules);
        if table.values == Values::Segments {
            inner.sums = Segment::decode(key, value).ok().map(|segment| (segment.bytes, segment.read));
        }
        self.table(inner).await
    }

    /// Follows the tables of an entry that breaks a rule, or comes after one that does.
    async fn nested_anyway(&mut self, table: &Table, key: &Bytes, value: &Bytes) -> Result<bool> {
        let found = references::of(table.values, key, value).unwrap_or_default();
        for (nested, values) in found.tables {
            self.nested(table, (key, value), nested, values, Rules::None).await?;
        }
        Ok(false)
    }

    fn break_rule(&mut self, table: &mut Table, what: &str) {
        table.broken = true;
        let name = match &table.place.part {
            Part::Root(name) => format!("{name}: "),
            Part::Objects | Part::Ledger => String::new(),
        };
        let point = &table.place.point;
        self.findings.add(&layout::point(point), &format!("{name}{what}"), Some(point));
    }

    /// Another name must lead to the entry that has the content, directly.
    async fn check_link(&mut self, table: &mut Table, path: &TreePath, first: &TreePath) -> Result<()> {
        let found = match self.look_up(&table.table, first.as_key()).await {
            Ok(found) => found,
            // The page was, or will be, found to be damaged by the walk itself.
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = found.map(|value| Entry::decode(&value));
        let what = match entry {
            None => format!("its first name {first} is missing"),
            Some(Ok(Entry { kind: Kind::Directory | Kind::HardLink { .. }, .. })) => {
                format!("its first name {first} holds no content")
            }
            Some(_) => return Ok(()),
        };
        let error = crate::tree::Error::Damaged { path: path.to_string(), what };
        self.break_rule(table, &error.to_string());
        Ok(())
    }

    async fn look_up(&mut self, table: &TableRef, key: &[u8]) -> Result<Option<Bytes>> {
        let (mut blob, mut level) = (table.root, table.height);
        loop {
            let known = self.recent.iter().find(|(known, _)| *known == blob).map(|(_, page)| page.clone());
            let page = match known {
                Some(page) => page,
                None => {
                    let page = table::read_page(self.repo, &blob, level).await?;
                    self.keep(blob, &page);
                    page
                }
            };
            let Some(below) = level.checked_sub(1) else {
                let index = page.count_below(key);
                return Ok((index < page.len() && page.key(index) == key).then(|| page.entry(index).1));
            };
            blob = page.child(page.child_index(key)).map_err(|what| what.in_object(layout::pack(&blob.pack)))?;
            level = below;
        }
    }

    fn keep(&mut self, blob: BlobRef, page: &Page) {
        if self.recent.len() >= KEPT_PAGES {
            self.recent.pop_front();
        }
        self.recent.push_back((blob, page.clone()));
    }

    /// Checks that packs are there and that their directories have the blobs; gives those that can be read nowhere.
    async fn check_references(&mut self, blobs: &[BlobRef], point: &PointId) -> Result<HashSet<BlobRef>> {
        self.references += blobs.len() as u64;
        let mut blobs = blobs.to_vec();
        blobs.sort_unstable();
        blobs.dedup();
        let mut hit = HashSet::new();
        for (blob, wrong) in self.directories.check(blobs.clone()).await {
            let elsewhere = self.is_elsewhere(&blob).await?;
            match wrong {
                Wrong::Pack(error) => {
                    let error = told(self.repo, error).await;
                    let gone = matches!(error, Error::Missing { .. });
                    // That a pack is gone is no damage when everything that is needed of it is elsewhere.
                    if !(gone && elsewhere) {
                        self.findings.add_lost_directory(blob.pack, error)?;
                    }
                }
                Wrong::Blob(_) if elsewhere => {}
                Wrong::Blob(what) => self.findings.add(&layout::pack(&blob.pack), &what.to_string(), Some(point)),
            }
            if !elsewhere {
                hit.insert(blob);
            }
        }
        for blob in blobs {
            if self.findings.is_damaged(&blob) && !self.is_elsewhere(&blob).await? {
                self.findings.hit(&blob, point);
                hit.insert(blob);
            }
        }
        Ok(hit)
    }

    /// Whether a reader that cannot have a blob from its pack finds it whole in another one.
    async fn is_elsewhere(&mut self, blob: &BlobRef) -> Result<bool> {
        if let Some(known) = self.elsewhere.get(&blob.id) {
            return Ok(*known);
        }
        let mut found = false;
        for other in index::find(self.repo, &blob.id).await? {
            let differs = other.pack != blob.pack && other.plain_len == blob.plain_len;
            if differs && !self.findings.is_damaged(&other) && self.directories.check(vec![other]).await.is_empty() {
                found = true;
                break;
            }
        }
        if self.elsewhere.len() >= KEPT_ANSWERS {
            self.elsewhere.clear();
        }
        self.elsewhere.insert(blob.id, found);
        Ok(found)
    }

    fn check_pack_len(&mut self, id: &PackId, expected: u64, point: &PointId) {
        // One that is gone hits those who refer to a blob of it that is nowhere else.
        if let Some(len) = self.survey.pack_len(id).filter(|len| *len != expected) {
            let what = format!("it has {len} bytes instead of {expected}");
            self.findings.add(&layout::pack(id), &what, Some(point));
        }
    }

    fn lose_page(&mut self, table: &Table, visit: &Visit) {
        if let Some(lost) = &mut self.lost {
            let (level, bounds) = (visit.level, visit.bounds.clone());
            let (place, values) = (table.place.clone(), table.values);
            lost.add(visit.blob, BlobKind::Page, Use::Page { place, table: table.table, values, level, bounds });
        }
    }

    fn lose_extents(&mut self, table: &Table, page: &Page, hit: &HashSet<BlobRef>) {
        let Some(lost) = &mut self.lost else { return };
        for index in 0..page.len() {
            let (key, value) = page.entry(index);
            let (extents, within) = match table.values {
                Values::Extents => {
                    (Extent::decode(&key, &value).ok().into_iter().collect(), table.place.within.clone())
                }
                Values::TreeEntries => match Entry::decode(&value).map(|entry| entry.kind) {
                    Ok(Kind::File(file)) => match file.content {
                        Content::Extents(extents) => (extents, Some(key)),
                        Content::Table(_) => continue,
                    },
                    _ => continue,
                },
                Values::Plain | Values::Segments => continue,
            };
            for Extent { file_offset: offset, len, blob_offset, blob } in extents {
                if hit.contains(&blob) {
                    let place = Place { within: within.clone(), ..table.place.clone() };
                    lost.add(blob, BlobKind::Data, Use::Bytes { place, offset, len, blob_offset });
                }
            }
        }
    }
}

impl Table {
    /// A page has at least one entry, except the root of an empty table; so each level has at most as many pages as there are
    /// entries.
    fn new(table: TableRef, values: Values, place: Place, rules: Rules) -> Self {
        let pages_left = table.entries.max(1).saturating_mul(u64::from(table.height) + 1);
        Self { table, values, place, rules, sums: None, seen: 0, pages_left, whole: true, broken: false }
    }
}

/// Where a walk was when it came to a page.
struct Entered {
    seen: u64,
    bytes: u64,
}

impl Entered {
    fn new(table: &Table) -> Self {
        let bytes = if let Rules::Extents(extents) = &table.rules { extents.bytes } else { 0 };
        Self { seen: table.seen, bytes }
    }
}

async fn read_page(repo: Repository, visit: Visit) -> Result<Page> {
    table::read_page(&repo, &visit.blob, visit.level).await
}

/// The blobs of a leaf of extents, each once.
fn blobs_of(page: &Page) -> Box<[(u64, u32)]> {
    let extents = (0..page.len()).filter_map(|index| Extent::decode(page.key(index), page.value(index)).ok());
    let mut blobs: Vec<_> = extents.map(|extent| (Blobs::begin_of(&extent.blob), extent.blob.plain_len)).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs.into_boxed_slice()
}
