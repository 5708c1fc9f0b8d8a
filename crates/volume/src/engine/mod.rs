//! The engine: one owner of all state, which is told what happened and says what is to be done.
//!
//! ```text
//! submit(request, tag) ─┐                 ┌─ ios: requests to the disk, each answered by finished(id, done)
//! finished(id, done)   ─┼─► Engine ─────► ┼─ answers: (tag, result)
//! work()               ─┤                 ├─ notices: what whoever runs the pool should know
//! hurry(batch)         ─┘                 ├─ more: there is work left that waits for nothing: call work()
//!                                         └─ lingers: a batch waits for company: call hurry(batch) when that takes long
//! ```
//! It has no clock, starts nothing and never waits, so a test can finish requests in any order, or never, and cut anywhere.
//!
//! A request is a [`task::Task`]. A step of a task does what it can with the nodes that are in memory; if one is missing, it is read, and the
//! step is done again from its begin. Nothing that a step has found out is kept over that, so nothing can have become untrue meanwhile.

mod admin;
mod checkpoint;
mod commit;
mod company;
mod counts;
mod deletion;
mod drive;
mod io;
mod load;
mod log;
mod log_reader;
mod open;
mod query;
mod read;
mod replay;
mod request;
mod scrub;
mod scrub_fixed;
mod slab;
mod task;
mod world;
mod write;

pub use counts::Counts;
#[cfg(test)]
pub(crate) use drive::drive;
pub(crate) use drive::{drive_ios, open};
pub(crate) use io::{Done, Io, IoId, Move};
pub use open::Shape;
pub(crate) use open::{Loaded, Salvage, create, load, look, read_superblocks, salvage};
pub(crate) use request::{Admin, Answer, Request};
pub use request::{Extent, Notice, Page, Scrubbed};
pub(crate) use world::{Rule, Shipped, World};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::format::superblock::Superblock;
use crate::map::Nodes;
use crate::space::Space;
use crate::units::{Place, Run, TreeId};
use checkpoint::Checkpoint;
use company::Company;
use io::Fault;
use log::Log;
pub(crate) use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use task::Task;

/// Whether a block is what its sum says.
pub(crate) fn is_whole(disk: &dyn crate::disk::Disk, place: Place, sum: u32) -> bool {
    io::verify(disk, &[(place, sum)]).is_empty()
}

/// Answers, each with whom it goes to.
pub(crate) type Answers<W> = Vec<(<W as World>::Tag, Result<Answer<<W as World>::Memory>, Error>)>;

/// What an engine wants done.
pub(crate) struct Output<W: World> {
    pub(crate) ios: Vec<(IoId, Io<W::Memory>)>,
    pub(crate) answers: Answers<W>,
    pub(crate) notices: Vec<Notice>,
    /// There is work that waits for nothing.
    pub(crate) more: bool,
    /// This batch of changes is not written into the log yet, since others are about to come to it.
    pub(crate) lingers: Option<u64>,
}

impl<W: World> Default for Output<W> {
    fn default() -> Self {
        Self { ios: Vec::new(), answers: Vec::new(), notices: Vec::new(), more: false, lingers: None }
    }
}

/// What a request to the disk was for.
#[derive(Debug)]
enum Purpose {
    /// A node of a map, for whoever waits for it; the number is that of the age in which it was asked.
    Node(Place, u64),
    /// The data of a task that reads, and the age.
    Read(usize, u64),
    /// What a scrub compares, and the age.
    Verify(usize, u64),
    /// The same at places that are written over.
    VerifyFixed(usize),
    /// The data of a task that writes, and how many blocks it is.
    Write(usize, u64),
    LogWrite,
    LogFlush,
    CheckpointPages,
    CheckpointFlush,
    CheckpointSuperblock,
    CheckpointLast,
}

/// Blocks that are free but may still be read by somebody who looked before.
#[derive(Debug)]
struct Retired {
    age: u64,
    runs: Vec<Run>,
}

/// The state of an open pool.
pub(crate) struct Engine<W: World> {
    /// As of the last checkpoint that was begun.
    superblock: Superblock,
    /// The last one that is known to be durable.
    durable_checkpoint: u64,
    space: Space,
    catalog: Catalog,
    nodes: Nodes,
    log: Log,
    checkpoint: Option<Checkpoint<W>>,
    /// What waits for the next checkpoint.
    admin: Vec<(W::Tag, Admin)>,
    checkpoint_wanted: bool,
    tasks: Slab<Task<W>>,
    ios: Slab<Purpose>,
    /// Volumes with changed nodes.
    changed_trees: BTreeSet<TreeId>,
    /// Some stalled task waits for nothing.
    has_yielded: bool,
    /// Tasks that wait for a node.
    awaited: HashMap<Place, Vec<usize>>,
    /// Tasks that wait until the log or the changed nodes in memory are fewer.
    stalled: VecDeque<usize>,
    /// Writes that wait for room, in the order in which they came.
    held: VecDeque<usize>,
    held_discards: VecDeque<usize>,
    is_full: bool,
    /// Blocks of the map that admitted writes may come to need.
    promised: u64,
    /// Writes whose data is on its way to the disk.
    writing: usize,
    company: Company,
    counts: Counts,
    /// Who waits until the log has so many changes.
    unlogged: VecDeque<(u64, W::Tag)>,
    /// Who waits until so many changes are durable.
    flushes: VecDeque<(u64, W::Tag)>,
    /// Counts durable checkpoints of this opening.
    age: u64,
    /// How many reads are under way that began in an age.
    readers: BTreeMap<u64, usize>,
    retired: VecDeque<Retired>,
    deletion: Option<deletion::Deletion>,
    failed: Option<Error>,
    /// A place at which a checkpoint could not be written.
    refused_place: Option<Place>,
    /// The log of the opening before is replayed.
    is_started: bool,
    /// How the replay ended.
    replayed: Option<Result<(), Error>>,
    out: Output<W>,
}

impl<W: World> Engine<W> {
    /// A pool as it was loaded; see [`load`]. Nothing may be asked before it was replayed.
    pub(crate) fn new(loaded: Loaded, cache: usize) -> Self {
        let Loaded { mut superblock, space, catalog, mut nodes, log_unit, .. } = loaded;
        // The next checkpoint, which is made before anything is written into the log, says so.
        superblock.log_unit = log_unit;
        nodes.set_most(cache);
        let log = Log::new(superblock.log_bytes(), superblock.log_unit, &superblock.pool);
        Self {
            durable_checkpoint: superblock.checkpoint,
            superblock,
            space,
            catalog,
            nodes,
            log,
            checkpoint: None,
            admin: Vec::new(),
            checkpoint_wanted: false,
            tasks: Slab::default(),
            ios: Slab::default(),
            changed_trees: BTreeSet::new(),
            has_yielded: false,
            awaited: HashMap::new(),
            stalled: VecDeque::new(),
            held: VecDeque::new(),
            held_discards: VecDeque::new(),
            is_full: false,
            promised: 0,
            writing: 0,
            company: Company::default(),
            counts: Counts::default(),
            unlogged: VecDeque::new(),
            flushes: VecDeque::new(),
            age: 0,
            readers: BTreeMap::new(),
            retired: VecDeque::new(),
            deletion: None,
            failed: None,
            refused_place: None,
            is_started: false,
            replayed: None,
            out: Output::default(),
        }
    }

    /// Takes a request; the answer comes with the tag, now or later.
    pub(crate) fn submit(&mut self, request: Request<W::Memory>, tag: W::Tag) -> Output<W> {
        self.begin(request, tag);
        self.settle()
    }

    /// Takes what came of a request to the disk.
    pub(crate) fn finished(&mut self, id: IoId, done: Done<W::Memory>) -> Output<W> {
        self.all_finished([(id, done)])
    }

    /// Takes what came of several at once, so that the log is written once for all that were waiting for them.
    pub(crate) fn all_finished(&mut self, done: impl IntoIterator<Item = (IoId, Done<W::Memory>)>) -> Output<W> {
        for (id, done) in done {
            if let Some(purpose) = self.ios.take(id.0) {
                self.ios.let_go(id.0);
                self.disk_done(purpose, done);
            }
        }
        self.settle()
    }

    /// Does a piece of what waits for nothing.
    pub(crate) fn work(&mut self) -> Output<W> {
        if std::mem::take(&mut self.has_yielded) {
            self.resume();
        }
        self.delete_some();
        self.settle()
    }

    /// A batch has waited for company for long enough; if it is another one by now, nothing changes.
    pub(crate) fn hurry(&mut self, batch: u64) -> Output<W> {
        self.company.hurry(batch);
        self.settle()
    }

    fn disk_done(&mut self, purpose: Purpose, done: Done<W::Memory>) {
        match (purpose, done) {
            (Purpose::Node(place, age), Done::Node(result)) => {
                self.leave(age);
                self.node_done(place, result);
            }
            (Purpose::Read(task, age), Done::Read { into, fault }) => {
                self.leave(age);
                self.read_done(task, into, fault);
            }
            (Purpose::Verify(task, age), Done::Verified(faults)) => {
                self.leave(age);
                self.verified(task, &faults);
            }
            (Purpose::VerifyFixed(task), Done::Verified(faults)) => self.fixed_verified(task, &faults),
            (Purpose::Write(task, count), Done::Written(result)) => self.write_done(task, count, result),
            (Purpose::LogWrite, Done::Written(result)) => self.log_written(result),
            (Purpose::LogFlush, Done::Flushed(result)) => self.log_flushed(result),
            (Purpose::CheckpointPages, Done::Written(result)) => self.pages_written(result),
            (Purpose::CheckpointSuperblock, Done::Written(result)) => self.superblock_written(result),
            (Purpose::CheckpointFlush, Done::Flushed(result)) => self.pages_flushed(result),
            (Purpose::CheckpointLast, Done::Flushed(result)) => self.superblock_flushed(result),
            (purpose, _) => unreachable!("a disk answers what it was asked: {purpose:?}"),
        }
    }

    /// Starts what can be started, and gives all that is to be done.
    fn settle(&mut self) -> Output<W> {
        self.admit_held();
        self.maybe_checkpoint();
        self.commit();
        self.nodes.shrink();
        let mut out = std::mem::take(&mut self.out);
        out.more = self.has_yielded || self.can_delete();
        out.lingers = self.lingers();
        out
    }

    /// How many requests to the disk are not finished.
    pub(crate) fn under_way(&self) -> usize {
        self.ios.len()
    }

    fn ask(&mut self, purpose: Purpose, io: Io<W::Memory>) {
        let id = self.ios.insert(purpose);
        self.out.ios.push((IoId(id), io));
    }

    fn answer(&mut self, tag: W::Tag, result: Result<Answer<W::Memory>, Error>) {
        self.out.answers.push((tag, result));
    }

    /// Somebody begins to read from places that it has looked up; gives the age for [`Engine::leave`].
    fn enter(&mut self) -> u64 {
        *self.readers.entry(self.age).or_default() += 1;
        self.age
    }

    fn leave(&mut self, age: u64) {
        if let Some(count) = self.readers.get_mut(&age) {
            *count -= 1;
            if *count == 0 {
                self.readers.remove(&age);
            }
        }
        self.release_retired();
    }

    /// Lets blocks be given out again that nobody reads any more.
    fn release_retired(&mut self) {
        let oldest = self.readers.first_key_value().map_or(u64::MAX, |(age, _)| *age);
        while let Some(retired) = self.retired.front()
            && (retired.age < oldest || !W::keeps(Rule::HoldRead))
        {
            retired.runs.iter().for_each(|run| self.space.release(*run));
            self.retired.pop_front();
        }
    }

    /// The task goes on when the node is there.
    fn wait_for_node(&mut self, task: usize, missing: crate::map::Missing) {
        self.fetch(missing);
        self.awaited.entry(missing.node.place).or_default().push(task);
    }

    /// Asks for a node unless that was done already.
    fn fetch(&mut self, missing: crate::map::Missing) {
        let place = missing.node.place;
        if self.awaited.contains_key(&place) {
            return;
        }
        self.awaited.insert(place, Vec::new());
        self.counts.node_reads += 1;
        let age = self.enter();
        let io = Io::Node { run: Run::one(place), sum: missing.node.sum, check: W::keeps(Rule::CheckSums) };
        self.ask(Purpose::Node(place, age), io);
    }

    /// A place at which a checkpoint could not be written.
    pub(crate) fn refused_place(&self) -> Option<Place> {
        self.refused_place
    }

    fn node_done(&mut self, place: Place, result: Result<crate::format::node::Page, Fault>) {
        let waiting = self.awaited.remove(&place).unwrap_or_default();
        match result {
            Ok(page) => {
                self.nodes.insert(place, page);
                waiting.into_iter().for_each(|task| self.step(task));
            }
            Err(fault) => waiting.into_iter().for_each(|task| self.lose_node(task, place, &fault)),
        }
    }

    /// From here on nothing is acknowledged any more: nobody knows what the disk holds.
    fn fail(&mut self, reason: String) {
        if self.failed.is_some() {
            return;
        }
        let error = Error::Failed { reason };
        self.replayed.get_or_insert_with(|| Err(error.clone()));
        self.failed = Some(error.clone());
        self.out.notices.push(Notice::Failed(error.clone()));
        let unlogged = std::mem::take(&mut self.unlogged);
        let flushes = unlogged.into_iter().chain(std::mem::take(&mut self.flushes)).map(|(_, tag)| tag);
        let admin = std::mem::take(&mut self.admin).into_iter().map(|(tag, _)| tag);
        let begun = self.checkpoint.take().into_iter().flat_map(|checkpoint| checkpoint.answers).map(|(tag, _)| tag);
        for tag in flushes.chain(admin).chain(begun).collect::<Vec<_>>() {
            self.answer(tag, Err(error.clone()));
        }
        let held = std::mem::take(&mut self.held).into_iter().chain(std::mem::take(&mut self.held_discards));
        for task in held.chain(std::mem::take(&mut self.stalled)).collect::<Vec<_>>() {
            self.refuse(task, error.clone());
        }
    }
}
