//! Encryption of a volume: what leaves the attachment is cipher text, so replicas, the transport and the pool see nothing else.
//!
//! ```text
//! secret (of a Kubernetes Secret, or from a KMS)
//!   └─ Argon2id(salt, cost) ─► wrapping key ─ AES-256-GCM ─► WrappedKey, kept with the volume's record
//!                                                              └─ DataKey ─ XTS-AES-256 ─► each block of 4096 bytes
//! ```
//! [`DataKey`] is drawn once for a volume and never changes, so a rotation of the secret writes a new [`WrappedKey`] and no data;
//! destroying every copy of the [`WrappedKey`], or the secret, destroys the volume. [`Encrypted`] is the device.
//!
//! What it protects: whoever has disks, a pool, a replica or what goes between them, learns from one state of them which blocks were never
//! written or were discarded, and from several states which blocks changed; nothing of what is in them. What it does not: there is no room
//! for an authenticator beside a block of 4096 bytes, so whoever can write into a pool can turn a block into noise, into what it was earlier,
//! or into zeros, and encryption does not notice it. The store's checksums find accidents, not that.

mod device;
mod hex;
pub(crate) mod kept;
mod key;
mod stretch;
mod wrapped;
mod xts;

#[cfg(test)]
mod frozen;
#[cfg(test)]
mod judges;
#[cfg(test)]
mod wiped;

pub use device::{Encrypted, Unfit};
pub use key::{DataKey, KeyError, KeyId, NoSecret, Secret};
pub use stretch::Cost;
pub use wrapped::WrappedKey;
