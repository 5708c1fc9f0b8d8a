//! Keys and sealing.

mod keys;

pub(crate) use keys::{DomainKeys, Key, SealingKey, TAG_LEN};

use crate::codec::Malformed;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Draws bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Fills a buffer with them, from the kernel: the generator of the library for sealing takes 35 ms of processor time for its first byte.
fn fill(bytes: &mut [u8]) -> Result<(), Malformed> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Malformed::new(format!("the system gives no random bytes: {error}"))),
        }
    }
    Ok(())
}
