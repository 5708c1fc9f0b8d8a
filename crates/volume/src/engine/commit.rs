//! Group commit: the log is written once and flushed once for all who wait.

use super::io::Io;
use super::log::Stage;
use super::request::Answer;
use super::{Engine, Purpose, Rule, World};
use crate::format::layout::LOG_START;
use crate::units::BLOCK_BYTES;

impl<W: World> Engine<W> {
    /// Somebody wants to know when all that is applied by now is durable. If it is already, nothing is done.
    pub(super) fn begin_flush(&mut self, tag: W::Tag) {
        if let Some(error) = &self.failed {
            let error = error.clone();
            return self.answer(tag, Err(error));
        }
        self.flushes.push_back((self.log.applied, tag));
        self.answer_flushes();
    }

    /// Answers who waits for the log to have what he has changed.
    pub(super) fn answer_logged(&mut self) {
        while let Some((wanted, _)) = self.unlogged.front()
            && self.log.has(*wanted)
        {
            if let Some((_, tag)) = self.unlogged.pop_front() {
                self.answer(tag, Ok(Answer::Done));
            }
        }
    }

    pub(super) fn answer_flushes(&mut self) {
        while let Some((wanted, _)) = self.flushes.front()
            && *wanted <= self.log.durable
        {
            if let Some((_, tag)) = self.flushes.pop_front() {
                self.answer(tag, Ok(Answer::Done));
            }
        }
    }

    /// Writes what is pending if somebody waits for it or it is much, and flushes if somebody waits; that first who has waited longest, or he would wait for as
    /// long as others write.
    pub(super) fn commit(&mut self) {
        if self.failed.is_some() || self.log.stage != Stage::Idle {
            return;
        }
        let is_awaited = !self.flushes.is_empty();
        let is_written = self.flushes.front().is_some_and(|(wanted, _)| self.log.has(*wanted));
        if is_written && self.log.begin_flush() {
            return self.ask(Purpose::LogFlush, Io::Flush);
        }
        let is_wanted = is_awaited || self.is_due() || self.log.is_filling();
        if !self.log.has_sealed() && self.log.has_pending() && is_wanted {
            let sealed = self.log.seal(self.durable_checkpoint, false);
            if sealed {
                self.company.close();
            } else {
                // The ring is full. It has room again when a checkpoint is durable.
                self.checkpoint_wanted = true;
                self.maybe_checkpoint();
            }
        }
        if self.log.has_sealed() {
            let (pieces, changes) = self.log.take_sealed();
            self.counts.log_writes += 1;
            self.counts.log_changes += changes;
            self.counts.log_bytes += pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            let pieces = pieces.into_iter();
            let pages = pieces.map(|(offset, bytes)| (LOG_START * BLOCK_BYTES + offset, bytes)).collect();
            self.ask(Purpose::LogWrite, Io::Pages { pages });
        } else if is_awaited && self.log.begin_flush() {
            self.ask(Purpose::LogFlush, Io::Flush);
        }
    }

    pub(super) fn log_written(&mut self, result: Result<(), (u64, String)>) {
        if let Err((place, reason)) = result {
            return self.fail(format!("the log cannot be written at block {place} of the pool: {reason}"));
        }
        self.log.set_written();
        self.answer_logged();
        if !W::keeps(Rule::FlushLog) && self.log.begin_flush() {
            self.log.set_flushed();
            self.answer_flushes();
        }
        self.resume();
    }

    pub(super) fn log_flushed(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            return self.fail(format!("the device does not flush: {reason}"));
        }
        self.counts.log_syncs += 1;
        self.log.set_flushed();
        self.answer_flushes();
        self.resume();
    }
}
