//! How errors of volumes and of this machine are told over gRPC.

use crate::host::HostError;
use crate::ledger::LedgerError;
use crate::volumes::{Error, Kind};
use tonic::{Code, Status};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::InvalidArgument,
            Kind::NotFound => Code::NotFound,
            Kind::Exists => Code::AlreadyExists,
            Kind::Precondition => Code::FailedPrecondition,
            Kind::NoRoom => Code::ResourceExhausted,
            // Not a right is missing, but what opens the volume.
            Kind::Denied => Code::Unauthenticated,
            Kind::Damaged => Code::DataLoss,
            Kind::Busy => Code::Aborted,
            Kind::Failed => Code::Internal,
        };
        Self::new(code, error.story)
    }
}

impl From<HostError> for Status {
    fn from(error: HostError) -> Self {
        let code = match &error {
            HostError::Busy { .. } => Code::Aborted,
            HostError::Refused { .. } => Code::InvalidArgument,
            HostError::Missing { .. } => Code::FailedPrecondition,
            HostError::System { .. } | HostError::Program { .. } => Code::Internal,
        };
        Self::new(code, error.story())
    }
}

impl From<LedgerError> for Status {
    fn from(error: LedgerError) -> Self {
        Self::internal(error.story())
    }
}

/// A `source` and its sources, in one line.
pub(crate) fn story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        story.push_str(&format!(": {error}"));
        source = error.source();
    }
    story
}
