//! What can be wrong with a location, told apart by what to do about it.

use api::FieldError;
use repository::ErrorKind;
use repository::store::StoreError;

use crate::conditions::shorten;

/// Why a location cannot be used; all of these are the location's, not the operator's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LocationProblem {
    /// There is no such location.
    #[error("there is no BackupLocation {namespace}/{name}; create it, or name another")]
    NoLocation {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Its spec is wrong.
    #[error("{}", join(.0))]
    InvalidSpec(Vec<FieldError>),
    /// A Secret that it names does not exist.
    #[error("there is no Secret {namespace}/{name}, which {field} names; create it")]
    SecretNotFound {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// A Secret lacks an entry, or the entry is not text.
    #[error("the Secret {name} has no entry {key:?} that is text and not empty, which {field} needs; add it")]
    NoSecretEntry {
        /// Its name.
        name: String,
        /// The entry.
        key: String,
        /// The field that needs it.
        field: &'static str,
    },
    /// The store or the repository in it.
    #[error("{what}: {guidance}", what = with_causes(.0), guidance = .0.guidance())]
    Repository(#[from] repository::Error),
    /// It did not answer in time.
    #[error(
        "{place} did not answer within {seconds} s; check that the endpoint is right and can be reached from this cluster"
    )]
    TooSlow {
        /// The store.
        place: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another repository is where one was before.
    #[error(
        "the repository here is {found}, and was {expected}: somebody replaced it; bring the old one back, or create another BackupLocation \
         for the new one"
    )]
    OtherRepository {
        /// The identity that was found before.
        expected: String,
        /// The identity that is found now.
        found: String,
    },
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<StoreError> for LocationProblem {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl LocationProblem {
    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoLocation { .. } => "LocationNotFound",
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::SecretNotFound { .. } | Self::NoSecretEntry { .. } => "SecretNotFound",
            Self::TooSlow { .. } => "Unreachable",
            Self::OtherRepository { .. } => "OtherRepository",
            Self::Repository(error) => match error.kind() {
                ErrorKind::NotARepository => "NotARepository",
                ErrorKind::WrongPassphrase => "WrongPassphrase",
                ErrorKind::Newer => "NewerFormat",
                ErrorKind::Damaged => "Damaged",
                ErrorKind::AccessDenied => "AccessDenied",
                ErrorKind::NoSpace => "NoSpace",
                ErrorKind::Pinned => "Pinned",
                // Nothing is deleted in order to open a repository, so nothing can be refused for its lock.
                ErrorKind::Invalid | ErrorKind::Locked => "InvalidSpec",
                ErrorKind::Revoked => "Revoked",
                ErrorKind::Busy => "Busy",
                ErrorKind::AlreadyExists | ErrorKind::NotFound => "BucketNotFound",
                ErrorKind::Unreachable | ErrorKind::Interrupted => "Unreachable",
            },
        }
    }

    /// Whether it may pass without anybody changing what is there: then a run waits for a while. What is not there yet may come, since
    /// manifests are applied in any order.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoLocation { .. } | Self::SecretNotFound { .. } | Self::TooSlow { .. } => true,
            Self::InvalidSpec(_) | Self::NoSecretEntry { .. } | Self::OtherRepository { .. } => false,
            Self::Repository(error) => error.is_retryable() || error.kind() == ErrorKind::NotARepository,
        }
    }
}

/// What an object store says of a request that failed, up to how it ended: how long that took and how often it was tried differ each time.
const TRIED: [&str; 2] = [" in ", " - "];
/// Parts of an answer of an object store that differ each time and tell nobody anything: the names of requests and hosts.
const NAMES: [&str; 3] = ["RequestId", "HostId", "RequestID"];
/// Longest text of one problem, in characters: an answer of a store may be a page.
const PROBLEM_CHARS: usize = 600;

/// An error with what lies below it, since a person needs to know that it was a refused connection, or an unknown authority. The same
/// problem gives the same text each time.
fn with_causes(error: &repository::Error) -> String {
    shorten(&steady(&all_causes(error)), PROBLEM_CHARS)
}

/// A text without what differs each time that the same thing happens.
fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(begin) = text.find("Error performing ") {
        let tried = text[begin..].find(TRIED[0]).map(|at| begin + at);
        let end = tried.and_then(|tried| text[tried..].find(TRIED[1]).map(|at| tried + at));
        if let (Some(tried), Some(end)) = (tried, end) {
            text.replace_range(tried..end, "");
        }
    }
    for name in NAMES {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        while let Some(begin) = text.find(&open) {
            let Some(end) = text[begin..].find(&close) else { break };
            text.replace_range(begin..begin + end + close.len(), "");
        }
    }
    text
}

fn all_causes(error: &repository::Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_problem_has_the_same_words_each_time() {
        let said = |seconds: &str, id: &str| {
            format!(
                "list points: access is denied: Error performing GET http://s3/b?list in {seconds}, after 3 retries, max_retries: 3, \
                 retry_timeout: 30s  - Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code>\
                 <RequestId>{id}</RequestId><HostId>{id}</HostId></Error>"
            )
        };
        let steady_text = steady(&said("1.2s", "A"));
        assert_eq!(steady_text, steady(&said("31.75ms", "B")));
        assert_eq!(
            steady_text,
            "list points: access is denied: Error performing GET http://s3/b?list - Server returned non-2xx status code: 403 Forbidden: \
             <Error><Code>AccessDenied</Code></Error>"
        );
        for plain in ["the store is full", "Error performing GET without an end", "<RequestId>cut o"] {
            assert_eq!(steady(plain), plain);
        }
    }
}
