//! How many requests are under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts requests, and lets one wait until there are none.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicU64,
    waiter: Mutex<bool>,
    none: Condvar,
}

/// One request; it is to be dropped when the answer is sent, and after everything else that its callback has: who has waited for the last
/// request may count on nothing of it being there.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered(Arc<InFlight>);

impl InFlight {
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.count.fetch_add(1, Ordering::SeqCst);
        Entered(self.clone())
    }

    /// Waits until there are none; whether that came in time.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        *waiter = true;
        let some = |_: &mut bool| self.count.load(Ordering::SeqCst) > 0;
        let (mut waiter, timeout) =
            self.none.wait_timeout_while(waiter, patience, some).unwrap_or_else(PoisonError::into_inner);
        *waiter = false;
        !timeout.timed_out()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            // A waiter who has looked at the count holds the lock until he sleeps, so he is not missed.
            let waiter = self.0.waiter.lock().unwrap_or_else(PoisonError::into_inner);
            if *waiter {
                self.0.none.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_can_wait_for_the_last_request() {
        let requests = Arc::new(InFlight::default());
        assert!(requests.wait(Duration::ZERO));
        let (first, second) = (requests.enter(), requests.enter());
        drop(first);
        assert!(!requests.wait(Duration::from_millis(1)));
        let thread = std::thread::spawn(move || drop(second));
        assert!(requests.wait(Duration::from_secs(60)));
        thread.join().unwrap();
    }
}
