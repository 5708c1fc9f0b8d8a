//! A disk that loses what was not flushed.

use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};
use volume::Disk;

const SECTOR: usize = 512;

/// Bytes in memory, with a cache in front of them that a loss of power takes parts of: each sector by itself is written or not.
pub(super) struct Volatile(Mutex<State>);

struct State {
    durable: Vec<u8>,
    cached: BTreeMap<usize, [u8; SECTOR]>,
}

impl Volatile {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Mutex::new(State { durable: vec![0; bytes], cached: BTreeMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power goes. Of what was not flushed any part may be there.
    pub(super) fn lose_power(&self, random: &mut StdRng) {
        let mut state = self.lock();
        let kept = random.random_range(0..=100);
        for (sector, bytes) in std::mem::take(&mut state.cached) {
            if random.random_range(0..100) < kept {
                state.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
            }
        }
    }
}

impl Disk for Volatile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.lock().durable.len() as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let first = usize::try_from(offset).unwrap() / SECTOR;
        for (i, into) in into.chunks_mut(SECTOR).enumerate() {
            let durable = &state.durable[(first + i) * SECTOR..][..SECTOR];
            into.copy_from_slice(state.cached.get(&(first + i)).map_or(durable, |cached| cached));
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let first = usize::try_from(offset).unwrap() / SECTOR;
        let mut state = self.lock();
        for (i, bytes) in bytes.as_chunks().0.iter().enumerate() {
            state.cached.insert(first + i, *bytes);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.lock();
        for (sector, bytes) in std::mem::take(&mut state.cached) {
            state.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn unit(&self) -> u32 {
        512
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}
