//! What every device must do, whoever made it.

use super::{block_status, discard, flush, read, write, write_zeroes};
use crate::{ALLOCATION, ContextQuery, Device, HOLE, ZERO, ZeroMode};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::ops::Range;

/// Requests of one run.
const REQUESTS: usize = 400;
/// The longest of them, in bytes.
const LONGEST: u64 = 300 << 10;

/// The seed of a randomised test: that of the variable `SEED`, or another each time. It is printed, so that a failure can be had again.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    seed
}

/// Bytes that no other place has.
pub fn random_bytes(random: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}

/// Does what a client might do, and compares each answer with that of a plain array of bytes.
///
/// # Panics
///
/// When the device differs from the array.
pub fn check(device: &dyn Device, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let about = device.describe().expect("it describes itself");
    assert!(about.blocks.are_valid(), "{:?}", about.blocks);
    assert!(about.size.is_multiple_of(u64::from(about.blocks.minimum)), "a part of a block at the end");
    let mut model = read_all(device, about.size);
    for _ in 0..REQUESTS {
        let range = any_range(&mut random, about.size, u64::from(about.blocks.minimum));
        let span = span(&range);
        match random.random_range(0..8) {
            0 | 1 if about.features.write => {
                let bytes = random_bytes(&mut random, span.len());
                let durable = about.features.durable_writes && random.random();
                write(device, range.start, &bytes, durable).expect("it takes writes");
                model[span].copy_from_slice(&bytes);
            }
            2 if about.features.write && about.features.write_zeroes => {
                let mode = ZeroMode { durable: false, keep_allocated: random.random() };
                write_zeroes(device, range, mode).expect("it writes zeros");
                model[span].fill(0);
            }
            3 if about.features.write && about.features.discard => {
                discard(device, range.clone()).expect("it discards");
                // What is there now is its choice; it stays.
                model[span.clone()].copy_from_slice(&read(device, range).expect("it reads"));
            }
            4 if about.features.write && about.features.flush => flush(device).expect("it flushes"),
            5 => check_allocation(device, range, &model),
            _ => assert!(read(device, range.clone()).expect("it reads") == model[span], "{range:?} differs"),
        }
    }
    assert!(read_all(device, about.size) == model, "some byte differs");
    if !about.features.write {
        assert!(write(device, 0, &model[..about.blocks.minimum as usize], false).is_err(), "it takes a write");
    }
}

fn check_allocation(device: &dyn Device, range: Range<u64>, model: &[u8]) {
    let has = |query| device.contexts(query, 10).expect("it knows its contexts");
    if !has(ContextQuery::Beginning("")).contains(&ALLOCATION.to_owned()) {
        return;
    }
    assert_eq!(has(ContextQuery::Named(ALLOCATION)), [ALLOCATION]);
    assert_eq!(has(ContextQuery::Named("base:nothing")), Vec::<String>::new());
    let states = block_status(device, ALLOCATION, range.clone(), 3).expect("it knows holes");
    assert!((1..=3).contains(&states.len()), "{states:?}");
    let mut at = range.start;
    for state in states {
        assert!(state.len > 0 && state.flags & !(HOLE | ZERO) == 0, "{state:?}");
        let end = (at + state.len).min(range.end);
        if state.flags & ZERO != 0 {
            assert!(model[span(&(at..end))].iter().all(|byte| *byte == 0), "{at} to {end} is not zeros");
        }
        at = end;
    }
}

fn any_range(random: &mut StdRng, size: u64, block: u64) -> Range<u64> {
    let blocks = size / block;
    let len = random.random_range(1..=(LONGEST / block).clamp(1, blocks));
    let start = random.random_range(0..=blocks - len);
    start * block..(start + len) * block
}

fn read_all(device: &dyn Device, size: u64) -> Vec<u8> {
    let starts = (0..size).step_by(1 << 20);
    starts.flat_map(|at| read(device, at..(at + (1 << 20)).min(size)).expect("it reads")).collect()
}

fn span(range: &Range<u64>) -> Range<usize> {
    let place = |at: u64| usize::try_from(at).expect("it was read into memory");
    place(range.start)..place(range.end)
}
