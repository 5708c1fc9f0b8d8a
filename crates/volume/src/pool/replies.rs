//! Who waits for an answer.
//!
//! Every request that was accepted has its callback here until it is answered, so whatever becomes of the engine, nobody is forgotten: each is taken out
//! once, and called by whoever took it, without any lock.

use crate::engine::Answer;
use crate::error::Error;
use crate::memory::Memory;

/// Whom an answer goes to.
pub(super) type Callback<M> = Box<dyn FnOnce(Result<Answer<M>, Error>) + Send>;

/// Callbacks by their numbers.
pub(super) struct Replies<M: Memory> {
    waiting: Vec<Option<Callback<M>>>,
    free: Vec<usize>,
}

impl<M: Memory> Default for Replies<M> {
    fn default() -> Self {
        Self { waiting: Vec::new(), free: Vec::new() }
    }
}

impl<M: Memory> Replies<M> {
    pub(super) fn keep(&mut self, done: Callback<M>) -> usize {
        match self.free.pop() {
            Some(tag) => {
                self.waiting[tag] = Some(done);
                tag
            }
            None => {
                self.waiting.push(Some(done));
                self.waiting.len() - 1
            }
        }
    }

    pub(super) fn take(&mut self, tag: usize) -> Option<Callback<M>> {
        let done = self.waiting.get_mut(tag)?.take()?;
        self.free.push(tag);
        Some(done)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() - self.free.len()
    }

    pub(super) fn take_all(&mut self) -> Vec<Callback<M>> {
        self.free.clear();
        self.waiting.drain(..).flatten().collect()
    }
}
