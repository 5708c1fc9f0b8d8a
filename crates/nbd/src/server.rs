//! The server: exports, and the connections to them.

use crate::connection;
use crate::handshake::Terms;
use crate::limits::{Limits, MAX_TEXT_LEN};
use crate::listen::Listener;
use crate::tls::Tls;
use crate::uri::uri;
use block::{Device, Pool};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes of memory that all connections together keep for requests to come.
const MOST_IDLE: usize = 64 << 20;
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
    terms: Terms,
    limits: Limits,
    pool: Pool,
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
        Ok(Self { terms: Terms { exports: exports.into(), tls: None }, limits, pool: Pool::new(MOST_IDLE) })
    }

    /// The same, and nobody is spoken to in clear.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.terms.tls = Some(tls);
        self
    }

    /// The URI of an export of it on a listener.
    #[must_use]
    pub fn uri(&self, listener: &Listener, export: &str) -> String {
        uri(listener, export, self.terms.tls.is_some())
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
            let stream = match accepted {
                Ok(stream) => stream,
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
            let (terms, limits, pool, stop) = (self.terms.clone(), self.limits, self.pool.clone(), stop.clone());
            connections.spawn(async move {
                if let Err(error) = connection::serve(stream, terms, limits, pool, stop, place).await {
                    tracing::info!(error = &error as &dyn std::error::Error, "a connection was closed");
                }
            });
        }
        // No new client meets a server that is going.
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}
