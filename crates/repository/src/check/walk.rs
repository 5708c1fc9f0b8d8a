//! Following everything that a recovery point refers to.

use super::findings::Findings;
use super::survey::Survey;
use super::told;
use crate::codec::Malformed;
use crate::directories::{Directories, Wrong};
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId, PointId, TableRef};
use crate::layout;
use crate::point::{RecoveryPoint, Root, RootKind};
use crate::progress::NoProgress;
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{self, Bounds, Page};
use crate::tree::{self, VerifyOptions};
use crate::volume;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A walk over recovery points.
pub(super) struct Walk<'a> {
    repo: &'a Repository,
    survey: &'a Survey,
    findings: &'a mut Findings,
    directories: Directories,
    pages: u64,
    references: u64,
}

/// A page to be read.
struct Visit {
    blob: BlobRef,
    level: u8,
    /// The keys that it may hold.
    bounds: Bounds,
    values: Values,
    /// Counts the entries of the table that the page belongs to.
    table: usize,
}

/// A table that is being walked.
struct Counted {
    expected: u64,
    seen: u64,
    /// Pages that may still be read: as many as a table with so many entries can have at most. A hostile one may refer to
    /// the same pages again and again.
    pages_left: u64,
    /// Whether all pages could be read, so that the count means something.
    whole: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(repo: &'a Repository, survey: &'a Survey, findings: &'a mut Findings) -> Self {
        Self { repo, survey, findings, directories: Directories::new(repo), pages: 0, references: 0 }
    }

    /// How many pages were read and references followed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.pages, self.references)
    }

    /// Follows everything from one recovery point, with a stack of its own: a table may hold further tables.
    pub(super) async fn follow(&mut self, point: &RecoveryPoint) -> Result<()> {
        for info in &point.packs {
            self.check_pack_len(&info.id, info.bytes, &point.id);
        }
        let (mut visits, mut tables) = (Vec::new(), Vec::new());
        for (table, values) in references::tables_of(point) {
            begin(table, values, &mut visits, &mut tables);
        }
        while let Some(visit) = visits.pop() {
            let table = &mut tables[visit.table];
            let Some(left) = table.pages_left.checked_sub(1) else {
                table.whole = false;
                let what = "a table has more pages than its entries need";
                self.findings.add(&layout::point(&point.id), what, Some(&point.id));
                continue;
            };
            table.pages_left = left;
            self.check_references(vec![visit.blob], &point.id).await?;
            match self.read_page(&visit).await {
                Ok(page) => self.follow_page(&page, &visit, &point.id, &mut visits, &mut tables).await?,
                Err(error) => {
                    tables[visit.table].whole = false;
                    let error = told(self.repo, error).await;
                    self.findings.add_error(&layout::pack(&visit.blob.pack), error, Some(&point.id))?;
                }
            }
        }
        for table in tables.iter().filter(|table| table.whole && table.seen != table.expected) {
            let what = format!("a table has {} entries instead of {}", table.seen, table.expected);
            self.findings.add(&layout::point(&point.id), &what, Some(&point.id));
        }
        for root in &point.roots {
            self.check_rules(root, &point.id).await?;
        }
        Ok(())
    }

    async fn read_page(&self, visit: &Visit) -> Result<Page> {
        let page = table::read_page(self.repo, &visit.blob, visit.level).await?;
        visit.bounds.check(&page, &visit.blob)?;
        Ok(page)
    }

    async fn follow_page(
        &mut self,
        page: &Page,
        visit: &Visit,
        point: &PointId,
        visits: &mut Vec<Visit>,
        tables: &mut Vec<Counted>,
    ) -> Result<()> {
        self.pages += 1;
        let malformed = |what: Malformed| what.in_object(layout::pack(&visit.blob.pack));
        if let Some(level) = visit.level.checked_sub(1) {
            for index in 0..page.len() {
                let bounds = visit.bounds.of_child(page, index);
                match page.child(index).map_err(malformed) {
                    Ok(blob) => visits.push(Visit { blob, level, bounds, values: visit.values, table: visit.table }),
                    Err(error) => self.findings.add_error("", error, Some(point))?,
                }
            }
            return Ok(());
        }
        tables[visit.table].seen += page.len() as u64;
        let mut blobs = Vec::new();
        for index in 0..page.len() {
            match references::of(visit.values, page.key(index), page.value(index)).map_err(malformed) {
                Ok(found) => {
                    blobs.extend(found.blobs);
                    for (table, values) in found.tables {
                        begin(table, values, visits, tables);
                    }
                }
                Err(error) => self.findings.add_error("", error, Some(point))?,
            }
        }
        self.check_references(blobs, point).await
    }

    /// Checks that packs are there and that their directories have the blobs.
    async fn check_references(&mut self, blobs: Vec<BlobRef>, point: &PointId) -> Result<()> {
        self.references += blobs.len() as u64;
        for (blob, wrong) in self.directories.check(blobs.clone()).await {
            match wrong {
                Wrong::Pack(error) => {
                    let error = told(self.repo, error).await;
                    self.findings.add_lost_directory(blob.pack, error)?;
                }
                Wrong::Blob(what) => self.findings.add(&layout::pack(&blob.pack), &what.to_string(), Some(point)),
            }
        }
        for blob in &blobs {
            self.findings.hit(blob, point);
        }
        Ok(())
    }

    /// Checks that the entries of a content keep the rules that a restore depends on.
    async fn check_rules(&mut self, root: &Root, point: &PointId) -> Result<()> {
        match self.broken_rule(root).await? {
            None => Ok(()),
            Some(Broken::Object(error)) => {
                let error = told(self.repo, error).await;
                self.findings.add_error(&layout::point(point), error, Some(point))
            }
            Some(Broken::Rule(what)) => {
                self.findings.add(&layout::point(point), &format!("{}: {what}", root.name), Some(point));
                Ok(())
            }
        }
    }

    async fn broken_rule(&self, root: &Root) -> Result<Option<Broken>> {
        let map = match root.kind {
            RootKind::Tree => {
                let options = VerifyOptions::default();
                return match tree::verify(self.repo, &root.table, None, &options, Arc::new(NoProgress)).await {
                    Ok(_) => Ok(None),
                    Err(tree::Error::Repository(error)) => Ok(Some(Broken::Object(error))),
                    Err(error @ tree::Error::Damaged { .. }) => Ok(Some(Broken::Rule(error.to_string()))),
                    Err(error) => Err(Error::Interrupted(error.to_string())),
                };
            }
            RootKind::Volume => volume::Map::volume(self.repo, root.table, root.bytes),
            RootKind::Stream => volume::Map::stream(self.repo, root.table, root.bytes),
        };
        match volume::check(&map, false, &CancellationToken::new()).await {
            Ok(()) => Ok(None),
            Err(volume::Error::Repository(error)) => Ok(Some(Broken::Object(error))),
            Err(error @ volume::Error::Damaged { .. }) => Ok(Some(Broken::Rule(error.to_string()))),
            Err(error) => Err(Error::Interrupted(error.to_string())),
        }
    }

    fn check_pack_len(&mut self, id: &PackId, expected: u64, point: &PointId) {
        let what = match self.survey.pack_len(id) {
            Some(len) if len == expected => return,
            Some(len) => format!("it has {len} bytes instead of {expected}"),
            None => "it is missing".to_owned(),
        };
        self.findings.add(&layout::pack(id), &what, Some(point));
    }
}

/// Why a content cannot be used.
enum Broken {
    /// An object of the repository is damaged or gone.
    Object(Error),
    /// What it holds breaks a rule of the format.
    Rule(String),
}

/// A page has at least one entry, except the root of an empty table; so each level has at most as many pages as there are
/// entries.
fn begin(table: TableRef, values: Values, visits: &mut Vec<Visit>, tables: &mut Vec<Counted>) {
    let pages_left = table.entries.max(1).saturating_mul(u64::from(table.height) + 1);
    tables.push(Counted { expected: table.entries, seen: 0, pages_left, whole: true });
    let bounds = Bounds::of_root();
    visits.push(Visit { blob: table.root, level: table.height, bounds, values, table: tables.len() - 1 });
}
