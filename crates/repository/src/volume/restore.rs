//! Filling an image or a device with a volume.
//!
//! An image is written under another name and gets its own when it is whole and synced, so that no half of one is taken for a volume. A
//! device has no other name: what it holds counts only when [`restore()`] has returned.
//!
//! A restore that goes on where another one ended believes nothing of what is there: it reads it, and what has the id that it should have is not fetched again.

use super::image::is_zero;
use super::map::Map;
use super::{Error, Span, blobs_of, is_whole, span_len, span_of};
use crate::ids::BlobRef;
use crate::repository::Repository;
use crate::tree::entry::Extent;
use crate::{Counters, Progress, background, fetch, pack};
use futures::TryStreamExt;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Bytes of a volume that are filled at once. A blob that lies in several places of it is read once, so a longer one saves work.
const STRETCH_LEN: u64 = 32 << 20;
/// How many stretches are filled at once: while the last blobs of one come, the next is begun.
const STRETCHES: usize = 2;
/// Bytes of zeros that are written at once where a device cannot be told to have zeros.
const ZEROS_LEN: usize = 1 << 20;
/// What the name of an image ends with until it is whole.
const UNFINISHED: &str = ".orlop-unfinished";

/// How a volume is restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Whether an image that is there is replaced. A device always is.
    pub replace: bool,
    /// Whether what the target has already is kept and not fetched again, be it of an earlier restore that ended early or of another volume. An image that
    /// does not become whole is left for the next one.
    pub resume: bool,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

/// What was restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSummary {
    /// The size of the volume.
    pub bytes: u64,
    /// Bytes of it that are data; the rest are holes, or zeros.
    pub data_bytes: u64,
    /// Bytes of data that were there already, and not written.
    #[serde(default)]
    pub kept_bytes: u64,
}

/// Writes a volume or a stream to `target`: a device, or an image that is made. Every byte is verified before it is written, and all of it is
/// durable when this returns.
pub async fn restore(
    map: &Map,
    target: &Path,
    options: &RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<RestoreSummary, Error> {
    let (path, size, replace, resumes) = (target.to_owned(), map.size(), options.replace, options.resume);
    let target = Arc::new(background::run(move || Target::open(path, size, replace, resumes)).await??);
    progress.total(Counters { files: 1, bytes: size, new_bytes: 0 });
    match fill(map, &target, options, &progress).await {
        Ok(summary) => {
            background::run(move || target.finish()).await??;
            Ok(summary)
        }
        Err(error) => {
            background::run(move || target.abandon()).await?;
            Err(error)
        }
    }
}

async fn fill(
    map: &Map,
    target: &Arc<Target>,
    options: &RestoreOptions,
    progress: &Arc<dyn Progress>,
) -> Result<RestoreSummary, Error> {
    let mut summary = RestoreSummary { bytes: map.size(), ..RestoreSummary::default() };
    let (mut end, mut data_bytes) = (0, 0);
    let stretches = map.stretches(STRETCH_LEN).map_ok(|(span, extents)| {
        data_bytes += extents.iter().map(|extent| u64::from(extent.len)).sum::<u64>();
        let from = std::mem::replace(&mut end, span.end);
        let done = Counters { bytes: span.end - from, ..Counters::default() };
        let stretch = Stretch { from, end: span.end, extents };
        let (filled, progress) = (stretch.fill(map.repo.clone(), target.clone()), progress.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(filled));
        async move {
            let kept = task.await.map_err(|error| crate::Error::Interrupted(error.to_string()))??;
            progress.add(done);
            if options.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(kept) }
        }
    });
    let add = |sum: u64, kept: u64| std::future::ready(Ok::<_, Error>(sum + kept));
    summary.kept_bytes = stretches.try_buffer_unordered(STRETCHES).try_fold(0, add).await?;
    summary.data_bytes = data_bytes;
    let (target, from, size) = (target.clone(), end, map.size());
    background::run(move || target.zero(&(from..size))).await??;
    progress.add(Counters { files: 1, bytes: size - from, new_bytes: 0 });
    Ok(summary)
}

/// A part of a volume that is filled at once.
struct Stretch {
    /// Where it begins, or the holes before it.
    from: u64,
    end: u64,
    extents: Vec<Extent>,
}

impl Stretch {
    /// Writes every blob to where it belongs as soon as it is verified; what lies between becomes zeros. Gives how many bytes were there already.
    async fn fill(mut self, repo: Repository, target: Arc<Target>) -> Result<u64, Error> {
        let holes = self.holes();
        let zeroed = target.clone();
        background::run(move || holes.iter().try_for_each(|hole| zeroed.zero(hole))).await??;
        let all = self.len();
        if target.resumes {
            let (repo, target) = (repo.clone(), target.clone());
            self = background::run(move || self.lacking(&repo, &target)).await??;
        }
        let kept = all - self.len();
        let blobs = blobs_of(&self.extents);
        self.extents.sort_unstable_by_key(|extent| extent.blob);
        let take = move |blob: &BlobRef, plain: &[u8]| {
            let first = self.extents.partition_point(|extent| extent.blob < *blob);
            let mut extents = self.extents[first..].iter().take_while(|extent| extent.blob == *blob);
            extents.try_for_each(|extent| target.write(extent, plain))
        };
        fetch::fetch(&repo, blobs, take).await?;
        Ok(kept)
    }

    fn len(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.len)).sum()
    }

    /// The same without what the target has.
    fn lacking(mut self, repo: &Repository, target: &Target) -> Result<Self, Error> {
        let mut lacking = Vec::with_capacity(self.extents.len());
        let mut buffer = Vec::new();
        for extent in self.extents {
            if !target.has(&extent, repo, &mut buffer)? {
                lacking.push(extent);
            }
        }
        self.extents = lacking;
        Ok(self)
    }

    fn holes(&self) -> Vec<Span> {
        let ends = std::iter::once(self.from).chain(self.extents.iter().map(|extent| span_of(extent).end));
        let starts = self.extents.iter().map(|extent| extent.file_offset).chain([self.end]);
        ends.zip(starts).map(|(end, start)| end..start).filter(|hole| !hole.is_empty()).collect()
    }
}

struct Target {
    file: File,
    /// False when the restore has failed: nothing is written any more, whoever is still at work.
    is_open: RwLock<bool>,
    path: PathBuf,
    /// Where an image is until it is whole; a device is written in place.
    unfinished: Option<PathBuf>,
    /// What it has counts, and stays.
    resumes: bool,
}

impl Target {
    fn open(path: PathBuf, size: u64, replace: bool, resumes: bool) -> Result<Self, Error> {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.file_type().is_block_device() => return Self::open_device(path, size, resumes),
            Ok(metadata) if !metadata.is_file() => return Err(Error::NotAnImage { path }),
            Ok(_) if !(replace || resumes) => return Err(Error::TargetExists { path }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::image("look at", &path)(error)),
        }
        let mut name = path.as_os_str().to_owned();
        name.push(UNFINISHED);
        let unfinished = PathBuf::from(name);
        if resumes && !unfinished.exists() {
            // One that is whole may have most of it, such as the image of a day before.
            match fs::rename(&path, &unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::image("take its name from", &path)(error));
                }
                _ => {}
            }
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(!resumes);
        let file = options.open(&unfinished).map_err(Error::image("make", &unfinished))?;
        let target = Self { file, is_open: RwLock::new(true), path, unfinished: Some(unfinished), resumes };
        if let Err(error) = target.file.set_len(size) {
            target.abandon();
            return Err(Error::image("set the length of", &target.path)(error));
        }
        target.forget_cached()?;
        Ok(target)
    }

    fn open_device(path: PathBuf, needed: u64, resumes: bool) -> Result<Self, Error> {
        let mut file = File::options().read(resumes).write(true).open(&path).map_err(Error::image("open", &path))?;
        let found = file.seek(SeekFrom::End(0)).map_err(Error::image("find the size of", &path))?;
        if found < needed {
            return Err(Error::TargetTooSmall { path, found, needed });
        }
        let target = Self { file, is_open: RwLock::new(true), path, unfinished: None, resumes };
        target.forget_cached()?;
        Ok(target)
    }

    /// What is there is to be read from the disk: after a write that failed, the cache has what the disk has not.
    fn forget_cached(&self) -> Result<(), Error> {
        if !self.resumes {
            return Ok(());
        }
        self.file.sync_data().map_err(Error::image("sync", &self.path))?;
        match rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(Error::image("read afresh", &self.path)(error.into())),
        }
    }

    /// Whether an extent is there. Of a piece of a blob nobody knows without the rest; zeros are never stored, and need not be hashed.
    fn has(&self, extent: &Extent, repo: &Repository, buffer: &mut Vec<u8>) -> Result<bool, Error> {
        if !is_whole(extent) || pack::check_lengths(&extent.blob).is_err() {
            return Ok(false);
        }
        buffer.resize(extent.len as usize, 0);
        self.file.read_exact_at(buffer, extent.file_offset).map_err(Error::image("read", &self.path))?;
        Ok(!is_zero(buffer) && repo.keys().identify(buffer) == extent.blob.id)
    }

    /// Writes an extent, which the map has found to lie within its blob.
    fn write(&self, extent: &Extent, blob: &[u8]) -> Result<(), Error> {
        let _writing = self.writing()?;
        let bytes = &blob[extent.blob_offset as usize..][..extent.len as usize];
        self.file.write_all_at(bytes, extent.file_offset).map_err(Error::image("write", &self.path))
    }

    /// Makes a span zeros; in a new image it is a hole already.
    fn zero(&self, span: &Span) -> Result<(), Error> {
        let is_new = self.unfinished.is_some() && !self.resumes;
        if is_new || span.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let writing = self.writing()?;
        match rustix::fs::fallocate(&self.file, flags, span.start, span_len(span)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                drop(writing);
                self.write_zeros(span)
            }
            Err(error) => Err(Error::image("write zeros to", &self.path)(error.into())),
        }
    }

    fn write_zeros(&self, span: &Span) -> Result<(), Error> {
        let zeros = vec![0; ZEROS_LEN];
        let mut at = span.start;
        while at < span.end {
            let _writing = self.writing()?;
            let len = usize::try_from(span.end - at).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
            self.file.write_all_at(&zeros[..len], at).map_err(Error::image("write zeros to", &self.path))?;
            at += len as u64;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::image("sync", &self.path))?;
        let Some(unfinished) = &self.unfinished else { return Ok(()) };
        fs::rename(unfinished, &self.path).map_err(Error::image("give its name to", &self.path))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::image("sync the folder", folder))
    }

    /// Leave to write, for as long as it is kept.
    fn writing(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let is_open = self.is_open.read().unwrap_or_else(PoisonError::into_inner);
        if *is_open { Ok(is_open) } else { Err(Error::Cancelled) }
    }

    /// Waits for what is being written, and lets nothing more be: whoever asked for the restore may use the target again. Takes an image away that did
    /// not become whole, unless the next restore is to go on with it; what was written to a device stays.
    fn abandon(&self) {
        *self.is_open.write().unwrap_or_else(PoisonError::into_inner) = false;
        if let Some(unfinished) = &self.unfinished
            && !self.resumes
            && let Err(error) = fs::remove_file(unfinished)
        {
            tracing::warn!(path = %unfinished.display(), %error, "an unfinished image stays behind");
        }
    }
}
