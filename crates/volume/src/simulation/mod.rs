//! The engine on a disk that loses what was not flushed, with requests that end in any order; and the same with one rule broken.
//!
//! Of each seed, some thousand steps: a request, the end of one request to the disk, a piece of deletion. Then the process ends, or the power goes: what
//! was not flushed is kept or lost sector by sector, or destroyed with the sector that it lies in; requests under way may have reached the disk or not,
//! and often the same happens again while the pool is being opened. Afterwards every block must have a value that it may have ([`model`]), every snapshot be what it was, no name be missing or
//! too many, and the checker find nothing. Then it goes on from there.
//!
//! `ORLOP_SIM_SEED` runs one seed, `ORLOP_SIM_SEEDS` more of them than usual.

mod ask;
mod broken;
pub(crate) mod disk;
mod faults;
mod frozen;
mod hostile;
mod inline;
mod limits;
mod model;
mod outlived;
pub(crate) mod random;
mod recover;
mod rollback;
mod run;
mod scale;

use crate::engine::{Rule, World};
use crate::memory::Buffer;
use run::Run;
use std::cell::Cell;

/// Seeds of the ordinary test run.
const SEEDS: u64 = 200;

/// The engine with tags that are numbers, and with a rule broken where a test says so.
pub(crate) struct Tested;

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    static IS_HOSTILE: Cell<bool> = const { Cell::new(false) };
}

impl World for Tested {
    type Tag = u64;
    type Memory = Buffer;

    fn keeps(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    fn contradicts(what: &dyn std::fmt::Display) {
        // Where blocks are used again at once, one is freed twice without anybody being to blame for it.
        assert!(IS_HOSTILE.get() || BROKEN.get() == Some(Rule::HoldFreed), "{what}");
    }
}

/// Does something without a rule.
fn without<T>(rule: Rule, work: impl FnOnce() -> T) -> T {
    BROKEN.set(Some(rule));
    let done = work();
    BROKEN.set(None);
    done
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn no_crash_loses_what_was_flushed() {
    let seeds = match number("ORLOP_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ORLOP_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = run::Counts::default();
    for seed in seeds.clone() {
        let counts = Run::<Tested>::all(seed);
        let counts = counts.unwrap_or_else(|what| panic!("seed {seed} (ORLOP_SIM_SEED={seed} repeats it): {what}"));
        total.add(&counts);
    }
    println!("seeds {seeds:?}: {total:?}");
    // A world in which nothing happens proves nothing.
    let worlds = seeds.end - seeds.start;
    let happened = [
        total.crashes,
        total.snapshots,
        total.clones,
        total.deleted,
        total.held,
        total.reopened_twice,
        total.killed,
        total.grown,
        total.hurried,
    ];
    assert!(worlds < 100 || happened.iter().all(|count| *count > worlds / 4), "too little happened: {total:?}");
    assert!(worlds < 100 || total.compared > 100 * worlds, "too little was compared: {total:?}");
}

/// One scenario, cut after each of its operations on the disk, one after the other.
#[test]
fn no_operation_is_the_wrong_one_to_crash_after() {
    let seed = number("ORLOP_SIM_SEED").unwrap_or(7);
    let mut cuts = 0;
    for cut in 0.. {
        match Run::<Tested>::cut_after(seed, cut) {
            Ok(true) => cuts += 1,
            Ok(false) => break,
            Err(what) => panic!("seed {seed}, cut {cut} (ORLOP_SIM_SEED={seed} repeats it): {what}"),
        }
    }
    println!("{cuts} cuts of seed {seed}");
    assert!(cuts > 100, "{cuts}");
}
