//! Keys: who can open a repository, and how that is changed without touching its data.
//!
//! The master key lies in the store once for each *recipient*, wrapped with what only that recipient has. Adding, removing and
//! rotating recipients writes and deletes those objects and nothing else; whoever had the master key keeps what he knows.
//!
//! [`find`] looks for the key that a recipient opens; a [`KeyRing`] holds the master key while recipients are changed; [`erase`]
//! deletes all keys, so that nobody opens anything any more.

mod aws;
mod erase;
mod find;
mod kms;
mod object;
mod passphrase;
mod removal;
mod ring;
#[cfg(test)]
mod wiped;

pub use aws::{AwsKms, AwsKmsConfig};
pub use erase::{erase, identity};
pub use kms::{Kms, KmsContext, KmsError, KmsErrorKind, Wrapped};
pub use passphrase::Cost;
pub use ring::{KeyEntry, KeyInfo, KeyMethod, KeyRing, Rotated, list};

pub(crate) use find::find;
pub(crate) use object::{KeyObject, MAX_KEY_OBJECT_LEN, wrap};
pub(crate) use removal::verify_announcement;

use crate::error::ErrorKind;
use crate::ids::KeyId;
use crate::secret::Passphrase;
use jiff::Timestamp;
use std::sync::Arc;

/// How many keys of a repository are tried, and how many it may have; each costs a second or so of a hostile repository's choosing.
pub(crate) const MAX_KEYS: usize = 64;

/// Who opens a repository, with the secret that he has or may use.
#[derive(Debug, Clone)]
pub enum Recipient {
    /// Whoever knows a passphrase.
    Passphrase(Passphrase),
    /// Whoever may use a key of a key management service.
    Kms(Arc<dyn Kms>),
}

impl Recipient {
    /// What messages call the secret.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Passphrase(_) => "this passphrase".to_owned(),
            Self::Kms(kms) => format!("the key {} of the key management service", kms.key()),
        }
    }
}

impl From<Passphrase> for Recipient {
    fn from(passphrase: Passphrase) -> Self {
        Self::Passphrase(passphrase)
    }
}

impl From<&Passphrase> for Recipient {
    fn from(passphrase: &Passphrase) -> Self {
        Self::Passphrase(passphrase.clone())
    }
}

impl From<&Recipient> for Recipient {
    fn from(recipient: &Recipient) -> Self {
        recipient.clone()
    }
}

/// What is written beside a new key, for everybody who can list the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose it is, in one line of at most 128 bytes; may be empty.
    pub label: String,
    /// When it was made; fractions of a second are dropped.
    pub created: Timestamp,
}

/// What is wrong with a key, or with changing it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// There is no such key.
    #[error("the repository has no key {id}")]
    NoSuchKey {
        /// Its id.
        id: KeyId,
    },
    /// No other key is known to open the repository.
    #[error("key {id} is the last one: without it nothing opens the repository")]
    LastKey {
        /// Its id.
        id: KeyId,
    },
    /// It is the key that opened the repository just now.
    #[error(
        "key {id} is the one in use: who has only its secret cannot open the repository any more once it is removed"
    )]
    InUse {
        /// Its id.
        id: KeyId,
    },
    /// All other keys are about to be removed too.
    #[error("key {id} was not removed: the removal of all others has begun, so that none would be left")]
    Contended {
        /// Its id.
        id: KeyId,
    },
    /// After the removal no key was left, so the key was put back.
    #[error("key {id} was put back: all others were removed at the same time, so that none was left")]
    PutBack {
        /// Its id.
        id: KeyId,
    },
    /// There are as many as there may be.
    #[error("the repository has {MAX_KEYS} keys, and cannot have more")]
    TooMany,
    /// The new recipient cannot open what was wrapped for him; nothing was written.
    #[error("what was wrapped for the new recipient does not open with his secret")]
    DoesNotOpen,
    /// Keys come up again while they are erased.
    #[error("there are keys again after all were deleted: somebody adds keys at the same time")]
    NotErased,
    /// The key management service.
    #[error(transparent)]
    Kms(#[from] KmsError),
}

impl KeyError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchKey { .. } => ErrorKind::NotFound,
            Self::LastKey { .. } | Self::InUse { .. } | Self::TooMany | Self::DoesNotOpen => ErrorKind::Invalid,
            Self::Contended { .. } | Self::PutBack { .. } | Self::NotErased => ErrorKind::Interrupted,
            Self::Kms(error) => match error.kind {
                KmsErrorKind::Unreachable => ErrorKind::Unreachable,
                KmsErrorKind::AccessDenied => ErrorKind::AccessDenied,
                KmsErrorKind::NotFound => ErrorKind::NotFound,
                KmsErrorKind::Unusable | KmsErrorKind::Invalid => ErrorKind::Invalid,
            },
        }
    }

    pub(crate) fn guidance(&self) -> &'static str {
        match self {
            Self::NoSuchKey { .. } => "orlop repo key list shows the keys",
            Self::LastKey { .. } => "add another key first, or destroy all with orlop repo key erase",
            Self::InUse { .. } => {
                "open the repository with another key, or say --yes; orlop repo key rotate exchanges the key in use"
            }
            Self::Contended { .. } | Self::PutBack { .. } => {
                "look with orlop repo key list; a removal that was begun and not finished is finished by orlop repo key remove"
            }
            Self::TooMany => "remove keys that nobody needs: orlop repo key list",
            Self::DoesNotOpen => "check that the new recipient may decrypt as well as encrypt",
            Self::NotErased => "end the other commands, then erase again",
            Self::Kms(error) => error.guidance(),
        }
    }
}
