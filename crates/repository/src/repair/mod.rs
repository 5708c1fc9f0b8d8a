//! Repairing a repository: what is damaged or gone is taken from where its bytes still are, and is found through the index from then on.
//!
//! Nothing is overwritten. A blob that a recovery point needs, and that cannot be read from its pack, is stored again in a new pack; readers
//! that miss it where a reference says look it up in the index. What is stored counts only if its identity is the one that is wanted, so it
//! does not matter how doubtful a place is that gives bytes.
//!
//! 1. Every byte of every object is read, and every reference is followed: that is what a thorough check does.
//! 2. Packs that no whole index run names are read for their directories, and new runs name what they have ([`runs`]).
//! 3. Lost blobs are looked for: in their own pack, if only another part of it is damaged; in another repository and in living sources
//!    ([`places`], [`pages`]). What is found goes into new packs, which are read back.
//! 4. Where pages were among them, what lies below them could not be seen before, so 3 is done again.
//! 5. A damaged pack goes when nothing needs it any more, a damaged run when nothing is lost any more.
//!
//! The session of a repair has an object that keeps a collector from its packs ([`mark`]).
//!
//! A crash leaves packs and runs that say truly where blobs are, and after the last step fewer damaged objects; to repair again is right
//! after each.

pub(crate) mod mark;
mod pages;
mod places;
mod runs;

use crate::check::lost::{Lost, LostBlob};
use crate::check::{Examined, Finding, PartRead, examine};
use crate::codec::{Malformed, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BlobRef, PackId, PointId};
use crate::layout::{self, ObjectName, RunId};
use crate::progress::{NoProgress, Progress};
use crate::repository::Repository;
use crate::writer::Writer;
use bytes::Bytes;
use places::Places;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// How many times lost blobs are looked for, at most. Each time goes one level of pages further down, of which a volume has at most some ten; or
/// it goes on with what there was no room for in memory. A round that finds nothing is the last one in any case.
const MAX_ROUNDS: u32 = 1000;

/// Where bytes may be had from.
#[derive(Debug, Clone, Default)]
pub struct RepairSources {
    /// Another repository, with copies of the recovery points, or with backups of the same contents.
    pub from: Option<Repository>,
    /// Contents by their name in recovery points, and where they are: a folder, an image, a device.
    pub living: BTreeMap<String, PathBuf>,
}

/// How a repository is repaired.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Only find out what would be done; nothing is stored and nothing is deleted.
    pub dry_run: bool,
    /// Ends the work early.
    pub cancel: CancellationToken,
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Packs that no whole index run named, and that new runs name.
    pub packs_indexed: u64,
    /// Blobs that were whole in a pack that is damaged elsewhere, and were stored again.
    pub moved_blobs: u64,
    /// Blobs that were lost, and were found in the other repository.
    pub copied_blobs: u64,
    /// Blobs that were lost, and were found in a living source.
    pub living_blobs: u64,
    /// Plain bytes of all of these.
    pub bytes: u64,
    /// Damaged objects that were deleted, because nothing needs them any more.
    pub deleted: Vec<String>,
    /// Damaged objects that nothing needs, but which could not be deleted, and why.
    pub kept: Vec<(String, String)>,
    /// What is still wrong, with the recovery points that it hits.
    pub left: Vec<Finding>,
}

impl RepairReport {
    /// Whether nothing is wrong any more, or would be.
    pub fn is_whole(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether anything was done, or would be.
    pub fn is_nothing(&self) -> bool {
        let blobs = self.moved_blobs + self.copied_blobs + self.living_blobs;
        blobs + self.packs_indexed == 0 && self.deleted.is_empty()
    }
}

/// Repairs what can be repaired.
pub async fn repair(
    repo: &Repository,
    sources: &RepairSources,
    options: &RepairOptions,
    progress: &dyn Progress,
) -> Result<RepairReport> {
    let places = Places::new(repo, sources).await?;
    let mut work = Work { repo, places, options, report: RepairReport::default() };
    let mut lost = Lost::default();
    let mut seen = examine(repo, PartRead::All, progress, Some(&mut lost)).await?;
    let damaged_runs = std::mem::take(&mut seen.runs.damaged);
    if work.index(&seen).await? {
        (seen, lost) = work.look_again(&seen).await?;
    }
    let mut saved = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        saved = work.save(&lost, &seen).await?;
        if saved.is_empty() || options.dry_run {
            break;
        }
        (seen, lost) = work.look_again(&seen).await?;
    }
    lost.blobs.retain(|blob, _| !saved.contains(blob));
    work.clear_away(&seen, &lost, &damaged_runs).await?;
    work.tell_what_is_left(seen, &lost, &damaged_runs).await?;
    Ok(work.report)
}

/// What a repair writes.
struct Session {
    point: PointId,
    writer: Writer,
}

/// A repair under way.
struct Work<'a> {
    repo: &'a Repository,
    places: Places,
    options: &'a RepairOptions,
    report: RepairReport,
}

impl Work<'_> {
    /// Begins to write; the only place where a repair does. The session works for a recovery point that never will be.
    async fn begin(&self) -> Result<Session> {
        let token = crate::crypto::random::<16>().map_err(|what| Error::invalid(what.to_string()))?;
        let point: PointId =
            format!("repair-{}", to_hex(&token)).parse().map_err(|what: Malformed| Error::invalid(what.to_string()))?;
        let writer = self.repo.lone_writer(&point).await?;
        mark::put(self.repo, writer.session().writer).await?;
        Ok(Session { point, writer })
    }

    /// Ends a session: what it wrote is read back, and can be found; no collector waits for it any more.
    async fn end(&self, session: Session) -> Result<()> {
        let written = session.writer.finish().await?;
        self.repo.verify_packs(&written.packs).await?;
        self.repo.lookups().forget();
        match self.repo.forget(&session.point).await {
            // The tombstone tells that the session has ended; a collector deletes its object.
            Err(error) if error.kind() == ErrorKind::AccessDenied => Ok(()),
            forgotten => forgotten,
        }
    }

    /// Follows all references again, without reading packs again that were read.
    async fn look_again(&self, seen: &Examined) -> Result<(Examined, Lost)> {
        self.repo.lookups().forget();
        let mut damaged = seen.damaged.clone();
        // Whether one that is gone is missed is found out anew.
        let deleted = |id: &PackId| self.report.deleted.contains(&layout::pack(id));
        damaged.retain(|id| seen.survey.pack_len(id).is_some() && !deleted(id));
        let mut lost = Lost::default();
        let seen = examine(self.repo, PartRead::Before(damaged), &NoProgress, Some(&mut lost)).await?;
        Ok((seen, lost))
    }

    /// Names in new runs what no whole run names; gives whether there was such.
    async fn index(&mut self, seen: &Examined) -> Result<bool> {
        let mut session = None;
        for (pack, len) in seen.survey.packs_with_lens().filter(|(pack, _)| !seen.runs.packs.contains(pack)) {
            self.check_cancelled()?;
            let Some(entries) = runs::entries_of(self.repo, pack, len).await? else { continue };
            self.report.packs_indexed += 1;
            if !self.options.dry_run {
                if session.is_none() {
                    session = Some(self.begin().await?);
                }
                if let Some(session) = &session {
                    session.writer.name(entries).await?;
                }
            }
        }
        let Some(session) = session else { return Ok(false) };
        self.end(session).await?;
        Ok(true)
    }

    /// Looks for lost blobs and stores those that are found; gives which these are.
    async fn save(&mut self, lost: &Lost, seen: &Examined) -> Result<BTreeSet<BlobRef>> {
        let (mut saved, mut session) = (BTreeSet::new(), None);
        for (blob, lost) in &lost.blobs {
            self.check_cancelled()?;
            let Some((plain, origin)) = self.find(blob, lost, seen).await? else { continue };
            match origin {
                Origin::Here => self.report.moved_blobs += 1,
                Origin::Other => self.report.copied_blobs += 1,
                Origin::Living => self.report.living_blobs += 1,
            }
            self.report.bytes += u64::from(blob.plain_len);
            saved.insert(*blob);
            if self.options.dry_run {
                continue;
            }
            if session.is_none() {
                session = Some(self.begin().await?);
            }
            if let Some(session) = &session {
                session.writer.put_blob(lost.kind, plain).await?;
            }
        }
        if let Some(session) = session {
            self.end(session).await?;
        }
        Ok(saved)
    }

    /// The bytes of a blob, from wherever they are; only those that have its identity.
    async fn find(&mut self, blob: &BlobRef, lost: &LostBlob, seen: &Examined) -> Result<Option<(Bytes, Origin)>> {
        let found = match self.repo.read_blob(blob).await {
            Ok(plain) => Some((plain, Origin::Here)),
            Err(error) if error.is_damage() => self.places.find(blob, lost, seen).await?,
            Err(error) => return Err(error),
        };
        Ok(found.filter(|(plain, _)| self.repo.keys().identify(plain) == blob.id))
    }

    /// Deletes damaged objects that nothing needs; a blob that is still lost may be in such an object in part.
    async fn clear_away(&mut self, seen: &Examined, lost: &Lost, damaged_runs: &[RunId]) -> Result<()> {
        if lost.is_full() {
            return Ok(());
        }
        let needed: BTreeSet<_> = lost.blobs.keys().map(|blob| blob.pack).collect();
        let mut writers: BTreeSet<_> =
            seen.points.iter().flat_map(|point| &point.packs).map(|pack| pack.id.writer).collect();
        writers.extend(seen.survey.repairs());
        let packs = seen.damaged.ids().filter(|id| seen.survey.pack_len(id).is_some() && !needed.contains(id));
        // One of a session that no recovery point knows may be in use by a backup that is under way.
        let mut names: Vec<_> = packs.filter(|id| writers.contains(&id.writer)).map(|id| layout::pack(&id)).collect();
        names.sort_unstable();
        if lost.blobs.is_empty() {
            names.extend(damaged_runs.iter().map(layout::run));
        }
        for name in names {
            if self.options.dry_run {
                self.report.deleted.push(name);
                continue;
            }
            match self.repo.store().delete(&name).await.map_err(Error::from) {
                Ok(()) => self.report.deleted.push(name),
                Err(error) if matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::Locked) => {
                    self.report.kept.push((name, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn tell_what_is_left(&mut self, seen: Examined, lost: &Lost, damaged_runs: &[RunId]) -> Result<()> {
        let mut left = Vec::new();
        if self.options.dry_run {
            // Findings about packs and runs are told by what becomes of them.
            seen.tell(&mut |finding| {
                if !matches!(layout::parse(&finding.object), ObjectName::Pack(_) | ObjectName::Run(_)) {
                    left.push(finding);
                }
            });
            left.extend(nowhere(lost));
        } else {
            let (seen, _) = self.look_again(&seen).await?;
            seen.tell(&mut |finding| left.push(finding));
            let gone = |run: &&RunId| self.report.deleted.contains(&layout::run(run));
            let runs = damaged_runs.iter().filter(|run| !gone(run));
            left.extend(runs.map(|run| Finding {
                object: layout::run(run),
                what: "it is damaged, and stays while something is lost that it may still name".to_owned(),
                points: Vec::new(),
            }));
        }
        self.report.left = left;
        Ok(())
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.options.cancel.is_cancelled() {
            true => Err(Error::Interrupted("the repair was ended before it was complete; run it again".to_owned())),
            false => Ok(()),
        }
    }
}

/// What is lost for good, by pack.
fn nowhere(lost: &Lost) -> Vec<Finding> {
    let mut packs: BTreeMap<_, (u64, BTreeSet<PointId>)> = BTreeMap::new();
    for (blob, lost) in &lost.blobs {
        let (count, points) = packs.entry(blob.pack).or_default();
        *count += 1;
        points.extend(lost.points());
    }
    let finding = |(pack, (count, points)): (_, (u64, BTreeSet<PointId>))| Finding {
        object: layout::pack(&pack),
        what: format!("blobs of it that are found nowhere: {count}"),
        points: points.into_iter().collect(),
    };
    packs.into_iter().map(finding).collect()
}

/// Where a blob was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// In the repository itself, in a pack of which something else is damaged.
    Here,
    /// In the other repository.
    Other,
    /// In a living source.
    Living,
}
