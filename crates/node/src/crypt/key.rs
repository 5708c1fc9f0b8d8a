//! The key of a volume, and the secret that wraps it.

use super::hex::Hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of one of the two keys.
pub(super) const HALF: usize = 32;

/// Which data key it is: drawn with it, and the same however it is wrapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub(super) Hex<16>);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What the blocks of a volume are encrypted with: two keys of AES-256, as XTS wants them, and their id.
///
/// It is wiped from memory when it is dropped. It lies on the heap, so that moving it leaves no copies; what makes one fills it in place.
#[derive(Clone)]
pub struct DataKey {
    pub(super) id: KeyId,
    bytes: Box<[u8; Self::LEN]>,
}

impl DataKey {
    /// Bytes of both keys together.
    pub const LEN: usize = 2 * HALF;

    /// A key that nobody can guess.
    pub fn random() -> Result<Self, KeyError> {
        let id = KeyId(Hex(random()?));
        Self::made_by(id, |bytes| aws_lc_rs::rand::fill(bytes).ok()).ok_or(KeyError::NoRandom)
    }

    /// A key whose bytes `fill` writes; `None` when it cannot.
    pub(super) fn made_by(id: KeyId, fill: impl FnOnce(&mut [u8; Self::LEN]) -> Option<()>) -> Option<Self> {
        let mut key = Self { id, bytes: Box::new([0; Self::LEN]) };
        fill(&mut key.bytes).map(|()| key)
    }

    /// Which key it is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    /// The key that encrypts data, and the one that encrypts numbers of data units.
    pub(super) fn halves(&self) -> (&[u8; HALF], &[u8; HALF]) {
        match self.bytes.as_chunks::<HALF>().0 {
            [data, tweak] => (data, tweak),
            _ => unreachable!("a data key has two halves"),
        }
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl ZeroizeOnDrop for DataKey {}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, [key])", self.id)
    }
}

/// What wraps data keys: 1 to 4096 bytes, as they are, of a Kubernetes Secret or of what a key management service unwrapped.
///
/// It is wiped from memory when it is dropped. No byte is trimmed: who keeps it in a file ends the file where the secret ends.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The longest secret, in bytes: far more than entropy needs, and less than a file that was given by mistake.
    pub const MAX_LEN: usize = 4096;

    /// Takes the bytes; those that cannot be a secret are wiped.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, NoSecret> {
        match bytes.len() {
            0 => Err(NoSecret::Empty),
            len if len > Self::MAX_LEN => Err(NoSecret::TooLong { len }),
            _ => Ok(Self(std::mem::take(&mut *bytes))),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why bytes cannot be a secret. It does not say what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// There are none.
    #[error("the secret that wraps the keys of volumes is empty: write a random one of 32 bytes or more into it")]
    Empty,
    /// There are too many.
    #[error(
        "the secret that wraps the keys of volumes has {len} bytes, and at most {} are taken: is it another file?",
        Secret::MAX_LEN
    )]
    TooLong {
        /// How many.
        len: usize,
    },
}

/// Why a key was not wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system has no random bytes.
    #[error("the system gives no random bytes, so no key can be made")]
    NoRandom,
    /// The record is of a later program.
    #[error("the wrapped key {id} has version {version}, and this program reads version {known}: use a later one")]
    Version {
        /// Which key.
        id: KeyId,
        /// What it says.
        version: u32,
        /// What is known.
        known: u32,
    },
    /// The record asks for more than may be spent on it, or for what Argon2id does not do.
    #[error(
        "the wrapped key {id} asks for Argon2id with {cost:?}: {why}; the record is damaged, or somebody has changed it"
    )]
    Cost {
        /// Which key.
        id: KeyId,
        /// What it asks for.
        cost: super::Cost,
        /// What is wrong with that.
        why: String,
    },
    /// There is not so much memory now.
    #[error(
        "unwrapping the key {id} takes {memory_kib} KiB of memory, which this machine does not have now: try again later"
    )]
    NoMemory {
        /// Which key.
        id: KeyId,
        /// How much.
        memory_kib: u32,
    },
    /// It does not open.
    ///
    /// An authenticated cipher does not tell a wrong key from a changed text, or else it would help who guesses.
    #[error(
        "the wrapped key {id} does not open with this secret: it was wrapped with another one, or a digit of the record was changed; \
         compare the record with a copy of it, and the secret with the one of that time"
    )]
    DoesNotOpen {
        /// Which key.
        id: KeyId,
    },
}

/// Draws bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(len: usize) -> Result<Secret, NoSecret> {
        Secret::new(Zeroizing::new(vec![b'x'; len]))
    }

    #[test]
    fn a_secret_has_bytes_and_not_too_many() {
        assert!(secret(1).is_ok() && secret(Secret::MAX_LEN).is_ok());
        assert_eq!(secret(0).unwrap_err(), NoSecret::Empty);
        assert_eq!(secret(4097).unwrap_err(), NoSecret::TooLong { len: 4097 });
        assert_eq!(secret(9).unwrap().bytes(), [b'x'; 9]);
    }

    #[test]
    fn keys_are_drawn_and_do_not_print() {
        let (one, other) = (DataKey::random().unwrap(), DataKey::random().unwrap());
        assert!(one.bytes() != other.bytes() && one.id() != other.id());
        assert!(one.halves().0 != one.halves().1, "a standard of XTS forbids equal halves");
        assert_eq!(format!("{one:?}"), format!("DataKey({}, [key])", one.id()));
        assert_eq!(format!("{:?}", secret(3).unwrap()), "[secret]");
    }
}
