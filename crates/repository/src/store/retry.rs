//! How often and how patiently a request to a store is repeated.

use super::{StoreError, StoreErrorKind};
use std::time::Duration;

/// How often an object is tried that its medium does not give: the disk itself has tried many times already, and a bad disk has
/// many such objects.
const UNREADABLE_ATTEMPTS: u32 = 3;

/// When requests are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is tried in all; at least once.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// Up to 50 seconds in all: longer than a failover of a storage server, shorter than the patience of a mover's caller.
    fn default() -> Self {
        Self { attempts: 9, first_wait: Duration::from_millis(250), longest_wait: Duration::from_secs(20) }
    }
}

impl RetryPolicy {
    /// One attempt only.
    pub const fn never() -> Self {
        Self { attempts: 1, first_wait: Duration::ZERO, longest_wait: Duration::ZERO }
    }

    /// For interactive questions such as "is this location right?": an answer within seconds.
    pub const fn brief() -> Self {
        Self { attempts: 3, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(1) }
    }

    pub(super) fn attempts(self) -> Attempts {
        Attempts { policy: self, made: 0 }
    }
}

/// The attempts made so far at one request.
pub(crate) struct Attempts {
    policy: RetryPolicy,
    made: u32,
}

impl Attempts {
    /// Waits before the next attempt, or gives the error back when it is final or there are no more attempts.
    pub(super) async fn wait_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.made += 1;
        let most = match error.kind {
            StoreErrorKind::Unreadable => self.policy.attempts.min(UNREADABLE_ATTEMPTS),
            _ => self.policy.attempts,
        };
        if !error.is_retryable() || self.made >= most {
            return Err(error);
        }
        let wait = self.policy.first_wait.saturating_mul(1 << (self.made - 1).min(20)).min(self.policy.longest_wait);
        // Half of the wait is random, so that writers that failed together do not come back together.
        let wait = wait.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tracing::debug!(%error, attempt = self.made, ?wait, "a request to the store is repeated");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
