//! The device of a volume that shares a pool.

use super::scheduler::{Core, Request, Scheduler, shutting_down};
use super::{Limits, machine::VolumeId};
use block::{Buffer, ContextQuery, Description, Device, Done, Failure, Status, ZeroMode};
use std::ops::Range;
use std::sync::Arc;

/// A device whose requests keep to the limits of its volume, and take turns with those of the other volumes of the pool.
///
/// When nothing is in the way, a request goes straight to the device below, in the thread that asks. What waits is started by whoever finishes
/// another request, or by the one thread of the scheduler. There is no queue of a bounded length, since a request that does not fit into it
/// could only fail: the front end bounds what it has under way.
pub struct Shared {
    below: Arc<dyn Device>,
    core: Arc<Core>,
    volume: VolumeId,
}

impl Shared {
    /// Has a device share what the scheduler stands for.
    #[must_use]
    pub fn new(scheduler: &Scheduler, below: Arc<dyn Device>, limits: Limits) -> Self {
        let core = scheduler.core().clone();
        let volume = core.add(limits);
        Self { below, core, volume }
    }

    /// Goes on at other limits, also for what waits. Where there was no limit before, the first second's worth may be had at once.
    pub fn set_limits(&self, limits: Limits) {
        self.core.change(self.volume, limits);
    }

    /// Takes the volume out: what waits is answered that the server is being stopped, and so is what comes later. What is under way finishes.
    pub fn close(&self) {
        self.core.remove(self.volume);
    }

    fn submit(&self, request: Request) {
        self.core.submit(self.volume, &self.below, request);
    }

    /// The way back, if what does not wait may go.
    fn passing(&self, counts: bool, done: Done<()>) -> Option<Done<()>> {
        if self.core.passes(self.volume, counts) {
            return Some(done);
        }
        done.finish(Err(shutting_down()));
        None
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Device for Shared {
    fn describe(&self) -> Result<Description, Failure> {
        self.below.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.submit(Request::Read { offset, buffer, done });
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        self.submit(Request::Write { offset, bytes, durable, done });
    }

    fn flush(&self, done: Done<()>) {
        if let Some(done) = self.passing(true, done) {
            self.below.flush(done);
        }
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        if let Some(done) = self.passing(false, done) {
            self.below.discard(range, durable, done);
        }
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        if let Some(done) = self.passing(false, done) {
            self.below.write_zeroes(range, mode, done);
        }
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.below.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        self.below.block_status(context, range, most, done);
    }
}
