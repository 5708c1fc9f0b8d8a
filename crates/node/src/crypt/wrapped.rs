//! The record that holds a data key, wrapped with a secret.

use super::hex::Hex;
use super::key::{DataKey, KeyError, KeyId, Secret, random};
use super::stretch::{Cost, stretch};
use aws_lc_rs::aead::{Aad, Nonce};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// What the bound bytes begin with, so that nothing else that the secret seals opens as this.
const PURPOSE: &[u8] = b"orlop.io volume data key";
/// Bytes of the authenticator.
const TAG: usize = 16;
/// Bytes of a sealed data key.
const SEALED: usize = DataKey::LEN + TAG;

/// A data key that only its secret opens; without the secret it tells nothing, and may lie where volumes' records do.
///
/// As JSON, numbers are decimal and bytes are lowercase hexadecimal digits. Version 1:
///
/// | field | |
/// |---|---|
/// | `version` | 1 |
/// | `id` | 16 random bytes: which data key it is |
/// | `argon2id` | `memoryKib`, `passes`, `lanes`: what deriving the wrapping key costs |
/// | `salt` | 16 random bytes, drawn for each wrapping |
/// | `nonce` | 12 random bytes, drawn for each wrapping |
/// | `sealed` | 64 bytes of the data key and 16 of the tag, by AES-256-GCM with the key that Argon2id (version 0x13) makes of secret and salt |
///
/// Bound to it, as associated data: the text `orlop.io volume data key`, `version` as 4 bytes, `id`, and `memoryKib`, `passes` and `lanes`
/// as 4 bytes each, all little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrappedKey {
    version: u32,
    id: KeyId,
    argon2id: Cost,
    salt: Hex<16>,
    nonce: Hex<12>,
    sealed: Hex<SEALED>,
}

impl DataKey {
    /// Wraps it with a secret; takes 64 MiB and a part of a second of a thread that may wait.
    pub fn wrap(&self, secret: &Secret) -> Result<WrappedKey, KeyError> {
        self.wrap_at(secret, Cost::WRITTEN)
    }

    pub(super) fn wrap_at(&self, secret: &Secret, cost: Cost) -> Result<WrappedKey, KeyError> {
        let (salt, nonce) = (Hex(random()?), Hex(random()?));
        let mut wrapped =
            WrappedKey { version: VERSION, id: self.id, argon2id: cost, salt, nonce, sealed: Hex([0; SEALED]) };
        let wrapping = stretch(self.id, secret, &salt.0, cost)?;
        // Sealed into another place, so that the key itself is copied nowhere.
        let (text, tag) = wrapped.sealed.0.split_at_mut(DataKey::LEN);
        text.copy_from_slice(self.bytes());
        let bound = Aad::from(bound(VERSION, self.id, cost));
        let made = wrapping
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce.0), bound, text)
            .expect("AES-GCM seals whatever is shorter than 64 GiB");
        tag.copy_from_slice(made.as_ref());
        Ok(wrapped)
    }
}

impl WrappedKey {
    /// Which data key it is; the same after [`WrappedKey::rewrap`].
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What deriving the wrapping key costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.argon2id
    }

    /// Opens it; takes the memory of [`WrappedKey::cost`] and a part of a second of a thread that may wait.
    ///
    /// A record of another version, of a length that is wrong or that asks for too much is told as that. A wrong secret cannot be told from a
    /// record of which digits were changed: both are [`KeyError::DoesNotOpen`].
    pub fn unwrap(&self, secret: &Secret) -> Result<DataKey, KeyError> {
        let Self { version, id, argon2id, salt, nonce, sealed } = self;
        if *version != VERSION {
            return Err(KeyError::Version { id: *id, version: *version, known: VERSION });
        }
        let wrapping = stretch(*id, secret, &salt.0, *argon2id)?;
        let (text, tag) = sealed.0.split_at(DataKey::LEN);
        let opened = DataKey::made_by(*id, |key| {
            let bound = Aad::from(bound(*version, *id, *argon2id));
            wrapping.open_separate_gather(Nonce::assume_unique_for_key(nonce.0), bound, text, tag, key).ok()
        });
        opened.ok_or(KeyError::DoesNotOpen { id: *id })
    }

    /// The same data key, wrapped with another secret: a rotation. No data is written again; who has the old record and the old secret still
    /// has the key, so the old record must be destroyed.
    pub fn rewrap(&self, old: &Secret, new: &Secret) -> Result<Self, KeyError> {
        self.rewrap_at(old, new, Cost::WRITTEN)
    }

    pub(super) fn rewrap_at(&self, old: &Secret, new: &Secret, cost: Cost) -> Result<Self, KeyError> {
        self.unwrap(old)?.wrap_at(new, cost)
    }
}

fn bound(version: u32, id: KeyId, Cost { memory_kib, passes, lanes }: Cost) -> Vec<u8> {
    let cost = [memory_kib, passes, lanes].map(u32::to_le_bytes);
    [PURPOSE, &version.to_le_bytes(), &id.0.0, cost.as_flattened()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::key::NoSecret;
    use super::*;
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    /// What tests spend.
    const LITTLE: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    fn wrapped() -> (DataKey, WrappedKey) {
        let key = DataKey::random().unwrap();
        let wrapped = key.wrap_at(&secret("open barley"), LITTLE).unwrap();
        (key, wrapped)
    }

    #[test]
    fn a_key_opens_with_its_secret_and_no_other() {
        let (key, wrapped) = wrapped();
        let opened = wrapped.unwrap(&secret("open barley")).unwrap();
        assert_eq!((opened.bytes(), opened.id()), (key.bytes(), key.id()));
        for other in ["open barle", "open barley\n", "Open barley"] {
            assert_eq!(wrapped.unwrap(&secret(other)).unwrap_err(), KeyError::DoesNotOpen { id: key.id() });
        }
        assert_eq!(Secret::new(Zeroizing::default()).unwrap_err(), NoSecret::Empty);
    }

    #[test]
    fn a_rotation_keeps_the_key_and_draws_the_rest() {
        let (key, before) = wrapped();
        let (old, new) = (secret("open barley"), secret("open rye"));
        let after = before.rewrap_at(&old, &new, LITTLE).unwrap();
        assert_eq!((after.unwrap(&new).unwrap().bytes(), after.id()), (key.bytes(), before.id()));
        assert!(after.unwrap(&old).is_err(), "the old secret does not open the new record");
        assert!(after.salt != before.salt && after.nonce != before.nonce && after.sealed != before.sealed);
        assert!(before.rewrap_at(&new, &old, LITTLE).is_err());
    }

    #[test]
    fn what_is_written_costs_what_it_should() {
        let key = DataKey::random().unwrap();
        let (old, new) = (secret("open barley"), secret("open rye"));
        let wrapped = key.wrap(&old).unwrap();
        assert_eq!(wrapped.cost(), Cost { memory_kib: 65536, passes: 3, lanes: 1 });
        assert_eq!(wrapped.rewrap(&old, &new).unwrap().cost(), wrapped.cost());
    }

    #[test]
    fn a_record_is_text_and_every_digit_of_it_counts() {
        let (key, wrapped) = wrapped();
        let text = serde_json::to_string(&wrapped).unwrap();
        assert!(
            text.starts_with(&format!(r#"{{"version":1,"id":"{}","argon2id":{{"memoryKib":64,"#, key.id())),
            "{text}"
        );
        let record: Value = serde_json::from_str(&text).unwrap();
        let reads = |record: Value| serde_json::from_value::<WrappedKey>(record);
        assert_eq!(reads(record.clone()).unwrap(), wrapped);
        for field in ["id", "salt", "nonce", "sealed"] {
            let digits = record[field].as_str().unwrap().to_owned();
            for at in 0..digits.len() {
                let mut changed = record.clone();
                let other = if digits.as_bytes()[at] == b'0' { "1" } else { "0" };
                changed[field] = json!(format!("{}{other}{}", &digits[..at], &digits[at + 1..]));
                let opened = reads(changed).unwrap().unwrap(&secret("open barley"));
                assert!(matches!(opened, Err(KeyError::DoesNotOpen { .. })), "{field}, digit {at}");
            }
            let mut short = record.clone();
            short[field] = json!(&digits[1..]);
            assert!(reads(short).unwrap_err().to_string().contains("lowercase hexadecimal digits"));
        }
    }

    #[test]
    fn parameters_are_bound_and_bounded() {
        let (key, wrapped) = wrapped();
        let with = |cost| WrappedKey { argon2id: cost, ..wrapped.clone() }.unwrap(&secret("open barley")).unwrap_err();
        assert_eq!(with(Cost { passes: 2, ..LITTLE }), KeyError::DoesNotOpen { id: key.id() });
        assert!(matches!(with(Cost { passes: u32::MAX, ..LITTLE }), KeyError::Cost { .. }));
        let later = WrappedKey { version: 2, ..wrapped }.unwrap(&secret("open barley")).unwrap_err();
        assert_eq!(later, KeyError::Version { id: key.id(), version: 2, known: 1 });
    }

    #[test]
    fn a_record_with_other_fields_is_refused() {
        let (_, wrapped) = wrapped();
        let record = serde_json::to_value(&wrapped).unwrap();
        for field in ["version", "id", "argon2id", "salt", "nonce", "sealed"] {
            let mut changed = record.clone();
            changed.as_object_mut().unwrap().remove(field);
            assert!(serde_json::from_value::<WrappedKey>(changed).is_err(), "without {field}");
        }
        let mut more = record;
        more["note"] = json!("x");
        assert!(serde_json::from_value::<WrappedKey>(more).is_err());
    }
}
