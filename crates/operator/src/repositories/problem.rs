//! What can be wrong with a location, told apart by what to do about it.

use api::FieldError;
use repository::ErrorKind;
use repository::store::StoreError;

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
                ErrorKind::Invalid => "InvalidSpec",
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

/// An error with what lies below it, since a person needs to know that it was a refused connection, or an unknown authority.
fn with_causes(error: &repository::Error) -> String {
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
