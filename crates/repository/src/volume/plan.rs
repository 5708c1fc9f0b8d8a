//! What is to be done for each part of a segment: taken over, read as a whole, or read in pieces.

use super::map::Extents;
use super::{Changes, Error, PART_LEN, Span, common, is_whole, piece, span_len, span_of};
use crate::ids::BlobRef;
use crate::tree::entry::Extent;
use futures::TryStreamExt;

/// Bytes that are read from the volume for one batch: enough for a thread not to be a burden, and few enough for several batches to be
/// under way in some MiB.
const BATCH_LEN: u64 = 1 << 20;
/// Most pieces of work in a batch, so that one that takes over much and reads little ends too.
const BATCH_WORKS: usize = 4096;

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// The parent has it, and it is unchanged.
    Keep(Extent),
    /// Read all of a part; perhaps it is still what the parent has there.
    Part { span: Span, known: Option<BlobRef> },
    /// Read a few blocks of a part.
    Blocks(Span),
}

/// What is read of a segment.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// All parts that hold data.
    All(Vec<bool>),
    /// What has changed.
    Changes {
        changes: Changes,
        /// Read parts as a whole that are in pieces.
        compact: bool,
    },
}

/// The work for one segment, part by part.
pub(super) struct Plan {
    span: Span,
    read: Read,
    next: u64,
    old: Extents,
    /// An extent of the parent that is not used up.
    pending: Option<Extent>,
}

impl Plan {
    /// `old` are the extents that the parent has of the segment; none without a parent.
    pub(super) fn new(span: Span, read: Read, old: Extents) -> Self {
        Self { next: span.start, span, read, old, pending: None }
    }

    /// The next work, in order; empty at the end of the segment.
    pub(super) async fn batch(&mut self) -> Result<Vec<Work>, Error> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while self.next < self.span.end && bytes < BATCH_LEN && batch.len() < BATCH_WORKS {
            let part = self.next..(self.next + PART_LEN).min(self.span.end);
            let old = self.old_pieces(&part).await?;
            let index = usize::try_from((part.start - self.span.start) / PART_LEN).expect("a segment has 16,384 parts");
            self.next = part.end;
            let first_new = batch.len();
            match &self.read {
                Read::All(with_data) if with_data[index] => batch.push(whole(part, &old)),
                Read::All(_) => {}
                Read::Changes { changes, compact } => {
                    batch.extend(changed(part.clone(), changes.within(&part).collect(), old, *compact));
                }
            }
            bytes += batch[first_new..].iter().map(Work::reads).sum::<u64>();
        }
        Ok(batch)
    }

    /// The pieces of the parent's extents that lie in a part.
    async fn old_pieces(&mut self, part: &Span) -> Result<Vec<Extent>, Error> {
        let mut pieces = Vec::new();
        loop {
            let extent = match self.pending.take() {
                Some(extent) => extent,
                None => match self.old.try_next().await? {
                    Some(extent) => extent,
                    None => return Ok(pieces),
                },
            };
            let span = span_of(&extent);
            let here = common(&span, part);
            if !here.is_empty() {
                pieces.push(piece(&extent, &here));
            }
            if span.end > part.end {
                let rest = span.start.max(part.end)..span.end;
                self.pending = Some(piece(&extent, &rest));
                return Ok(pieces);
            }
        }
    }
}

impl Work {
    /// Bytes that are read from the volume for it.
    fn reads(&self) -> u64 {
        match self {
            Self::Keep(_) => 0,
            Self::Part { span, .. } | Self::Blocks(span) => span_len(span),
        }
    }
}

fn whole(part: Span, old: &[Extent]) -> Work {
    let known = match old {
        [only] if is_whole(only) && span_of(only) == part => Some(only.blob),
        _ => None,
    };
    Work::Part { span: part, known }
}

/// The work for a part of which `runs` have changed.
fn changed(part: Span, runs: Vec<Span>, old: Vec<Extent>, compact: bool) -> Vec<Work> {
    let in_pieces = old.len() > 1 || old.iter().any(|extent| !is_whole(extent));
    if runs == [part.clone()] || (compact && (in_pieces || !runs.is_empty())) {
        return vec![whole(part, &old)];
    }
    let mut works: Vec<Work> = old.iter().flat_map(|extent| unchanged(extent, &runs)).map(Work::Keep).collect();
    works.extend(runs.into_iter().map(Work::Blocks));
    works.sort_by_key(|work| match work {
        Work::Keep(extent) => extent.file_offset,
        Work::Part { span, .. } | Work::Blocks(span) => span.start,
    });
    works
}

/// What is left of an extent when some runs are taken out of it.
fn unchanged(extent: &Extent, runs: &[Span]) -> Vec<Extent> {
    let span = span_of(extent);
    let mut left = Vec::new();
    let mut start = span.start;
    for run in runs {
        let before = common(&(start..run.start.max(start)), &span);
        if !before.is_empty() {
            left.push(piece(extent, &before));
        }
        start = start.max(run.end);
    }
    let rest = common(&(start..span.end.max(start)), &span);
    if !rest.is_empty() {
        left.push(piece(extent, &rest));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlobId, PackId, WriterId};
    use futures::{StreamExt, stream};

    const BLOCK: u64 = super::super::BLOCK_LEN;

    fn blob(number: u8, plain_len: u64) -> BlobRef {
        let pack = PackId { epoch: 1, writer: WriterId([0; 12]), sequence: 0 };
        let plain_len = u32::try_from(plain_len).unwrap();
        BlobRef { id: BlobId([number; 32]), pack, offset: 40, stored_len: 20, plain_len }
    }

    fn extent(offset: u64, len: u64, blob_offset: u64, blob: BlobRef) -> Extent {
        let (len, blob_offset) = (u32::try_from(len).unwrap(), u32::try_from(blob_offset).unwrap());
        Extent { file_offset: offset, len, blob_offset, blob }
    }

    async fn works(old: Vec<Extent>, read: Read, parts: u64) -> Vec<Work> {
        let old = stream::iter(old.into_iter().map(Ok)).boxed();
        let mut plan = Plan::new(0..parts * PART_LEN, read, old);
        let mut all = Vec::new();
        loop {
            let batch = plan.batch().await.unwrap();
            if batch.is_empty() {
                return all;
            }
            all.extend(batch);
        }
    }

    fn changes(ranges: &[(u64, u64)], compact: bool) -> Read {
        Read::Changes { changes: Changes::new(ranges.iter().copied(), 1 << 30).unwrap(), compact }
    }

    #[tokio::test]
    async fn parts_with_data_are_read_and_compared_with_the_parents() {
        let same = extent(0, PART_LEN, 0, blob(1, PART_LEN));
        let pieces = extent(PART_LEN, BLOCK, 0, blob(2, BLOCK));
        let works = works(vec![same, pieces], Read::All(vec![true, true, false]), 3).await;
        assert_eq!(
            works,
            [
                Work::Part { span: 0..PART_LEN, known: Some(blob(1, PART_LEN)) },
                Work::Part { span: PART_LEN..2 * PART_LEN, known: None }
            ]
        );
    }

    #[tokio::test]
    async fn an_extent_is_cut_around_what_has_changed() {
        let old = blob(1, PART_LEN);
        let read = changes(&[(BLOCK, BLOCK), (3 * BLOCK, BLOCK)], false);
        let works = works(vec![extent(0, PART_LEN, 0, old)], read, 1).await;
        assert_eq!(
            works,
            [
                Work::Keep(extent(0, BLOCK, 0, old)),
                Work::Blocks(BLOCK..2 * BLOCK),
                Work::Keep(extent(2 * BLOCK, BLOCK, 2 * BLOCK, old)),
                Work::Blocks(3 * BLOCK..4 * BLOCK),
                Work::Keep(extent(4 * BLOCK, 12 * BLOCK, 4 * BLOCK, old)),
            ]
        );
    }

    #[tokio::test]
    async fn a_part_that_changed_as_a_whole_is_one() {
        let old = blob(1, PART_LEN);
        let works = works(vec![extent(PART_LEN, PART_LEN, 0, old)], changes(&[(0, 2 * PART_LEN)], false), 2).await;
        assert_eq!(works[0], Work::Part { span: 0..PART_LEN, known: None });
        assert_eq!(works[1], Work::Part { span: PART_LEN..2 * PART_LEN, known: Some(old) });
    }

    #[tokio::test]
    async fn compaction_reads_what_is_in_pieces_and_keeps_what_is_not() {
        let (a, b) = (blob(1, PART_LEN), blob(2, PART_LEN));
        let old = vec![extent(0, BLOCK, 0, a), extent(2 * BLOCK, BLOCK, 0, a), extent(PART_LEN, PART_LEN, 0, b)];
        let works = works(old, changes(&[(2 * PART_LEN, BLOCK)], true), 3).await;
        assert_eq!(
            works,
            [
                Work::Part { span: 0..PART_LEN, known: None },
                Work::Keep(extent(PART_LEN, PART_LEN, 0, b)),
                Work::Part { span: 2 * PART_LEN..3 * PART_LEN, known: None },
            ]
        );
    }

    #[tokio::test]
    async fn extents_of_other_writers_may_span_parts() {
        let long = blob(1, 4 * PART_LEN);
        let works = works(vec![extent(0, 4 * PART_LEN, 0, long)], changes(&[(PART_LEN, PART_LEN)], false), 4).await;
        assert_eq!(
            works,
            [
                Work::Keep(extent(0, PART_LEN, 0, long)),
                Work::Part { span: PART_LEN..2 * PART_LEN, known: None },
                Work::Keep(extent(2 * PART_LEN, PART_LEN, 2 * PART_LEN, long)),
                Work::Keep(extent(3 * PART_LEN, PART_LEN, 3 * PART_LEN, long)),
            ]
        );
    }
}
