//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Asks `look` again and again until it answers, and gives up after `limit`; an error of `look` ends the wait at once.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            return Err(Error::NotInTime { what: what.to_owned(), limit });
        }
        tokio::time::sleep(pause).await;
    }
}
