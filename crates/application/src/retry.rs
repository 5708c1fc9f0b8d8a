//! Trying again what may pass, for a bounded time.

use std::time::Duration;

use crate::failure::Failure;

/// How long this crate waits for a cluster: every waiting time there is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries of one request in all. Six, with the waits below, bridge about six seconds: an API server that restarts, or a
    /// leader that etcd elects anew.
    pub tries: u32,
    /// Wait before the second try; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait between two tries, also when the server asks for more.
    pub longest_wait: Duration,
    /// How long a deleted object may take to be gone before its replacement is given up: finalizers and graceful ends of pods
    /// (30 s by default) fit in.
    pub gone_within: Duration,
    /// How long a definition may take to be established.
    pub established_within: Duration,
    /// Time between two looks at something that is waited for.
    pub look_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 6,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(5),
            gone_within: Duration::from_secs(120),
            established_within: Duration::from_secs(60),
            look_every: Duration::from_millis(100),
        }
    }
}

impl Patience {
    /// The wait after a number of failed tries; `None` when there are none left.
    pub fn wait_after(&self, failed_tries: u32, failure: &Failure) -> Option<Duration> {
        if !failure.retryable || failed_tries >= self.tries {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << failed_tries.saturating_sub(1).min(16));
        Some(failure.retry_after.unwrap_or(doubled).min(self.longest_wait))
    }

    /// Does a request until it succeeds, fails for good, or the tries are used up.
    pub async fn request<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failed_tries = 0;
        loop {
            let failure = match request().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            failed_tries += 1;
            let Some(wait) = self.wait_after(failed_tries, &failure) else {
                return Err(failure);
            };
            tracing::debug!(%failure, failed_tries, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Looks until a condition holds; `None` when it does not within the given time.
    pub async fn until<T, F>(&self, within: Duration, mut look: impl FnMut() -> F) -> Result<Option<T>, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Some(value) = look().await? {
                return Ok(Some(value));
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(self.look_every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn quick() -> Patience {
        Patience { first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(4), ..Patience::default() }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let patience =
            Patience { tries: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(3), ..quick() };
        let waits: Vec<_> =
            (1..6).map(|failed| patience.wait_after(failed, &Failure::passing("x")).map(|w| w.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), Some(3), None]);
        assert_eq!(patience.wait_after(1, &Failure::lasting("x")), None);
        let asked = Failure { retry_after: Some(Duration::from_secs(2)), ..Failure::passing("x") };
        assert_eq!(patience.wait_after(1, &asked), Some(Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_lasts_is_not() {
        let tries = Cell::new(0);
        let answer = quick()
            .request(|| async {
                tries.set(tries.get() + 1);
                if tries.get() < 3 { Err(Failure::passing("busy")) } else { Ok(tries.get()) }
            })
            .await;
        assert_eq!(answer, Ok(3));

        tries.set(0);
        let answer: Result<(), _> = quick()
            .request(|| async {
                tries.set(tries.get() + 1);
                Err(Failure::lasting("no"))
            })
            .await;
        assert!(answer.is_err());
        assert_eq!(tries.get(), 1);
    }
}
