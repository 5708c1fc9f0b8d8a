//! Keys, sealing, and the wrapping of the master key.

mod keys;
mod wrap;

pub(crate) use keys::{DomainKeys, Key, SealingKey, TAG_LEN};
pub(crate) use wrap::{MAX_KEY_OBJECT_LEN, WrappedKey};

use crate::codec::Malformed;

/// Draws bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Malformed::new("the system gives no random bytes"))?;
    Ok(bytes)
}
