//! From a passphrase to the key that wraps the master key.

use crate::codec::Malformed;
use crate::crypto::{Key, SealingKey};
use crate::secret::Passphrase;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroize;

/// What Argon2id costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106's second choice with half of the memory and one lane, so that opening a repository stays below the 64 MiB that a
    /// restore may use.
    pub(super) const WRITTEN: Self = Self { memory_kib: 32 << 10, passes: 3, lanes: 1 };
    /// What a key object may demand at most; more would let a hostile repository end an operator that opens those of others, too.
    const MAX: Self = Self { memory_kib: 128 << 10, passes: 16, lanes: 16 };
}

/// Derives the key; takes a part of a second, and the memory that it costs, which is wiped.
pub(super) fn stretch(passphrase: &Passphrase, salt: &[u8], cost: Cost) -> Result<SealingKey, Malformed> {
    let max = Cost::MAX;
    if cost.memory_kib > max.memory_kib || cost.passes > max.passes || cost.lanes > max.lanes {
        return Err(Malformed::new(format!("it demands more than Argon2id with {max:?}")));
    }
    let refused = |error: argon2::Error| Malformed::new(format!("Argon2id refuses {cost:?}: {error}"));
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(Key::LEN)).map_err(refused)?;
    // Several repositories that are opened at once take the memory of one.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut memory = Memory(vec![Block::default(); params.block_count()]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let derive = |key: &mut [u8; Key::LEN]| {
        argon2.hash_password_into_with_memory(passphrase.as_bytes(), salt, key, &mut memory.0)
    };
    Ok(SealingKey::new(&Key::made_by(derive).map_err(refused)?))
}

/// The memory of Argon2id; what the passphrase was can be searched for in it, so it is wiped.
struct Memory(Vec<Block>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_costs_too_much_or_nothing_is_refused_before_it_costs_anything() {
        let refused = |cost| stretch(&Passphrase::new("x"), &[0; 16], cost).unwrap_err().to_string();
        for cost in [
            Cost { memory_kib: (128 << 10) + 1, ..Cost::WRITTEN },
            Cost { passes: 17, ..Cost::WRITTEN },
            Cost { lanes: 17, ..Cost::WRITTEN },
        ] {
            assert!(refused(cost).starts_with("it demands more than"), "{cost:?}");
        }
        assert!(refused(Cost { passes: 0, ..Cost::WRITTEN }).starts_with("Argon2id refuses"));
    }

    /// RFC 9106 gives a vector with a secret and associated data only, so this one was computed with the C reference
    /// (`argon2-cffi` 25.1): the key is the same whoever owns the memory.
    #[test]
    fn the_derived_key_is_that_of_the_reference() {
        let cost = Cost { memory_kib: 64, passes: 2, lanes: 2 };
        let sealing = stretch(&Passphrase::new("headwind"), b"sixteen bytes...", cost).unwrap();
        let mut sealed = b"plain".to_vec();
        sealing.seal([0; 12], b"", &mut sealed, 0);
        assert_eq!(crate::codec::to_hex(&sealed), "2ac7733c0e86f0a355808e6e74fadeb3c27c935d48");
    }
}
