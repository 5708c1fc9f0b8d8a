//! What went wrong with one object; it is tried again.

use tonic::{Code, Status};

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API server said no, or nothing.
    #[error("{action}: {source}")]
    Kubernetes {
        /// What was to be done.
        action: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The driver said no, or nothing; in the words that the originals use.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Driver {
        /// Its code.
        code: Code,
        /// What it said.
        message: String,
    },
    /// Something is not as it must be yet.
    #[error("{0}")]
    NotYet(String),
}

impl Failure {
    /// Says what was to be done.
    pub(crate) fn kubernetes(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Kubernetes { action, source: Box::new(source) }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Driver { code: status.code(), message: status.message().to_owned() }
    }
}

/// What comes of one object.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// That an object is gone, or that there is one already, is no error to who wanted that.
pub(crate) fn unless(code: u16, result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code => Ok(()),
        other => other,
    }
}
