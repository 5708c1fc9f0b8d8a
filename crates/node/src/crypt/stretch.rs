//! From a secret to the key that wraps data keys.

use super::key::{KeyError, KeyId, Secret};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

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
    /// RFC 9106's second choice with one lane, since an attachment has one thread for it: a tenth of a second or so. A secret should be random
    /// and then needs none of this; but somebody will choose a word.
    pub(super) const WRITTEN: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    /// What a record may ask for at most: more would let whoever can write records use up the memory of a node.
    const MAX: Self = Self { memory_kib: 1 << 20, passes: 64, lanes: 16 };

    fn params(self) -> Result<Params, String> {
        let Self { memory_kib, passes, lanes } = Self::MAX;
        if self.memory_kib > memory_kib || self.passes > passes || self.lanes > lanes {
            return Err(format!("at most {memory_kib} KiB, {passes} passes and {lanes} lanes are spent on one key"));
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(LEN)).map_err(|error| error.to_string())
    }
}

/// Bytes of the derived key.
const LEN: usize = 32;

/// Derives the key; takes the memory that it costs, and wipes it.
pub(super) fn stretch(id: KeyId, secret: &Secret, salt: &[u8; 16], cost: Cost) -> Result<LessSafeKey, KeyError> {
    let refused = |why| KeyError::Cost { id, cost, why };
    let params = cost.params().map_err(refused)?;
    let mut memory = Memory::of(params.block_count()).ok_or(KeyError::NoMemory { id, memory_kib: cost.memory_kib })?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Box::new(Zeroizing::new([0; LEN]));
    argon2
        .hash_password_into_with_memory(secret.bytes(), salt, &mut **key, &mut memory.0)
        .map_err(|error| refused(error.to_string()))?;
    let key = UnboundKey::new(&AES_256_GCM, &**key).expect("a key of AES-256 has 32 bytes");
    Ok(LessSafeKey::new(key))
}

/// The memory of Argon2id; what the secret was can be searched for in it, so it is wiped.
struct Memory(Vec<Block>);

impl Memory {
    fn of(blocks: usize) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(blocks).ok()?;
        memory.resize(blocks, Block::default());
        Some(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex::Hex;
    use super::*;
    use aws_lc_rs::aead::{Aad, Nonce};

    fn derive(cost: Cost) -> Result<LessSafeKey, KeyError> {
        let secret = Secret::new(Zeroizing::new(b"headwind".to_vec())).unwrap();
        stretch(KeyId(Hex([7; 16])), &secret, b"sixteen bytes...", cost)
    }

    #[test]
    fn a_record_that_costs_too_much_or_nothing_is_refused_before_it_costs_anything() {
        for cost in [
            Cost { memory_kib: (1 << 20) + 1, ..Cost::WRITTEN },
            Cost { memory_kib: u32::MAX, ..Cost::WRITTEN },
            Cost { passes: 65, ..Cost::WRITTEN },
            Cost { lanes: 17, ..Cost::WRITTEN },
        ] {
            let error = derive(cost).unwrap_err();
            assert!(error.to_string().contains("at most 1048576 KiB, 64 passes and 16 lanes"), "{error}");
        }
        for cost in [
            Cost { passes: 0, ..Cost::WRITTEN },
            Cost { lanes: 0, ..Cost::WRITTEN },
            Cost { memory_kib: 7, ..Cost::WRITTEN },
        ] {
            assert!(matches!(derive(cost), Err(KeyError::Cost { .. })), "{cost:?}");
        }
    }

    /// Computed with the C reference (`argon2-cffi` 25.1) and OpenSSL, as another crate's test of the same derivation.
    #[test]
    fn the_derived_key_is_that_of_the_reference() {
        let key = derive(Cost { memory_kib: 64, passes: 2, lanes: 2 }).unwrap();
        let mut text = *b"plain";
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut text).unwrap();
        assert_eq!(Hex(text).to_string(), "2ac7733c0e");
        assert_eq!(Hex::<16>(tag.as_ref().try_into().unwrap()).to_string(), "86f0a355808e6e74fadeb3c27c935d48");
    }
}
