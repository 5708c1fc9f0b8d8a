//! How long a store is waited for.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a store is waited for.
///
/// Nothing here decides what is true: a swap that takes too long has an unknown outcome, and a read none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One request, its connection included. 10 s: API servers answer small requests in milliseconds, and give up waiting for their own store after some
    /// seconds. A read is tried at every endpoint, so it may take this long for each.
    pub request: Duration,
    /// One watch, after which it is begun anew. 240 s: below the five minutes after which proxies commonly close what is quiet, and long, since each begin
    /// costs a read. A watch that has lost its server without being told (the machine is gone) is late by this much at most.
    pub watch: Duration,
    /// From the first failure of a watch to its next try; each further one doubles it. 200 ms.
    pub first_pause: Duration,
    /// The longest time between two tries. 10 s: soon after a store is back, its watches are.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            watch: Duration::from_secs(240),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// Before the next try, after so many failures and one.
    fn pause(&self, failures: u32) -> Duration {
        self.first_pause.saturating_mul(2_u32.saturating_pow(failures)).min(self.longest_pause)
    }
}

/// Puts time between the tries of what fails.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failures: u32,
    until: Option<Instant>,
}

impl Pauses {
    /// Returns when the next try may be made. Whoever gives up waiting loses nothing.
    pub(crate) async fn pass(&self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
    }

    pub(crate) fn failed(&mut self, patience: &Patience) {
        let until = Instant::now() + patience.pause(self.failures);
        (self.failures, self.until) = (self.failures.saturating_add(1), Some(until));
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::Patience;

    #[test]
    fn pauses_grow_to_their_limit() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|failures| Patience::default().pause(failures).as_millis());
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }
}
