//! The time of a pool: its engine has none.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a batch of changes waits for company before it goes into the log: longer than a fast disk needs for what is asked for at once, and short beside
/// what a slow one needs for anything.
const LINGER: Duration = Duration::from_millis(2);

/// Tells of one batch at a time when it has waited for long enough.
#[derive(Default)]
pub(super) struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batch: Option<u64>,
    is_closed: bool,
}

impl Clock {
    /// This batch has begun to wait. While another one is waited for this is for nothing; who is told of that one will ask again.
    pub(super) fn set(&self, batch: u64) {
        let mut state = self.lock();
        if state.batch.is_none() {
            state.batch = Some(batch);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until a batch has waited for long enough; none when the clock is closed.
    pub(super) fn next(&self) -> Option<u64> {
        let is_unset = |state: &mut State| state.batch.is_none() && !state.is_closed;
        let state = self.changed.wait_while(self.lock(), is_unset).unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, LINGER, |state| !state.is_closed);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_closed { None } else { state.batch.take() }
    }

    /// Nobody waits any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_the_first_that_waits_and_ends_when_it_is_closed() {
        let clock = Clock::default();
        clock.set(7);
        clock.set(8);
        assert_eq!(clock.next(), Some(7));
        clock.set(8);
        assert_eq!(clock.next(), Some(8));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| clock.next());
            clock.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }
}
