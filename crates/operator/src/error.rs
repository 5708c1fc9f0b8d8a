//! What goes wrong in a reconcile, and is tried again.
//!
//! A run that cannot succeed is not an error here: its status says so. An error means that the operator could not look or could not act
//! this time, and looks again.

use std::net::SocketAddr;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{doing}: {source}")]
    Kube {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The repository could not be used.
    #[error("{doing}: {source}")]
    Repository {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What the repository says.
        #[source]
        source: Box<repository::Error>,
    },
    /// The objects of the application could not be read or made.
    #[error("{doing}: {source}")]
    Application {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value could not be written as JSON, or read from it.
    #[error("{doing}: {source}")]
    Json {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The port for health and metrics could not be had.
    #[error("listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The resource does not have what every stored resource has.
    #[error("{0} has no {1}: it was not read from an API server")]
    NotStored(String, &'static str),
    /// Somebody else has made what a run would make.
    #[error("there is a {0} that is not of this run; delete it")]
    Taken(String),
}

impl Error {
    /// Whether another writer was faster; then the next look finds what he wrote.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube { source, .. } if matches!(&**source, kube::Error::Api(s) if s.is_conflict()))
    }

    /// The words of an API server that does not take what it was given, unless it is only busy.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let Self::Kube { source, .. } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        let refused = (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 409 | 429);
        refused.then(|| status.message.clone())
    }

    /// The words of an API server that answered that it does not make what it was asked for. Unlike [`Self::refusal`] with those that it
    /// calls its own fault, such as that a webhook that it has to ask is down: they may pass, but nobody knows when.
    #[must_use]
    pub fn creation_refusal(&self) -> Option<String> {
        match self {
            Self::Taken(_) => Some(self.to_string()),
            Self::Kube { source, .. } => match &**source {
                kube::Error::Api(status) if status.code >= 500 => Some(status.message.clone()),
                _ => self.refusal(),
            },
            _ => None,
        }
    }

    /// A word for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kube { .. } if self.is_conflict() => "conflict",
            Self::Kube { .. } => "kubernetes",
            Self::Repository { .. } => "repository",
            Self::Application { .. } => "application",
            Self::Json { .. } => "json",
            Self::Listen { .. } => "listen",
            Self::NotStored(..) => "not_stored",
            Self::Taken(_) => "taken",
        }
    }
}

/// Says what was being done when an error came up. `doing` is a verb phrase that names the thing: "read the Secret shop/keys".
pub trait During<T> {
    /// Adds what was being done.
    ///
    /// # Errors
    /// The error of `self`, with that.
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Kube { doing: doing(), source: Box::new(source) })
    }
}

impl<T> During<T> for Result<T, repository::Error> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Repository { doing: doing(), source: Box::new(source) })
    }
}

impl<T> During<T> for Result<T, serde_json::Error> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Json { doing: doing(), source })
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16) -> Error {
        let status = Status { code, message: "failed calling webhook".into(), ..Status::default() };
        Error::Kube { doing: "create the Pod shop/m".into(), source: Box::new(kube::Error::Api(Box::new(status))) }
    }

    #[test]
    fn what_an_api_server_answers_is_told_apart() {
        let check = |code, refusal: bool, of_creation: bool| {
            let error = answered(code);
            assert_eq!(
                (error.refusal().is_some(), error.creation_refusal().is_some()),
                (refusal, of_creation),
                "{code}"
            );
        };
        check(403, true, true);
        check(422, true, true);
        check(409, false, false);
        check(429, false, false);
        check(500, false, true);
        check(503, false, true);
        let silent = Error::NotStored("Pod shop/m".into(), "uid");
        assert_eq!(silent.creation_refusal(), None);
        let taken = Error::Taken("Secret shop/m".into()).creation_refusal().unwrap_or_default();
        assert!(taken.contains("Secret shop/m"), "{taken}");
    }
}
