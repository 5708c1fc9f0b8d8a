//! One world.

use super::ask::Asked;
use super::disk::TestDisk;
use super::model::Model;
use super::random::Random;
use crate::engine::{self, Engine, Io, IoId, Notice, Output, Shape, World};
use crate::memory::Buffer;
use crate::units::BLOCK_BYTES;
use std::collections::BTreeMap;

/// Nodes that are cached: few, so that they must be read again and again.
pub(super) const CACHE: usize = 24;

/// What happened, to be told.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) crashes: u64,
    pub(super) reopened_twice: u64,
    /// Ends of the process alone.
    pub(super) killed: u64,
    pub(super) grown: u64,
    pub(super) compared: u64,
    pub(super) snapshots: u64,
    pub(super) clones: u64,
    pub(super) deleted: u64,
    pub(super) held: u64,
    pub(super) diffs: u64,
    pub(super) hurried: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.reopened_twice += other.reopened_twice;
        self.killed += other.killed;
        self.grown += other.grown;
        self.compared += other.compared;
        self.snapshots += other.snapshots;
        self.clones += other.clones;
        self.deleted += other.deleted;
        self.held += other.held;
        self.diffs += other.diffs;
        self.hurried += other.hurried;
    }
}

/// How a world is; drawn anew for each seed, so that some are calm in one respect and wild in another.
pub(super) struct Habits {
    /// Of a hundred steps, how many end a request to the disk rather than ask something.
    pub(super) finish: u64,
    pub(super) durable: u64,
    pub(super) flush: u64,
    pub(super) longest: u64,
    pub(super) administer: u64,
    pub(super) discard: u64,
    /// Of a hundred times that a read could end, how often it does not.
    pub(super) slow_reads: u64,
    /// The same for what a checkpoint writes.
    pub(super) slow_checkpoints: u64,
}

impl Habits {
    fn draw(random: &mut Random) -> Self {
        // Some flush all the time, and some hardly ever.
        let flushes = random.chance(60);
        // Some only write, and fill the log while a checkpoint takes long.
        if random.chance(15) {
            return Self {
                finish: 75,
                durable: 80,
                flush: 5,
                longest: 2,
                administer: 0,
                discard: 5,
                slow_reads: 0,
                slow_checkpoints: 99,
            };
        }
        Self {
            finish: 35 + random.below(45),
            durable: if flushes { random.below(60) } else { random.below(3) },
            flush: if flushes { 2 + random.below(25) } else { random.below(2) },
            longest: 1 + random.below(60),
            administer: 2 + random.below(14),
            discard: random.below(25),
            slow_reads: if random.chance(50) { 95 } else { 0 },
            slow_checkpoints: if random.chance(30) { 98 } else { 0 },
        }
    }
}

pub(super) struct Run<W: World<Tag = u64, Memory = Buffer>> {
    pub(super) random: Random,
    pub(super) disk: TestDisk,
    pub(super) engine: Engine<W>,
    pub(super) model: Model,
    pub(super) habits: Habits,
    pub(super) ios: Vec<(IoId, Io<Buffer>)>,
    pub(super) more: bool,
    pub(super) lingers: Option<u64>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) next_tag: u64,
    pub(super) counts: Counts,
    pub(super) operations: u64,
}

impl<W: World<Tag = u64, Memory = Buffer>> Run<W> {
    pub(super) fn new(seed: u64) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let (unit, sector) = *random.pick(&[(512, 512), (512, 4096), (4096, 4096)]).ok_or("no units")?;
        let blocks = 1024 + random.below(1500);
        let disk = TestDisk::with_sectors(usize::try_from(blocks).unwrap() * 4096, unit, sector);
        let shape = Shape {
            id: [7; 16],
            log_blocks: Some(64),
            most_changed_nodes: Some(16 + u32::try_from(random.below(40)).unwrap()),
        };
        engine::create::<W>(&disk, shape).map_err(|e| e.to_string())?;
        let engine = engine::open::<W>(&disk, CACHE).map_err(|e| e.to_string())?;
        let habits = Habits::draw(&mut random);
        Ok(Self {
            random,
            disk,
            engine,
            model: Model::default(),
            habits,
            ios: Vec::new(),
            more: false,
            lingers: None,
            asked: BTreeMap::new(),
            next_tag: 0,
            counts: Counts::default(),
            operations: 0,
        })
    }

    /// A whole world: some rounds that end with a crash, then one that ends well.
    pub(super) fn all(seed: u64) -> Result<Counts, String> {
        let mut run = Self::new(seed)?;
        let rounds = 2 + run.random.below(4);
        for _ in 0..rounds {
            run.habits = Habits::draw(&mut run.random);
            let steps = if run.habits.administer == 0 {
                500 + run.random.below(1500)
            } else if run.random.chance(30) {
                run.random.below(60)
            } else {
                20 + run.random.below(900)
            };
            for _ in 0..steps {
                run.step()?;
            }
            run.crash()?;
            run.recover()?;
        }
        for _ in 0..200 {
            run.step()?;
        }
        run.end()?;
        Ok(run.counts)
    }

    /// The world of this seed, until this many operations on the disk are done; tells whether there were so many.
    pub(super) fn cut_after(seed: u64, cut: u64) -> Result<bool, String> {
        let mut run = Self::new(seed)?;
        for _ in 0..400 {
            if run.operations >= cut {
                run.crash()?;
                run.recover()?;
                return Ok(true);
            }
            run.step()?;
        }
        Ok(false)
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        let finish = self.random.chance(self.habits.finish);
        if finish && !self.ios.is_empty() {
            let at = usize::try_from(self.random.below(self.ios.len() as u64)).unwrap();
            let slow = match &self.ios[at].1 {
                Io::Read { .. } => self.habits.slow_reads,
                Io::Pages { pages } if pages.iter().all(|(at, _)| *at >= 72 * BLOCK_BYTES) => {
                    self.habits.slow_checkpoints
                }
                Io::Nodes { .. } => self.habits.slow_checkpoints,
                _ => 0,
            };
            if !self.random.chance(slow) {
                return self.finish(at);
            }
        }
        if let Some(batch) = self.lingers.filter(|_| self.random.chance(10)) {
            self.counts.hurried += 1;
            let out = self.engine.hurry(batch);
            return self.absorb(out);
        }
        if self.more && self.random.chance(30) {
            let out = self.engine.work();
            return self.absorb(out);
        }
        self.ask_something()
    }

    pub(super) fn finish(&mut self, at: usize) -> Result<(), String> {
        let (id, io) = self.ios.swap_remove(at);
        self.operations += 1;
        let done = io.perform(&self.disk);
        let out = self.engine.finished(id, done);
        self.absorb(out)
    }

    pub(super) fn absorb(&mut self, out: Output<W>) -> Result<(), String> {
        self.ios.extend(out.ios);
        self.more = out.more;
        self.lingers = out.lingers;
        for notice in out.notices {
            match notice {
                Notice::Full => self.counts.held += 1,
                Notice::Deleted(_) => self.counts.deleted += 1,
                Notice::Resumed => {}
                other => return Err(format!("an unexpected notice: {other:?}")),
            }
        }
        for (tag, result) in out.answers {
            self.answered(tag, result)?;
        }
        Ok(())
    }

    /// Lets everything end that is under way.
    pub(super) fn drain(&mut self) -> Result<(), String> {
        let mut steps = 0;
        while !self.ios.is_empty() || self.more {
            steps += 1;
            if steps > 1_000_000 {
                return Err("it never comes to rest".into());
            }
            if self.ios.is_empty() {
                let out = self.engine.work();
                self.absorb(out)?;
            } else {
                self.finish(0)?;
            }
        }
        Ok(())
    }
}
