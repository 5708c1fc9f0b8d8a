//! What differs between two states of a volume or of a stream.

use super::bytes::{self, Side};
use crate::Error;
use crate::error::Result;
use crate::ids::TableRef;
use crate::layout;
use crate::point::{Root, RootKind};
use crate::repository::Repository;
use crate::table;
use crate::volume::Segment;
use futures::TryStreamExt;
use std::ops::Range;

/// What differs in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeDifference {
    /// The size in the first recovery point.
    pub old_size: u64,
    /// The size in the second one.
    pub new_size: u64,
    /// Bytes in blocks that differ; what only one of them has differs where it is not zeros.
    pub bytes: u64,
    /// How many ranges were told.
    pub ranges: u64,
}

impl VolumeDifference {
    /// Whether both are the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.bytes == 0 && self.old_size == self.new_size
    }
}

/// Compares two states of a volume, or of a stream; tells every range that differs, in order, in steps of 4 KiB.
pub async fn volume(
    repo: &Repository,
    old: &Root,
    new: &Root,
    tell: &mut (dyn FnMut(Range<u64>) + Send),
) -> Result<VolumeDifference> {
    if old.kind != new.kind || old.kind == RootKind::Tree {
        return Err(Error::invalid(format!("{} is not the same kind of volume in both recovery points", new.name)));
    }
    let mut joined = Joined { found: VolumeDifference::default(), pending: None, tell };
    (joined.found.old_size, joined.found.new_size) = (old.bytes, new.bytes);
    if old.kind == RootKind::Stream {
        compare(repo, bytes::of_tables(repo, old.table, new.table), &mut joined).await?;
        return Ok(joined.finish());
    }
    let mut segments = std::pin::pin!(table::differences(repo, old.table, new.table));
    while let Some(difference) = segments.try_next().await? {
        let extents = |value: Option<::bytes::Bytes>, table: &TableRef| {
            let segment = value.map(|value| Segment::decode(&difference.key, &value)).transpose();
            segment.map_err(|what| what.in_object(layout::pack(&table.root.pack)))
        };
        let one = extents(difference.old.clone(), &old.table)?.map(|segment| segment.extents);
        let other = extents(difference.new.clone(), &new.table)?.map(|segment| segment.extents);
        let sides = match (one, other) {
            (Some(one), Some(other)) => bytes::of_tables(repo, one, other),
            (Some(one), None) => bytes::of_one(repo, one, Side::Old),
            (None, Some(other)) => bytes::of_one(repo, other, Side::New),
            (None, None) => continue,
        };
        compare(repo, sides, &mut joined).await?;
    }
    Ok(joined.finish())
}

async fn compare(repo: &Repository, sides: bytes::Sides, joined: &mut Joined<'_>) -> Result<()> {
    bytes::compare(repo, sides, |range| {
        joined.add(range);
        true
    })
    .await
}

/// Ranges that touch become one before they are told.
struct Joined<'a> {
    found: VolumeDifference,
    pending: Option<Range<u64>>,
    tell: &'a mut (dyn FnMut(Range<u64>) + Send),
}

impl Joined<'_> {
    fn add(&mut self, range: Range<u64>) {
        self.found.bytes += range.end - range.start;
        match &mut self.pending {
            Some(pending) if pending.end == range.start => pending.end = range.end,
            pending => {
                if let Some(done) = pending.replace(range) {
                    self.found.ranges += 1;
                    (self.tell)(done);
                }
            }
        }
    }

    fn finish(mut self) -> VolumeDifference {
        if let Some(done) = self.pending.take() {
            self.found.ranges += 1;
            (self.tell)(done);
        }
        self.found
    }
}
