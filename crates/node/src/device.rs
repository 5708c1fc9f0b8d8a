//! A volume or a snapshot of a pool as a block device.

use block::{
    ALLOCATION, BlockSizes, Buffer, CHANGED, ContextQuery, Description, Device, Done, Failure, FailureKind, Features,
    HOLE, Status, ZERO, ZeroMode,
};
use std::ops::Range;
use std::sync::Arc;
use volume::{BLOCK, Blocks, Extent, Page, Pool, Since, SnapshotId, State, VolumeId};

/// What comes before the name of a snapshot in the contexts that tell what has changed since.
pub const CHANGED_SINCE: &str = "orlop:changed-since=";
const BLOCK_BYTES: u64 = BLOCK as u64;
/// The longest request; also the store's own bound.
const LONGEST: u32 = 32 << 20;

/// Serves one state of a pool: a volume, or a snapshot read-only.
pub(crate) struct Stored {
    pool: Arc<Pool<Buffer>>,
    state: State,
    names: Arc<dyn SnapshotNames>,
}

/// Knows the snapshots that a device can be compared with, by the names that people know.
pub(crate) trait SnapshotNames: Send + Sync {
    /// The names of those that a state comes from, the oldest first.
    fn before(&self, state: State) -> Vec<String>;
    /// The one of this name.
    fn find(&self, state: State, name: &str) -> Option<SnapshotId>;
}

/// For a device that nobody compares with anything.
pub(crate) struct NoNames;

impl SnapshotNames for NoNames {
    fn before(&self, _state: State) -> Vec<String> {
        Vec::new()
    }

    fn find(&self, _state: State, _name: &str) -> Option<SnapshotId> {
        None
    }
}

impl Stored {
    pub(crate) fn new(pool: Arc<Pool<Buffer>>, state: State, names: Arc<dyn SnapshotNames>) -> Self {
        Self { pool, state, names }
    }

    fn volume(&self) -> Result<VolumeId, Failure> {
        match self.state {
            State::Volume(id) => Ok(id),
            State::Snapshot(_) => {
                Err(Failure::new(FailureKind::NotPermitted, "a snapshot does not change; clone it to write to it"))
            }
        }
    }

    fn blocks(&self) -> Option<u64> {
        match self.state {
            State::Volume(id) => {
                self.pool.volumes().into_iter().find(|volume| volume.id == id).map(|volume| volume.blocks)
            }
            State::Snapshot(id) => {
                self.pool.snapshots().into_iter().find(|snapshot| snapshot.id == id).map(|snapshot| snapshot.blocks)
            }
        }
    }

    fn forget(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        match (self.volume(), blocks(&range)) {
            (Ok(volume), Ok(blocks)) => self.pool.discard(volume, blocks, durable, answer(done)),
            (Err(failure), _) | (_, Err(failure)) => done.finish(Err(failure)),
        }
    }
}

impl Device for Stored {
    fn describe(&self) -> Result<Description, Failure> {
        let Some(count) = self.blocks() else { return Err(Failure::new(FailureKind::Io, "it was deleted")) };
        let write = matches!(self.state, State::Volume(_));
        let features = Features {
            write,
            flush: write,
            durable_writes: write,
            discard: write,
            write_zeroes: write,
            several_connections: true,
        };
        let blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum: LONGEST };
        Ok(Description { size: count * BLOCK_BYTES, blocks, features })
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.pool.read(self.state, offset / BLOCK_BYTES, buffer, answer(done));
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        match self.volume() {
            Ok(volume) => self.pool.write(volume, offset / BLOCK_BYTES, bytes, durable, answer(done)),
            Err(failure) => done.finish(Err(failure)),
        }
    }

    fn flush(&self, done: Done<()>) {
        self.pool.flush(answer(done));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.forget(range, durable, done);
    }

    /// No room is ever kept for zeros: a thin volume takes it when it is written to, from a pool of which the free room is watched.
    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.forget(range, mode.durable, done);
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        let since = self.names.before(self.state).into_iter().map(|name| format!("{CHANGED_SINCE}{name}"));
        let all = std::iter::once(ALLOCATION.to_owned()).chain(since);
        Ok(all.filter(|name| query.picks(name)).take(most).collect())
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        let blocks = match blocks(&range) {
            Ok(blocks) => blocks,
            Err(failure) => return done.finish(Err(failure)),
        };
        if context == ALLOCATION {
            return self
                .pool
                .extents(self.state, blocks, most, move |page| done.finish(page.map(allocation).map_err(failure)));
        }
        let snapshot = context.strip_prefix(CHANGED_SINCE).and_then(|name| self.names.find(self.state, name));
        let Some(snapshot) = snapshot else {
            return done.fail(FailureKind::Invalid, format!("there is no context {context}"));
        };
        // A stretch that has changed comes with one before it that has not.
        let page = (most / 2).max(1);
        let since = Since::Snapshot(snapshot);
        self.pool.changed(self.state, since, blocks, page, move |page| {
            done.finish(page.map(|page| changes(blocks.start, most, &page)).map_err(failure));
        });
    }
}

fn blocks(range: &Range<u64>) -> Result<Blocks, Failure> {
    let whole = range.start.is_multiple_of(BLOCK_BYTES) && range.end.is_multiple_of(BLOCK_BYTES);
    if !whole || range.end <= range.start {
        return Err(Failure::new(FailureKind::Invalid, format!("{range:?} is no range of whole blocks of 4096 bytes")));
    }
    Ok(Blocks { start: range.start / BLOCK_BYTES, count: (range.end - range.start) / BLOCK_BYTES })
}

fn answer<T>(done: Done<T>) -> impl FnOnce(Result<T, volume::Error>) + Send
where
    T: 'static,
{
    move |result| done.finish(result.map_err(failure))
}

fn failure(error: volume::Error) -> Failure {
    use volume::Error as E;
    let kind = match error {
        E::Full => FailureKind::NoSpace,
        E::Unaligned(_) | E::BeyondEnd { .. } | E::Unrelated { .. } | E::NoSnapshot(_) => FailureKind::Invalid,
        E::Closed => FailureKind::ShuttingDown,
        _ => FailureKind::Io,
    };
    Failure::new(kind, error.to_string())
}

fn allocation(page: Page<Extent>) -> Vec<Status> {
    let status = |extent: Extent| Status {
        len: extent.blocks.count * BLOCK_BYTES,
        flags: if extent.is_data { 0 } else { HOLE | ZERO },
    };
    page.items.into_iter().map(status).collect()
}

/// What has changed, with what has not in between.
fn changes(start: u64, most: usize, page: &Page<Blocks>) -> Vec<Status> {
    let mut statuses = Vec::new();
    let mut at = start;
    let mut push = |count: u64, flags| {
        if count > 0 && statuses.len() < most {
            statuses.push(Status { len: count * BLOCK_BYTES, flags });
        }
    };
    for changed in &page.items {
        push(changed.start - at, 0);
        push(changed.count, CHANGED);
        at = changed.end();
    }
    push(page.next.saturating_sub(at), 0);
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_told_too() {
        let page = |items: &[(u64, u64)], next| Page {
            items: items.iter().map(|&(start, count)| Blocks { start, count }).collect(),
            next,
        };
        let told = |most, page| -> Vec<_> {
            changes(10, most, &page).into_iter().map(|status| (status.len / 4096, status.flags)).collect()
        };
        assert_eq!(told(9, page(&[(12, 3), (20, 1)], 30)), [(2, 0), (3, 1), (5, 0), (1, 1), (9, 0)]);
        assert_eq!(told(9, page(&[(10, 3)], 13)), [(3, 1)], "nothing before and nothing after");
        assert_eq!(told(9, page(&[], 11)), [(1, 0)]);
        assert_eq!(told(1, page(&[(12, 3)], 15)), [(2, 0)], "what does not fit is asked for again");
    }
}
