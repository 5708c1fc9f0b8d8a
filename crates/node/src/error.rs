//! What can go wrong, for whoever asks a node for something.

use std::error::Error as StdError;
use std::fmt;

/// What kind of error it is: what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was asked makes no sense; asking again changes nothing.
    Invalid,
    /// It is not there.
    NotFound,
    /// There is one already, and it is another.
    Exists,
    /// The state of something forbids it: it is attached, or not a volume that has what is wanted.
    Precondition,
    /// There is no room.
    NoRoom,
    /// A secret is missing or wrong.
    Denied,
    /// The bytes are not those that were written.
    Damaged,
    /// Something of it is under way; it is to be asked for again.
    Busy,
    /// The node or its disks did not do it.
    Failed,
}

/// Why something was not done: what was to be done, why it was not, and what helps.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What asking ends with.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        let mut story = self.what.clone();
        let mut source = self.source();
        while let Some(error) = source {
            story.push_str(&format!(": {error}"));
            source = error.source();
        }
        story
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Says what was to be done when the store did not do it.
pub(crate) fn stored(what: impl Into<String>) -> impl FnOnce(volume::Error) -> Error {
    let what = what.into();
    move |error| Error::new(kind_of(&error), what).because(error)
}

fn kind_of(error: &volume::Error) -> Kind {
    use volume::Error as E;
    match error {
        E::NoVolume(_) | E::NoSnapshot(_) => Kind::NotFound,
        E::NameTaken(_) => Kind::Exists,
        E::Full | E::TooMany { .. } => Kind::NoRoom,
        E::Unrelated { .. } => Kind::Precondition,
        E::BadName(_) | E::BadSize { .. } | E::Unaligned(_) | E::BeyondEnd { .. } | E::BadPoolSize { .. } => {
            Kind::Invalid
        }
        E::Corrupt { .. } | E::Unreadable { .. } | E::MapLost { .. } => Kind::Damaged,
        _ => Kind::Failed,
    }
}
