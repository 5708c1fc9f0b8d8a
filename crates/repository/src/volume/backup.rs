//! Storing a volume.
//!
//! ```text
//!  plan: part by part ──► batches ──► execute (threads): read, hash, compress ──► packs, in order ──► table of the segment
//! ```
//!
//! Batches are worked on beside each other and used in order, so equal volumes give equal tables. A store that is slow holds up the packs,
//! these the batches, and these the reading.

use super::execute::{Batch, execute};
use super::image::Image;
use super::map::Map;
use super::plan::{Plan, Read};
use super::{Blobs, Changes, Error, SEGMENT_LEN, Segment, Span, span_len};
use crate::ids::TableRef;
use crate::pack::BlobKind;
use crate::table;
use crate::writer::Writer;
use crate::{Counters, Progress, background};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Batches under way for each core: while one waits for its turn to be put into a pack, the core has the next.
const BATCHES_PER_CORE: usize = 2;

/// The volume in an earlier recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its table.
    pub table: TableRef,
    /// Its size.
    pub size: u64,
}

/// How a volume is stored.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// What it is compared with.
    pub parent: Option<Parent>,
    /// What has changed since the parent; without it, everything is read.
    pub changes: Option<Changes>,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSummary {
    /// The table of segments.
    pub root: TableRef,
    /// The size of the volume.
    pub bytes: u64,
    /// Bytes that are not holes.
    pub data_bytes: u64,
    /// Bytes that were read from the volume.
    pub read_bytes: u64,
    /// Segments that were taken over from the parent as they are.
    pub kept_segments: u64,
    /// Segments that were in too many pieces and were stored anew.
    pub compacted_segments: u64,
}

/// Stores an image or a device.
///
/// The volume is in the repository for good only once the writer is finished. Whoever gives a list of changes answers for it: what it does
/// not name is taken from the parent without a look.
pub async fn backup(
    writer: &Writer,
    image: &Path,
    options: &BackupOptions,
    progress: Arc<dyn Progress>,
) -> Result<VolumeSummary, Error> {
    let path = image.to_owned();
    let image = Arc::new(background::run(move || Image::open(&path)).await??);
    let size = image.size();
    let changes = match (&options.changes, &options.parent) {
        (None, _) => None,
        (Some(_), None) => return Err(Error::NoParent),
        // What the volume has grown by is new, whether the list says so or not.
        (Some(changes), Some(parent)) if parent.size < size => Some(changes.clone().and(parent.size..size, size)),
        (Some(changes), Some(_)) => Some(changes.clone()),
    };
    progress.total(Counters { files: 1, bytes: changes.as_ref().map_or(size, Changes::bytes), new_bytes: 0 });
    let old = options.parent.map(|parent| Map::volume(writer.repository(), parent.table, parent.size));
    let segments = match &old {
        Some(old) => old.segments(),
        None => stream::empty().boxed(),
    };
    let table = match &options.parent {
        Some(parent) => table::Builder::with_parent(writer, &parent.table),
        None => table::Builder::new(writer),
    };
    let summary = VolumeSummary {
        root: TableRef::NOWHERE,
        bytes: size,
        data_bytes: 0,
        read_bytes: 0,
        kept_segments: 0,
        compacted_segments: 0,
    };
    let run = Run { writer, image, changes, old, progress, cancel: options.cancel.clone(), summary };
    run.all(segments, table).await
}

struct Run<'a> {
    writer: &'a Writer,
    image: Arc<Image>,
    changes: Option<Changes>,
    old: Option<Map>,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
    summary: VolumeSummary,
}

impl Run<'_> {
    async fn all(
        mut self,
        mut segments: BoxStream<'static, Result<Segment, Error>>,
        mut table: table::Builder,
    ) -> Result<VolumeSummary, Error> {
        let mut next_old = segments.try_next().await?;
        let count = self.image.size().div_ceil(SEGMENT_LEN);
        for number in 0..count {
            let number = u32::try_from(number).map_err(|_| Error::damaged("a volume has at most 4 EiB"))?;
            let here = next_old.take_if(|segment| segment.number == number);
            if here.is_some() {
                next_old = segments.try_next().await?;
            }
            if let Some(segment) = self.segment(number, here).await? {
                self.summary.data_bytes += segment.bytes;
                table.push(&segment.encode_key(), &segment.encode_value()).await?;
            }
        }
        self.summary.root = table.finish().await?;
        Ok(self.summary)
    }

    async fn segment(&mut self, number: u32, old: Option<Segment>) -> Result<Option<Segment>, Error> {
        let start = u64::from(number) * SEGMENT_LEN;
        let span = start..(start + SEGMENT_LEN).min(self.image.size());
        if self.is_unchanged(&span) {
            self.summary.kept_segments += u64::from(old.is_some());
            return Ok(old);
        }
        let read = match &self.changes {
            Some(changes) => {
                let compact = old.as_ref().is_some_and(Segment::is_scattered);
                self.summary.compacted_segments += u64::from(compact);
                Read::Changes { changes: changes.clone(), compact }
            }
            None => {
                let (image, span) = (self.image.clone(), span.clone());
                Read::All(background::run(move || image.parts_with_data(&span)).await??)
            }
        };
        self.write(number, span, read, old).await
    }

    /// Whether the entry of the parent can stand: nothing of the segment is named, and it ends where it did.
    fn is_unchanged(&self, span: &Span) -> bool {
        let (Some(changes), Some(old)) = (&self.changes, &self.old) else { return false };
        let old_end = (span.start + SEGMENT_LEN).min(old.size());
        old_end == span.end && changes.within(span).next().is_none()
    }

    async fn write(
        &mut self,
        number: u32,
        span: Span,
        read: Read,
        old: Option<Segment>,
    ) -> Result<Option<Segment>, Error> {
        let (old_extents, mut table) = match (&self.old, &old) {
            (Some(map), Some(segment)) => {
                (map.extents_of(segment), table::Builder::with_parent(self.writer, &segment.extents))
            }
            _ => (stream::empty().boxed(), table::Builder::new(self.writer)),
        };
        let holes = matches!(read, Read::All(_)).then_some(span_len(&span));
        let plan = Plan::new(span, read, old_extents);
        let (mut bytes, mut blobs) = (0, Blobs::default());
        let mut batches = self.batches(plan);
        let mut reported = 0;
        while let Some(mut batch) = batches.try_next().await? {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.summary.read_bytes += batch.bytes_read;
            reported += batch.bytes_read;
            self.progress.add(Counters { bytes: batch.bytes_read, ..Counters::default() });
            let placed = self.writer.append(BlobKind::Data, std::mem::take(&mut batch.blobs)).await?;
            for extent in batch.extents(&placed) {
                bytes += u64::from(extent.len);
                blobs.add(&extent.blob);
                table.push(&extent.encode_key(), &extent.encode_value()).await?;
            }
        }
        // Holes are done too.
        let holes = holes.map_or(0, |whole| whole - reported);
        self.progress.add(Counters { bytes: holes, ..Counters::default() });
        if bytes == 0 {
            return Ok(None);
        }
        Ok(Some(Segment { number, extents: table.finish().await?, bytes, read: blobs.bytes }))
    }

    /// The batches of a segment in order, several of them in work.
    ///
    /// Each is a task of its own: nobody looks at the stream while a batch is put into packs, and one that waited to be looked at would keep
    /// its worker from the pages that this needs.
    fn batches(&self, plan: Plan) -> BoxStream<'static, Result<Batch, Error>> {
        let planned = stream::try_unfold(plan, |mut plan| async move {
            let works = plan.batch().await?;
            Ok((!works.is_empty()).then_some((works, plan)))
        });
        let (image, writer) = (self.image.clone(), self.writer.clone());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        planned
            .map_ok(move |works| {
                let (image, writer) = (image.clone(), writer.clone());
                let task = AbortOnDropHandle::new(tokio::spawn(async move {
                    let worker = writer.clone();
                    writer.work(move || Ok(execute(&image, &worker, works))).await?
                }));
                async move { task.await.map_err(|error| crate::Error::Interrupted(error.to_string()))? }
            })
            .try_buffered(cores * BATCHES_PER_CORE)
            .boxed()
    }
}
