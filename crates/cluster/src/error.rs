//! What can go wrong between here and the API server.

use replication::record::store::{StoreError, SwapError};
use std::time::Duration;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do it.
    #[error("{what}: {source}")]
    Kube {
        /// What was to be done.
        what: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not answer.
    #[error("{what}: the API server has not answered in {} s", limit.as_secs())]
    Late {
        /// What was to be done.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A record cannot be read.
    #[error("{0}")]
    Record(#[from] StoreError),
    /// A record was not changed.
    #[error("{0}")]
    Swap(#[from] SwapError),
    /// The node did not do it.
    #[error("{0}")]
    Node(String),
    /// Certificates cannot be made.
    #[error("make certificates")]
    Certificates(#[from] rcgen::Error),
    /// An object is not what it should be.
    #[error("{0}")]
    Odd(String),
}

/// What asking ends with.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Asks the API server, and says what for.
pub(crate) async fn ask<T>(
    limit: Duration,
    what: impl FnOnce() -> String,
    asked: impl Future<Output = std::result::Result<T, kube::Error>>,
) -> Result<T> {
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Kube { what: what(), source: Box::new(source) }),
        Err(_) => Err(Error::Late { what: what(), limit }),
    }
}

/// The code of the API server's refusal.
pub(crate) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Kube { source, .. } => match &**source {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        _ => None,
    }
}
