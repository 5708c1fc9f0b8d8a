//! The server: exports, and the connections to them.

use crate::connection;
use crate::device::Device;
use crate::limits::{Limits, MAX_TEXT_LEN};
use crate::listen::Listener;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{BufReader, BufWriter};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes of small pieces of a reply that are sent together.
const WRITE_BUFFER_LEN: usize = 64 << 10;
/// Bytes that are read at once: many headers, or the begin of what is written.
const READ_BUFFER_LEN: usize = 16 << 10;
/// How long accepting pauses when the system refuses a connection, because there are no more files for instance: long enough to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A device under a name.
#[derive(Clone)]
pub struct Export {
    /// What clients ask for; may be empty.
    pub name: String,
    /// What a person reads in a list.
    pub description: String,
    /// The device.
    pub device: Arc<dyn Device>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Export({:?})", self.name)
    }
}

/// Why exports cannot be served together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportsError {
    /// Two have one name.
    #[error("there are two exports of the name {0:?}")]
    Twice(String),
    /// The protocol has no room for a text.
    #[error("the name or the description of the export {0:?} is longer than {MAX_TEXT_LEN} bytes, or has a NUL")]
    Text(String),
}

/// Serves exports to clients.
#[derive(Debug, Clone)]
pub struct Server {
    exports: Arc<[Export]>,
    limits: Limits,
}

impl Server {
    /// A server of these exports.
    pub fn new(exports: Vec<Export>, limits: Limits) -> Result<Self, ExportsError> {
        let fits = |text: &str| text.len() <= MAX_TEXT_LEN && !text.contains('\0');
        for (index, export) in exports.iter().enumerate() {
            if !fits(&export.name) || !fits(&export.description) {
                return Err(ExportsError::Text(export.name.clone()));
            }
            if exports[..index].iter().any(|other| other.name == export.name) {
                return Err(ExportsError::Twice(export.name.clone()));
            }
        }
        Ok(Self { exports: exports.into(), limits })
    }

    /// Serves clients until `stop`; requests that were taken by then are answered before this returns.
    pub async fn serve(&self, listener: Listener, stop: CancellationToken) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (reader, writer) = match accepted {
                Ok(halves) => halves,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(connections = self.limits.connections, "a client was turned away: all places are taken");
                continue;
            };
            let (exports, limits, stop) = (self.exports.clone(), self.limits, stop.clone());
            connections.spawn(async move {
                let reader = BufReader::with_capacity(READ_BUFFER_LEN, reader);
                let writer = BufWriter::with_capacity(WRITE_BUFFER_LEN, writer);
                if let Err(error) = connection::serve(reader, writer, exports, limits, stop).await {
                    tracing::info!(error = &error as &dyn std::error::Error, "a connection was closed");
                }
                drop(place);
            });
        }
        // No new client meets a server that is going.
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}
