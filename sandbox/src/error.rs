//! What can go wrong when clusters are started, hurt and ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure of the machine, of a program, or of an input.
///
/// The messages are read by people at a terminal: each says what was done, to what, and where the reason is to be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Input(String),
    #[error("{problem}: {remedy}")]
    Machine { problem: String, remedy: String },
    #[error("{action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("`{command}` ended with {status}: {output}")]
    Command { command: String, status: String, output: String },
    #[error("{what} took more than {} s", limit.as_secs())]
    NotInTime { what: String, limit: Duration },
    #[error("{action}")]
    Kubernetes { action: String, source: Box<kube::Error> },
    #[error("read kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: Box<kube::config::KubeconfigError> },
    #[error("make certificate {name}")]
    Certificate { name: String, source: rcgen::Error },
    #[error("{action} {}", path.display())]
    Json { action: &'static str, path: PathBuf, source: serde_json::Error },
}

impl Error {
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    pub(crate) fn machine(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Machine { problem: problem.into(), remedy: remedy.into() }
    }

    /// For `map_err`: an input or output error gets the action and the path it happened at.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn kubernetes(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Kubernetes { action, source: Box::new(source) }
    }
}

/// An error with its causes in one line, for those who print it.
pub(crate) fn line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut line = error.to_string();
    for cause in causes {
        line += &format!(": {cause}");
    }
    line
}
