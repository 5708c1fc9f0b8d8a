//! What can be asked of a pool.
//!
//! Requests for data take a callback, which is called exactly once with the result, whatever happens: before the call returns or later, from any thread,
//! never with a lock held. When the pool is closed or dropped, or has failed by a defect, those that wait still are called with an error. One that asks
//! for more in turn nests where the pool is in memory, so it must not do so without end; one that panics keeps nobody else from being called.
//! What changes the catalog waits, and must not be called from a callback.

use super::Pool;
use crate::checksum;
use crate::engine::{Admin, Answer, Extent, Page, Request, Scrubbed};
use crate::error::Error;
use crate::memory::Memory;
use crate::units::{Blocks, Epoch, SnapshotId, TreeId, VolumeId};
use std::sync::mpsc;

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A volume, as it is now.
    Volume(VolumeId),
    /// A snapshot.
    Snapshot(SnapshotId),
}

impl From<State> for TreeId {
    fn from(state: State) -> Self {
        match state {
            State::Volume(id) => id.into(),
            State::Snapshot(id) => id.into(),
        }
    }
}

/// What a state is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A snapshot that the state comes from.
    Snapshot(SnapshotId),
    /// The epoch of one, which may be deleted meanwhile.
    Epoch(Epoch),
}

impl<M: Memory> Pool<M> {
    /// Fills the memory with the blocks from `start` on, each compared with its checksum, and gives it back.
    pub fn read(&self, of: State, start: u64, into: M, done: impl FnOnce(Result<M, Error>) + Send + 'static) {
        self.ask(
            Request::Read { of: of.into(), start, into },
            move |answer| match answer {
                Answer::Read(memory) => Some(memory),
                _ => None,
            },
            done,
        );
    }

    /// Writes the memory to the blocks from `start` on; if `durable`, it survives a crash when this is answered.
    ///
    /// While the pool is full the answer waits.
    pub fn write(
        &self,
        volume: VolumeId,
        start: u64,
        from: M,
        durable: bool,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let sums = checksum::of_blocks(from.as_ref());
        self.ask(Request::Write { volume, start, from, sums, durable }, nothing, done);
    }

    /// Makes durable all that was answered before, of all volumes. If there is nothing new, it costs nothing.
    pub fn flush(&self, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.ask(Request::Flush, nothing, done);
    }

    /// Gives the room of blocks back; they read as zeros from then on.
    pub fn discard(
        &self,
        volume: VolumeId,
        blocks: Blocks,
        durable: bool,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        self.ask(Request::Discard { volume, blocks, durable }, nothing, done);
    }

    /// Makes blocks read as zeros. No room is kept for them, so this is the same as [`Pool::discard`].
    pub fn write_zeroes(
        &self,
        volume: VolumeId,
        blocks: Blocks,
        durable: bool,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        self.discard(volume, blocks, durable, done);
    }

    /// Which blocks of a range are data and which are holes, at most so many stretches.
    pub fn extents(
        &self,
        of: State,
        blocks: Blocks,
        most: usize,
        done: impl FnOnce(Result<Page<Extent>, Error>) + Send + 'static,
    ) {
        self.ask(
            Request::Extents { of: of.into(), blocks, most },
            |answer| match answer {
                Answer::Extents(page) => Some(page),
                _ => None,
            },
            done,
        );
    }

    /// Which blocks of a range were written or discarded since, at most so many stretches.
    pub fn changed(
        &self,
        of: State,
        since: Since,
        blocks: Blocks,
        most: usize,
        done: impl FnOnce(Result<Page<Blocks>, Error>) + Send + 'static,
    ) {
        let since = match since {
            Since::Epoch(epoch) => Ok(epoch),
            Since::Snapshot(snapshot) => self.shared.lock().engine.epoch_in(of.into(), snapshot),
        };
        match since {
            Err(error) => done(Err(error)),
            Ok(since) => self.ask(
                Request::Changed { of: of.into(), blocks, since, most },
                |answer| match answer {
                    Answer::Changed(page) => Some(page),
                    _ => None,
                },
                done,
            ),
        }
    }

    /// Reads and compares what belongs to this state and none before it, from a block on, at most so many MiB.
    pub fn scrub(
        &self,
        of: State,
        start: u64,
        most: usize,
        done: impl FnOnce(Result<Scrubbed, Error>) + Send + 'static,
    ) {
        self.ask(
            Request::Scrub { of: of.into(), start, most },
            |answer| match answer {
                Answer::Scrubbed(scrubbed) => Some(scrubbed),
                _ => None,
            },
            done,
        );
    }

    /// Reads and compares the catalog with its map. What is damaged is written anew from memory, if the pool goes on.
    pub fn scrub_catalog(&self, done: impl FnOnce(Result<Scrubbed, Error>) + Send + 'static) {
        self.ask(
            Request::ScrubCatalog,
            |answer| match answer {
                Answer::Scrubbed(scrubbed) => Some(scrubbed),
                _ => None,
            },
            done,
        );
    }

    /// Reads and compares what lies at fixed places, the superblocks and the map of used blocks, from this number on, at most so many. If none is left, `next`
    /// is that number. What is damaged is written anew from memory, if the pool goes on.
    pub fn scrub_fixed(&self, start: u64, most: usize, done: impl FnOnce(Result<Scrubbed, Error>) + Send + 'static) {
        self.ask(
            Request::ScrubFixed { start, most },
            |answer| match answer {
                Answer::Scrubbed(scrubbed) => Some(scrubbed),
                _ => None,
            },
            done,
        );
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    ///
    /// If the name is taken or the size cannot be.
    pub fn create_volume(&self, name: &str, blocks: u64) -> Result<VolumeId, Error> {
        match self.wait(Request::Admin(Admin::Create { name: name.to_owned(), blocks }))? {
            Answer::Created(id) => Ok(id),
            _ => Err(Error::Closed),
        }
    }

    /// Takes snapshots of some volumes at one instant, with a name for each. They hold all that was answered before, flushed or not.
    ///
    /// # Errors
    ///
    /// If one of them cannot be taken: then none is.
    pub fn snapshot(&self, volumes: &[(VolumeId, &str)]) -> Result<Vec<SnapshotId>, Error> {
        let volumes = volumes.iter().map(|(volume, name)| (*volume, (*name).to_owned())).collect();
        match self.wait(Request::Admin(Admin::Snapshot { volumes }))? {
            Answer::Snapshots(ids) => Ok(ids),
            _ => Err(Error::Closed),
        }
    }

    /// Makes a volume that begins as a snapshot.
    ///
    /// # Errors
    ///
    /// If there is no such snapshot or the name is taken.
    pub fn clone_snapshot(&self, snapshot: SnapshotId, name: &str) -> Result<VolumeId, Error> {
        match self.wait(Request::Admin(Admin::Clone { snapshot, name: name.to_owned() }))? {
            Answer::Created(id) => Ok(id),
            _ => Err(Error::Closed),
        }
    }

    /// Makes a volume what it was at a snapshot, its own or another's: at one instant, a clone of the snapshot has its name, and it is deleted. All
    /// snapshots stay.
    ///
    /// # Errors
    ///
    /// If one of the two is not there.
    pub fn roll_back(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<VolumeId, Error> {
        match self.wait(Request::Admin(Admin::Rollback { volume, snapshot }))? {
            Answer::Created(id) => Ok(id),
            _ => Err(Error::Closed),
        }
    }

    /// Deletes a volume, whose snapshots stay, or a snapshot, whose clones stay. It is gone when this returns; its room comes back little by
    /// little.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn delete(&self, state: State) -> Result<(), Error> {
        self.wait(Request::Admin(Admin::Delete { of: state.into() })).map(|_| ())
    }

    /// Makes a volume larger, while it is used.
    ///
    /// # Errors
    ///
    /// If it would become smaller, or too large.
    pub fn resize(&self, volume: VolumeId, blocks: u64) -> Result<(), Error> {
        self.wait(Request::Admin(Admin::Resize { volume, blocks })).map(|_| ())
    }

    /// Takes in what was added to the file or device.
    ///
    /// # Errors
    ///
    /// If it has become smaller.
    pub fn grow(&self) -> Result<(), Error> {
        let bytes =
            self.shared.disk.bytes().map_err(|e| Error::Failed { reason: format!("its size is not told: {e}") })?;
        let blocks = crate::format::layout::blocks_of(bytes);
        self.wait(Request::Admin(Admin::GrowPool { blocks })).map(|_| ())
    }

    fn ask<T: 'static>(
        &self,
        request: Request<M>,
        take: impl FnOnce(Answer<M>) -> Option<T> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) {
        let callback = move |result: Result<Answer<M>, Error>| {
            done(result.and_then(|answer| take(answer).ok_or(Error::Closed)));
        };
        self.shared.submit(request, Box::new(callback));
    }

    /// Asks, and waits for the answer.
    pub(super) fn wait(&self, request: Request<M>) -> Result<Answer<M>, Error> {
        let (sender, receiver) = mpsc::channel();
        let callback = move |result| drop(sender.send(result));
        self.shared.submit(request, Box::new(callback));
        receiver.recv().unwrap_or(Err(Error::Closed))
    }
}

fn nothing<M>(answer: Answer<M>) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}
