//! The interrupt key, for work that this process does itself.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Exit, Result};

/// Does work until it is done or the key is pressed; then the work is told to stop, and has ended when this returns.
pub(crate) async fn until_interrupted<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    tokio::select! {
        end = &mut work => end,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.map_err(|e| Error::new("listen for the interrupt key").because(e))?;
            cancel.cancel();
            work.await.map_err(|e| e.exit(Exit::Interrupted))
        }
    }
}
