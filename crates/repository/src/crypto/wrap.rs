//! The master key, wrapped with a passphrase.

use super::{Key, SealingKey};
use crate::codec::{Malformed, from_hex, to_hex};
use crate::ids::{KeyId, RepositoryId};
use crate::layout::DOMAIN;
use crate::secret::Passphrase;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

/// The longest key object that is read, in bytes; real ones have about 500.
pub(crate) const MAX_KEY_OBJECT_LEN: u64 = 16 << 10;
const FORMAT: &str = "orlop-key";
const VERSION: u32 = 1;
const PASSPHRASE: &str = "passphrase-argon2id";

/// What Argon2id costs: memory in KiB, passes, lanes. RFC 9106's second choice with half of the memory and one lane, so that
/// opening a repository stays below the 64 MiB that a restore may use.
const COST: Cost = Cost { memory_kib: 32 << 10, passes: 3, lanes: 1 };
/// What a key object may demand at most; more would let a hostile repository use up this machine.
const MAX_COST: Cost = Cost { memory_kib: 1 << 20, passes: 16, lanes: 16 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The content of a key object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WrappedKey {
    format: String,
    version: u32,
    /// The repository that the key opens. A creation that was interrupted leaves a key of a repository that never came to be.
    pub(crate) repository: RepositoryId,
    domain: String,
    pub(crate) key: KeyId,
    method: String,
    cost: Cost,
    /// 32 hexadecimal digits.
    salt: String,
    /// The master key sealed with the key that Argon2id makes: 96 hexadecimal digits.
    sealed: String,
}

impl WrappedKey {
    pub(crate) fn wrap(master: &Key, passphrase: &Passphrase, repository: RepositoryId) -> Result<Self, Malformed> {
        let salt = super::random::<16>()?;
        let mut wrapped = Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            repository,
            domain: DOMAIN.to_owned(),
            key: KeyId(super::random()?),
            method: PASSPHRASE.to_owned(),
            cost: COST,
            salt: to_hex(&salt),
            sealed: String::new(),
        };
        let mut sealed = master.bytes().to_vec();
        // The key comes from a fresh salt and is used once, so the nonce may be fixed.
        stretch(passphrase, &salt, COST)?.seal([0; 12], &wrapped.bound(), &mut sealed, 0);
        wrapped.sealed = to_hex(&sealed);
        Ok(wrapped)
    }

    /// Gives the master key, or `None` when the passphrase is not the one.
    pub(crate) fn unwrap_with(&self, passphrase: &Passphrase) -> Result<Option<Key>, Malformed> {
        let (cost, max) = (self.cost, MAX_COST);
        if cost.memory_kib > max.memory_kib || cost.passes > max.passes || cost.lanes > max.lanes {
            return Err(Malformed::new(format!("it demands more than Argon2id with {max:?}")));
        }
        let salt = from_hex::<16>(&self.salt).ok_or_else(|| Malformed::new("its salt is not 32 hexadecimal digits"))?;
        let sealed =
            from_hex::<48>(&self.sealed).ok_or_else(|| Malformed::new("its key is not 96 hexadecimal digits"))?;
        let opened = stretch(passphrase, &salt, cost)?.open([0; 12], &self.bound(), &sealed);
        Ok(opened
            .map(zeroize::Zeroizing::new)
            .and_then(|plain| <[u8; 32]>::try_from(plain.as_slice()).ok())
            .map(Key::new))
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Malformed> {
        crate::checked_json::write(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let key: Self = crate::checked_json::read(bytes)?;
        if (key.format.as_str(), key.version, key.domain.as_str(), key.method.as_str())
            != (FORMAT, VERSION, DOMAIN, PASSPHRASE)
        {
            return Err(Malformed::new(format!(
                "it is no {FORMAT} of version {VERSION} by {PASSPHRASE} for domain {DOMAIN}"
            )));
        }
        Ok(key)
    }

    fn bound(&self) -> Vec<u8> {
        [&self.repository.0[..], &self.key.0, self.domain.as_bytes()].concat()
    }
}

fn stretch(passphrase: &Passphrase, salt: &[u8], cost: Cost) -> Result<SealingKey, Malformed> {
    let refused = |error: argon2::Error| Malformed::new(format!("Argon2id refuses {cost:?}: {error}"));
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(refused)?;
    let mut key = zeroize::Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
        .map_err(refused)?;
    Ok(SealingKey::new(&Key::new(*key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_the_key() {
        let master = Key::random().unwrap();
        let wrapped = WrappedKey::wrap(&master, &Passphrase::new("right"), RepositoryId([1; 16])).unwrap();
        let read = WrappedKey::from_bytes(&wrapped.to_bytes().unwrap()).unwrap();
        assert_eq!(read, wrapped);
        assert!(read.unwrap_with(&Passphrase::new("wrong")).unwrap().is_none());
        assert_eq!(read.unwrap_with(&Passphrase::new("right")).unwrap().unwrap().bytes(), master.bytes());
        let elsewhere = WrappedKey { repository: RepositoryId([2; 16]), ..read };
        assert!(elsewhere.unwrap_with(&Passphrase::new("right")).unwrap().is_none());
    }

    #[test]
    fn a_key_that_costs_too_much_is_refused() {
        let master = Key::random().unwrap();
        let mut wrapped = WrappedKey::wrap(&master, &Passphrase::new("x"), RepositoryId([1; 16])).unwrap();
        wrapped.cost.memory_kib = u32::MAX;
        assert!(wrapped.unwrap_with(&Passphrase::new("x")).is_err());
    }
}
