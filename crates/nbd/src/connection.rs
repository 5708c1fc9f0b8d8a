//! One connection, from its first byte to its last.

use crate::handshake::{Agreed, Closed, Terms, negotiate};
use crate::limits::Limits;
use crate::stream::Stream;
use crate::transmission::Transmission;
use block::Pool;
use std::future::poll_fn;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Serves a client until he leaves, breaks the protocol, or the server is stopped.
pub(crate) async fn serve(
    stream: Stream,
    terms: Terms,
    limits: Limits,
    pool: Pool,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) -> Result<(), Closed> {
    let agreed = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        agreed = tokio::time::timeout(limits.handshake, negotiate(stream, &terms)) => {
            agreed.map_err(|_| Closed::Slow("the handshake"))??
        }
    };
    let Some(Agreed { ready, stream, early }) = agreed else { return Ok(()) };
    let mut transmission = Transmission::new(ready, stream, &early, limits, pool, place);
    let end = tokio::select! {
        () = stop.cancelled() => Ok(()),
        end = poll_fn(|cx| transmission.poll_serve(cx)) => end,
    };
    // What was taken is answered, if the client still listens.
    if !matches!(end, Err(Closed::Io(_))) {
        let rest = tokio::time::timeout(limits.farewell, poll_fn(|cx| transmission.poll_finish(cx))).await;
        match rest {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the client took no more answers"),
            Err(_) => tracing::debug!("requests were still worked on when the connection ended"),
        }
    }
    let _ = tokio::time::timeout(limits.farewell, transmission.shutdown()).await;
    end
}
