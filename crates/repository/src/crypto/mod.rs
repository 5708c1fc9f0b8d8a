//! Keys and sealing.

mod keys;

pub(crate) use keys::{DomainKeys, Key, SealingKey, TAG_LEN};

use crate::codec::Malformed;

/// Draws bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| no_random())?;
    Ok(bytes)
}

fn no_random() -> Malformed {
    Malformed::new("the system gives no random bytes")
}
