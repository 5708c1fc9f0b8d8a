//! Following everything that recovery points refer to, and checking it against the rules that a restore depends on.
//!
//! A page that was found to be clean with everything below it is not read again, whichever recovery point has it. One below which
//! something is wrong is, so that each recovery point that it hits is known.

mod links;
mod losses;
mod reach;

use self::reach::Elsewhere;
use super::findings::Findings;
use super::lost::{Lost, Part, Place};
use super::rules::{Extents, Found, Rules};
use super::seen::{Clean, Seen};
use super::survey::Survey;
use super::told;
use crate::codec::Malformed;
use crate::directories::Directories;
use crate::error::Result;
use crate::ids::{BlobId, BlobRef, PackId, TableRef};
use crate::layout;
use crate::point::{RecoveryPoint, RootKind};
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{self, Bounds, Page};
use crate::tree::Places;
use crate::tree::entry::Extent;
use crate::volume::{Blobs, Segment};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{HashMap, VecDeque};
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
    elsewhere: HashMap<(BlobId, PackId), Elsewhere>,
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
            self.check_pack_len(&info.id, info.bytes);
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
