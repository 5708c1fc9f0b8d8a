//! Work that would hold up other tasks, on threads where it may take its time.

use crate::error::{Error, Result};

/// Runs `work` on a blocking thread.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Interrupted(error.to_string()))
}
