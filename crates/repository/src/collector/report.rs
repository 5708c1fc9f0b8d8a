//! Collecting, as its users see it.

use super::collect::{Collected, Plan, Refused, State, collect};
use super::driver::Driver;
use super::look::{Silence, Unfinished};
use super::machine::Machine;
use super::process;
use super::rules::Rules;
use crate::error::{Error, Result};
use crate::ids::PointId;
use crate::layout;
use crate::progress::{Counters, Progress};
use crate::repository::Repository;
use jiff::{SignedDuration, Timestamp};

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectOptions {
    /// A run without a sign of life for so long, by the clock of the store, is revoked: it will never be published. So is one of which it is
    /// known that its process has ended, however short that is ago.
    pub dead_after: SignedDuration,
    /// Finds out what would be done, and changes nothing.
    pub dry_run: bool,
}

impl CollectOptions {
    /// After 24 missed signs of life a run is taken for dead. Too short a time costs a backup, never a recovery point.
    pub const DEAD_AFTER: SignedDuration = SignedDuration::from_hours(6);
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dead_after: Self::DEAD_AFTER, dry_run: false }
    }
}

/// How far a collection came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CollectState {
    /// It is over, or would be.
    #[default]
    Finished,
    /// There was nothing to collect.
    Nothing,
    /// Runs that are under way have to end first; a later collection goes on where this one stopped.
    Waiting,
}

/// A run that has not published its recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The recovery point that it works for.
    pub point: PointId,
    /// Where it runs.
    pub host: String,
    /// When it began, by the clock there.
    pub started: Timestamp,
    /// Its last sign of life, by the clock of the store.
    pub last_seen: Option<Timestamp>,
}

/// What was collected, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// How far it came.
    pub state: CollectState,
    /// Packs that were deleted.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that stay; not known when runs are waited for.
    pub kept_packs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Index runs that were deleted; not known beforehand.
    pub index_runs: u64,
    /// Leftovers of recovery points that were forgotten before.
    pub void_points: Vec<PointId>,
    /// Runs that were silent for too long, or whose process has ended, and that will never be published.
    pub revoked: Vec<Run>,
    /// Runs that are waited for.
    pub waiting: Vec<Run>,
    /// Parts of objects that were cleared away, left by processes that died while they wrote them; only folders have any.
    pub unfinished: u64,
    /// Their bytes.
    pub unfinished_bytes: u64,
}

impl Repository {
    /// Deletes what no recovery point needs; safe beside writers, readers and other collectors.
    ///
    /// What was left unfinished goes before anything else, and needs no room: so a disk that dead runs have filled has some again for
    /// what a collection must write. A collection that was interrupted is finished next. `progress` hears of the packs that are deleted, and
    /// of their total when it is known.
    pub async fn collect(&self, options: &CollectOptions, progress: &dyn Progress) -> Result<CollectReport> {
        let mut report = self.clear_unfinished(options).await?;
        loop {
            let plan = Plan {
                silence: Silence { after: options.dead_after, ended: process::has_ended },
                dry_run: options.dry_run,
                alone: !self.store().refuses_what_exists(),
                now: Timestamp::now(),
            };
            let machine = Machine::new(move |port| collect(port, Rules::default(), plan));
            let done = Counters { files: report.packs, bytes: report.bytes, new_bytes: 0 };
            let driver = Driver::new(self, progress).sparing_locked().after(done);
            let collected = driver.run(machine).await?.map_err(refused)?;
            let again = collected.resumed && collected.state == State::Finished && !options.dry_run;
            report.add(collected);
            if !again {
                return Ok(report);
            }
        }
    }

    async fn clear_unfinished(&self, options: &CollectOptions) -> Result<CollectReport> {
        let files = self.store().unfinished(options.dead_after).await?;
        if !options.dry_run {
            for file in &files {
                self.store().delete(&file.name).await?;
            }
        }
        let bytes = files.iter().map(|file| file.size).sum();
        Ok(CollectReport { unfinished: files.len() as u64, unfinished_bytes: bytes, ..CollectReport::default() })
    }
}

impl CollectReport {
    /// Adds a later collection.
    fn add(&mut self, later: Collected) {
        let did_something =
            self.packs > 0 || self.unfinished > 0 || !self.void_points.is_empty() || !self.revoked.is_empty();
        self.state = match later.state {
            State::Nothing if did_something => CollectState::Finished,
            State::Nothing => CollectState::Nothing,
            State::Finished => CollectState::Finished,
            State::Waiting => CollectState::Waiting,
        };
        self.packs += later.packs.len() as u64;
        self.bytes += later.packs.iter().map(|pack| pack.bytes).sum::<u64>();
        (self.kept_packs, self.kept_bytes) = later.kept;
        self.index_runs += later.index_runs;
        self.void_points.extend(later.void);
        self.revoked.extend(later.revoked.into_iter().map(Run::from));
        self.waiting = later.waiting.into_iter().map(Run::from).collect();
    }
}

impl From<Unfinished> for Run {
    fn from(run: Unfinished) -> Self {
        Self { point: run.point, host: process::shown(&run.host), started: run.started, last_seen: run.seen }
    }
}

fn refused(why: Refused) -> Error {
    match why {
        Refused::NoEpoch => Error::Missing { object: layout::epoch(1) },
        Refused::Points(points) => {
            let what: Vec<_> = points.iter().map(|(id, what)| format!("{id} ({what})")).collect();
            Error::NotCollected { what: format!("what they need is not known: recovery points {}", what.join(", ")) }
        }
        Refused::Session(id, what) => {
            Error::NotCollected { what: format!("what it works for is not known: {}: {what}", layout::session(&id)) }
        }
    }
}
