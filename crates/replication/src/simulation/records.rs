//! The record store of the cluster, and the ways to it, which lose questions and answers.

use super::world::{Happening, MILLI, World};
use crate::attachment::CallId;
use crate::record::Record;
use crate::record::memory::MemoryRecords;
use crate::record::store::{StoreError, SwapError, Version};

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) kept: MemoryRecords,
    pub(super) is_down: bool,
    pub(super) is_slow: bool,
}

impl World {
    pub(super) fn ask_store(&mut self, node: usize, what: Happening) {
        if self.nodes[node].is_cut_off_from_store {
            return;
        }
        let delay = self.store_delay();
        self.later(delay, what);
    }

    fn store_delay(&mut self) -> u64 {
        // Slow: a swap may come long after it was given up.
        let most = if self.records.is_slow { 2500 } else { 8 };
        (1 + self.random.below(most)) * MILLI
    }

    /// `None`: the answer is lost.
    fn answer_delay(&mut self, node: usize) -> Option<u64> {
        let is_lost =
            self.nodes[node].is_cut_off_from_store || (!self.is_calm && self.random.chance(self.habits.loses_answers));
        let delay = self.store_delay();
        (!is_lost).then_some(delay)
    }

    pub(super) fn store_get(&mut self, volume: usize, client: usize, call: CallId) {
        let result = if self.records.is_down {
            if self.random.chance(50) {
                return;
            }
            Err(StoreError { reason: "it is down".into() })
        } else {
            Ok(self.records.kept.look(self.volumes[volume].id))
        };
        let node = self.volumes[volume].clients[client].node;
        if let Some(delay) = self.answer_delay(node) {
            self.later(delay, Happening::Got { volume, client, call, result });
        }
    }

    pub(super) fn store_swap(
        &mut self,
        volume: usize,
        client: usize,
        call: CallId,
        expected: &Version,
        record: Record,
    ) {
        let unknown = || Err(SwapError::Unknown { reason: "no answer".into() });
        let node = self.volumes[volume].clients[client].node;
        if self.records.is_down {
            if let Some(delay) = self.answer_delay(node) {
                self.later(delay, Happening::Swapped { volume, client, call, result: unknown() });
            }
            return;
        }
        let result = self.records.kept.put(self.volumes[volume].id, Some(expected), record);
        if result.is_ok() {
            self.record_changed(volume);
        }
        let is_unknown = !self.is_calm && self.random.chance(self.habits.loses_answers);
        if let Some(delay) = self.answer_delay(node) {
            let result = if is_unknown { unknown() } else { result };
            self.later(delay, Happening::Swapped { volume, client, call, result });
        }
    }

    /// Watches tell: mostly at once, and all of them when the faults have ended.
    pub(super) fn record_changed(&mut self, volume: usize) {
        for client in 0..self.volumes[volume].clients.len() {
            if self.is_calm || self.random.chance(70) {
                let delay = self.store_delay();
                self.later(delay, Happening::RecordChanged { volume, client });
            }
        }
    }
}
