//! Changes of a volume, held back while snapshots of volumes in several pools are taken.
//!
//! Each pool takes its snapshots at an instant of its own. They are of *one* instant for everybody who looks, if no change is in one of them that was asked for
//! because of a change that is not in another. So from before the first instant until after the last no change of any of the volumes is let through: whoever
//! is answered meanwhile, and asks for another change then, waits. What was let through before may be in a snapshot or not, as it is when the power goes;
//! nothing that is in one was asked for because of it. Nothing has to be waited for, so the gate is closed as long as the pools need and no longer.

use block::{Buffer, ContextQuery, Description, Device, Done, Failure, Status, ZeroMode};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Held = Box<dyn FnOnce() + Send>;

/// What changes of one volume go through. It is open when it is made.
#[derive(Default)]
pub(crate) struct Gate {
    /// What waits, while it is closed.
    waiting: Mutex<Option<Vec<Held>>>,
}

impl Gate {
    /// Lets a change through, now or when it is open again.
    fn pass(&self, change: impl FnOnce() + Send + 'static) {
        let mut waiting = self.lock();
        match waiting.as_mut() {
            Some(waiting) => waiting.push(Box::new(change)),
            None => {
                drop(waiting);
                change();
            }
        }
    }

    fn close(&self) {
        self.lock().get_or_insert_default();
    }

    fn open(&self) {
        let waiting = self.lock().take();
        waiting.into_iter().flatten().for_each(|change| change());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Held>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gates that are closed until this is dropped.
pub(crate) struct Closed(Vec<Arc<Gate>>);

impl Closed {
    /// Closes all of them, one after the other: when this returns, no change comes through any of them.
    pub(crate) fn all(gates: Vec<Arc<Gate>>) -> Self {
        gates.iter().for_each(|gate| gate.close());
        Self(gates)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.iter().for_each(|gate| gate.open());
    }
}

/// A device behind a gate. What reads it goes through always, and so does a flush, which changes nothing that can be seen.
pub(crate) struct Gated {
    inner: Arc<dyn Device>,
    gate: Arc<Gate>,
}

impl Gated {
    pub(crate) fn new(inner: Arc<dyn Device>, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Device for Gated {
    fn describe(&self) -> Result<Description, Failure> {
        self.inner.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.inner.read(offset, buffer, done);
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        let inner = self.inner.clone();
        self.gate.pass(move || inner.write(offset, bytes, durable, done));
    }

    fn flush(&self, done: Done<()>) {
        self.inner.flush(done);
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        let inner = self.inner.clone();
        self.gate.pass(move || inner.discard(range, durable, done));
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        let inner = self.inner.clone();
        self.gate.pass(move || inner.write_zeroes(range, mode, done));
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.inner.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        self.inner.block_status(context, range, most, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn changes_wait_while_it_is_closed_and_none_is_lost() {
        let (gates, passed) = ([Arc::new(Gate::default()), Arc::new(Gate::default())], Arc::new(AtomicUsize::new(0)));
        let change = |gate: &Gate| {
            let passed = passed.clone();
            gate.pass(move || {
                passed.fetch_add(1, Ordering::Relaxed);
            });
        };
        change(&gates[0]);
        assert_eq!(passed.load(Ordering::Relaxed), 1);
        let closed = Closed::all(gates.to_vec());
        gates.iter().for_each(|gate| change(gate));
        change(&gates[1]);
        assert_eq!(passed.load(Ordering::Relaxed), 1);
        drop(closed);
        assert_eq!(passed.load(Ordering::Relaxed), 4);
        change(&gates[1]);
        assert_eq!(passed.load(Ordering::Relaxed), 5);
    }
}
