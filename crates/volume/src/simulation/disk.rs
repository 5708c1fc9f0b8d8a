//! A disk that remembers what it was not yet told to keep.
//!
//! Its faults: when the power goes, of all that was written since the last flush each piece of 512 bytes is kept or lost by itself, or all of a
//! write, or all of everything, as the seed wants. Where the device writes larger sectors, some that something was written into are destroyed: each piece of
//! them, written or not, is what it was, or what was written, or neither. A fuse ends all service after so many writes. Ranges can be made unreadable or
//! unwritable, and bits flipped.

use super::random::Random;
use crate::disk::Disk;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// The disk.
pub(crate) struct TestDisk {
    state: Mutex<State>,
    unit: u32,
    sector: u32,
}

struct State {
    /// What survives.
    kept: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    /// Written since the last flush.
    unflushed: Vec<(usize, Vec<u8>)>,
    /// How many writes and flushes there may be before nothing works any more.
    fuse: Option<u64>,
    unreadable: Vec<Range<u64>>,
    unwritable: Vec<Range<u64>>,
    flush_fails: bool,
    written: u64,
    writes: u64,
    read: u64,
    flushes: u64,
}

impl TestDisk {
    pub(crate) fn new(bytes: usize, unit: u32) -> Self {
        Self::with_sectors(bytes, unit, unit)
    }

    pub(crate) fn with_sectors(bytes: usize, unit: u32, sector: u32) -> Self {
        let state = State {
            kept: vec![0; bytes],
            seen: vec![0; bytes],
            unflushed: Vec::new(),
            fuse: None,
            unreadable: Vec::new(),
            unwritable: Vec::new(),
            flush_fails: false,
            written: 0,
            writes: 0,
            read: 0,
            flushes: 0,
        };
        Self { state: Mutex::new(state), unit, sector }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes and comes back.
    pub(crate) fn crash(&self, random: &mut Random) {
        let mut state = self.state();
        let mode = random.below(5);
        for (at, bytes) in std::mem::take(&mut state.unflushed) {
            let keeps_all = random.chance(50);
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                let keeps = match mode {
                    0 => false,
                    1 => true,
                    2 => keeps_all,
                    _ => random.chance(50),
                };
                if keeps {
                    let at = at + i * SECTOR;
                    state.kept[at..at + sector.len()].copy_from_slice(sector);
                }
            }
            if mode > 2 && self.sector as usize > SECTOR && random.chance(20) {
                destroy(
                    &mut state.kept,
                    at / self.sector as usize * self.sector as usize,
                    self.sector as usize,
                    random,
                );
            }
        }
        state.seen = state.kept.clone();
        state.fuse = None;
    }

    /// Another with the same bytes, which are all durable.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::with_sectors(0, self.unit, self.sector);
        let seen = self.state().seen.clone();
        let mut state = copy.state();
        (state.kept, state.seen) = (seen.clone(), seen);
        drop(state);
        copy
    }

    /// After so many writes and flushes, nothing works any more.
    pub(crate) fn set_fuse(&self, operations: Option<u64>) {
        self.state().fuse = operations;
    }

    pub(crate) fn flip(&self, offset: u64, bit: u8) {
        let at = usize::try_from(offset).unwrap();
        let mut state = self.state();
        state.kept[at] ^= 1 << (bit % 8);
        state.seen[at] ^= 1 << (bit % 8);
    }

    pub(crate) fn set_unreadable(&self, bytes: Range<u64>) {
        self.state().unreadable.push(bytes);
    }

    pub(crate) fn set_unwritable(&self, bytes: Range<u64>) {
        self.state().unwritable.push(bytes);
    }

    pub(crate) fn set_flush_fails(&self, fails: bool) {
        self.state().flush_fails = fails;
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.unreadable.clear();
        state.unwritable.clear();
        state.flush_fails = false;
    }

    pub(crate) fn set_sector(&mut self, bytes: u32) {
        self.sector = bytes;
    }

    pub(crate) fn resize(&self, bytes: usize) {
        let mut state = self.state();
        state.kept.resize(bytes, 0);
        state.seen.resize(bytes, 0);
    }

    /// How often something was written, so far.
    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Bytes written, bytes read, and flushes, so far.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.written, state.read, state.flushes)
    }
}

impl State {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the fuse has blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What the device was writing when the power went.
fn destroy(kept: &mut [u8], at: usize, len: usize, random: &mut Random) {
    for piece in kept[at..at + len].chunks_mut(SECTOR) {
        if random.chance(50) {
            piece.fill_with(|| random.next().to_le_bytes()[0]);
        }
    }
}

fn meets(ranges: &[Range<u64>], offset: u64, len: usize) -> bool {
    ranges.iter().any(|range| offset < range.end && range.start < offset + len as u64)
}

impl Disk for TestDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state().seen.len() as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        assert!(offset.is_multiple_of(u64::from(self.unit)) && into.len().is_multiple_of(self.unit as usize));
        if state.fuse == Some(0) || meets(&state.unreadable, offset, into.len()) {
            return Err(io::Error::other("the medium cannot be read"));
        }
        let at = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        state.read += into.len() as u64;
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        assert!(offset.is_multiple_of(u64::from(self.unit)) && bytes.len().is_multiple_of(self.unit as usize));
        state.burn()?;
        if meets(&state.unwritable, offset, bytes.len()) {
            return Err(io::Error::other("the medium cannot be written"));
        }
        let at = usize::try_from(offset).unwrap();
        state.seen.get_mut(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        state.unflushed.push((at, bytes.to_vec()));
        state.written += bytes.len() as u64;
        state.writes += 1;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        if state.flush_fails {
            return Err(io::Error::other("the cache cannot be flushed"));
        }
        for (at, bytes) in std::mem::take(&mut state.unflushed) {
            state.kept[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        state.flushes += 1;
        Ok(())
    }

    fn unit(&self) -> u32 {
        self.unit
    }

    fn sector(&self) -> u32 {
        self.sector
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}
