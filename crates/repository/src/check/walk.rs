//! Following everything that a recovery point refers to.

use super::findings::Findings;
use super::survey::Survey;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId, PointId, TableRef};
use crate::layout;
use crate::pack;
use crate::point::RecoveryPoint;
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{self, Page};
use std::collections::HashMap;
use std::sync::Arc;

/// How many entries of pack directories are kept in memory, at about 80 bytes each.
const MAX_KEPT_ENTRIES: usize = 1 << 18;

/// The blobs of a pack by their offsets; none if the pack cannot say.
type Directory = Option<HashMap<u32, BlobRef>>;

/// A walk over recovery points.
pub(super) struct Walk<'a> {
    repo: &'a Repository,
    survey: &'a Survey,
    findings: &'a mut Findings,
    directories: HashMap<PackId, Arc<Directory>>,
    kept_entries: usize,
    pages: u64,
    references: u64,
}

/// A page to be read.
struct Visit {
    blob: BlobRef,
    level: u8,
    values: Values,
    /// Counts the entries of the table that the page belongs to.
    table: usize,
}

/// A table that is being walked.
struct Counted {
    expected: u64,
    seen: u64,
    /// Whether all pages could be read, so that the count means something.
    whole: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(repo: &'a Repository, survey: &'a Survey, findings: &'a mut Findings) -> Self {
        Self { repo, survey, findings, directories: HashMap::new(), kept_entries: 0, pages: 0, references: 0 }
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
            self.check_reference(&visit.blob, &point.id).await?;
            match table::read_page(self.repo, &visit.blob, visit.level).await {
                Ok(page) => self.follow_page(&page, &visit, &point.id, &mut visits, &mut tables).await?,
                Err(error) => {
                    tables[visit.table].whole = false;
                    self.findings.add_error(&layout::pack(&visit.blob.pack), error, Some(&point.id))?;
                }
            }
        }
        for table in tables.iter().filter(|table| table.whole && table.seen != table.expected) {
            let what = format!("a table has {} entries instead of {}", table.seen, table.expected);
            self.findings.add(&layout::point(&point.id), &what, Some(&point.id));
        }
        Ok(())
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
                match page.child(index).map_err(malformed) {
                    Ok(blob) => visits.push(Visit { blob, level, values: visit.values, table: visit.table }),
                    Err(error) => self.findings.add_error("", error, Some(point))?,
                }
            }
            return Ok(());
        }
        tables[visit.table].seen += page.len() as u64;
        for index in 0..page.len() {
            match references::of(visit.values, page.key(index), page.value(index)).map_err(malformed) {
                Ok(found) => {
                    for blob in &found.blobs {
                        self.check_reference(blob, point).await?;
                    }
                    for (table, values) in found.tables {
                        begin(table, values, visits, tables);
                    }
                }
                Err(error) => self.findings.add_error("", error, Some(point))?,
            }
        }
        Ok(())
    }

    /// Checks that the pack is there and that its directory has the blob.
    async fn check_reference(&mut self, blob: &BlobRef, point: &PointId) -> Result<()> {
        self.references += 1;
        let directory = self.directory(&blob.pack).await?;
        self.findings.hit(blob, point);
        if let Some(blobs) = directory.as_ref()
            && blobs.get(&blob.offset) != Some(blob)
        {
            let what = format!("its directory does not have the blob at {} that is referred to", blob.offset);
            self.findings.add(&layout::pack(&blob.pack), &what, Some(point));
        }
        Ok(())
    }

    fn check_pack_len(&mut self, id: &PackId, expected: u64, point: &PointId) {
        let what = match self.survey.pack_len(id) {
            Some(len) if len == expected => return,
            Some(len) => format!("it has {len} bytes instead of {expected}"),
            None => "it is missing".to_owned(),
        };
        self.findings.add(&layout::pack(id), &what, Some(point));
    }

    /// The directory of a pack; damage that is met on the way is damage of the pack's structure.
    async fn directory(&mut self, id: &PackId) -> Result<Arc<Directory>> {
        if let Some(known) = self.directories.get(id) {
            return Ok(Arc::clone(known));
        }
        let directory = match self.read_directory(id).await {
            Ok(entries) => Some(entries.iter().map(|entry| (entry.blob.offset, entry.blob)).collect::<HashMap<_, _>>()),
            Err(what) => {
                self.findings.add_pack_damage(*id, vec![pack::PackDamage { what: what?, blob: None }]);
                None
            }
        };
        self.kept_entries += directory.as_ref().map_or(1, HashMap::len);
        if self.kept_entries > MAX_KEPT_ENTRIES {
            self.directories.clear();
            self.kept_entries = 0;
        }
        let directory = Arc::new(directory);
        self.directories.insert(*id, Arc::clone(&directory));
        Ok(directory)
    }

    /// Reads a directory; the inner result of the error tells damage from what ends the check.
    async fn read_directory(&self, id: &PackId) -> Result<Vec<pack::Entry>, Result<Malformed>> {
        let missing = || Ok(Malformed::new("it is missing"));
        let len = self.survey.pack_len(id).ok_or_else(missing)?;
        pack::read_directory(self.repo.store(), *id, len, self.repo.keys()).await.map_err(|error| match error {
            Error::Damaged { what, .. } => Ok(Malformed::new(what)),
            error => match error.kind() {
                crate::ErrorKind::NotFound => missing(),
                crate::ErrorKind::Damaged => Ok(Malformed::new(error.to_string())),
                _ => Err(error),
            },
        })
    }
}

fn begin(table: TableRef, values: Values, visits: &mut Vec<Visit>, tables: &mut Vec<Counted>) {
    tables.push(Counted { expected: table.entries, seen: 0, whole: true });
    visits.push(Visit { blob: table.root, level: table.height, values, table: tables.len() - 1 });
}
