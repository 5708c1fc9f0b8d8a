//! The object that holds the master key, wrapped for one recipient.
//!
//! ```text
//! passphrase ── Argon2id(salt, cost) ──┐
//!                                      ├─► wrapping key ── AES-256-GCM ──► sealed master key
//! random key ── wrapped by the KMS ────┘
//! ```
//! The wrapping key is used once, since its salt, or itself, is drawn for one object; so the nonce may be fixed. The proof at the
//! end is made with the master key: who lists or removes keys sees by it which ones were made by somebody who had the master key,
//! although the recipient's secret is not there to try. Without it, a forged key could pass for the one that remains.

use super::kms::{Kms, KmsContext, Wrapped};
use super::passphrase::{Cost, stretch};
use super::{NewKey, Recipient};
use crate::background;
use crate::checked_json;
use crate::codec::{Malformed, from_hex, to_hex};
use crate::crypto::{self, DomainKeys, Key, SealingKey};
use crate::error::{Error, Result};
use crate::ids::{KeyId, RepositoryId};
use crate::layout::DOMAIN;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest key object that is read, in bytes; real ones have about 700, and the longest 15,500.
pub(crate) const MAX_KEY_OBJECT_LEN: u64 = 16 << 10;
const FORMAT: &str = "orlop-key";
const VERSION: u32 = 1;
const PASSPHRASE: &str = "passphrase-argon2id";
const KMS: &str = "kms";
/// The longest label, in bytes: a line.
const MAX_LABEL_LEN: usize = 128;
/// What follows the digits of the proof, before those of the checksum.
const AFTER_PROOF: &str = "\"";
/// What comes before the digits of the proof.
const BEFORE_PROOF: &str = ",\"proof\":\"";
const PROOF_DIGITS: usize = 64;

/// What every key object says of itself, whichever way it is wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Head {
    format: String,
    version: u32,
    /// The repository that the key opens. A creation that was interrupted leaves a key of a repository that never came to be.
    pub(crate) repository: RepositoryId,
    domain: String,
    pub(crate) key: KeyId,
    pub(crate) label: String,
    pub(crate) created: Timestamp,
    pub(crate) method: String,
    proof: String,
}

/// A key object as it is written; the fields of other methods are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    format: String,
    version: u32,
    repository: RepositoryId,
    domain: String,
    key: KeyId,
    label: String,
    created: Timestamp,
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped: Option<String>,
    sealed: String,
    proof: String,
}

/// How the master key is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    Passphrase {
        cost: Cost,
        salt: [u8; 16],
        sealed: [u8; 48],
    },
    Kms {
        provider: String,
        kms_key: String,
        wrapped: Vec<u8>,
        sealed: [u8; 48],
    },
    /// One of a later program.
    Other,
}

/// A key object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyObject {
    pub(crate) head: Head,
    pub(crate) method: Method,
    bytes: Vec<u8>,
}

impl KeyObject {
    /// Reads an object; `None` when it is of a domain that this program does not know.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let value: serde_json::Value = checked_json::read(bytes)?;
        let wrong = |error: serde_json::Error| Malformed::new(format!("its fields are wrong: {error}"));
        let head: Head = serde_json::from_value(value.clone()).map_err(wrong)?;
        if (head.format.as_str(), head.version) != (FORMAT, VERSION) {
            return Err(Malformed::new(format!("it is no {FORMAT} of version {VERSION}")));
        }
        if head.domain != DOMAIN {
            return Ok(None);
        }
        check_label(&head.label)?;
        let method = match head.method.as_str() {
            PASSPHRASE | KMS => serde_json::from_value::<Fields>(value).map_err(wrong)?.method()?,
            _ => Method::Other,
        };
        Ok(Some(Self { head, method, bytes: bytes.to_vec() }))
    }

    /// Whether it was made, as it is, by somebody who had the master key.
    pub(crate) fn is_proven(&self, keys: &DomainKeys) -> bool {
        let proof = from_hex::<32>(&self.head.proof);
        // Comparing hashes takes the same time wherever they differ.
        proven_part(&self.bytes).zip(proof).is_some_and(|(part, proof)| keys.prove(part) == proof)
    }

    /// Whether this recipient may be the one.
    pub(crate) fn is_for(&self, recipient: &Recipient) -> bool {
        match (&self.method, recipient) {
            (Method::Passphrase { .. }, Recipient::Passphrase(_)) => true,
            (Method::Kms { provider, .. }, Recipient::Kms(kms)) => provider == kms.provider(),
            _ => false,
        }
    }

    /// Whether the service was asked to use a key that has another name. It may be the same one: an alias, or another region's.
    pub(crate) fn is_by_another_key(&self, recipient: &Recipient) -> bool {
        match (&self.method, recipient) {
            (Method::Kms { kms_key, .. }, Recipient::Kms(kms)) => kms_key != kms.key(),
            _ => false,
        }
    }

    /// Gives the master key, or `None` when this recipient's secret does not open it; `name` is that of the object.
    pub(crate) async fn open(&self, recipient: &Recipient, name: &str) -> Result<Option<Key>> {
        let bound = bound(&self.head.repository, &self.head.key);
        let (wrapping, sealed) = match (&self.method, recipient) {
            (Method::Passphrase { cost, salt, sealed }, Recipient::Passphrase(passphrase)) => {
                let (passphrase, cost, salt) = (passphrase.clone(), *cost, *salt);
                let wrapping = background::run(move || stretch(&passphrase, &salt, cost)).await?;
                (wrapping.map_err(|what| what.in_object(name))?, sealed)
            }
            (Method::Kms { wrapped, sealed, .. }, Recipient::Kms(kms)) => {
                let context = KmsContext { repository: self.head.repository, key: self.head.key };
                match kms.unwrap(wrapped, &context).await.map_err(super::KeyError::from)? {
                    Some(plain) => match key_of(&plain) {
                        Some(key) => (SealingKey::new(&key), sealed),
                        None => return Err(Malformed::new("its wrapped key has not 32 bytes").in_object(name)),
                    },
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(wrapping.open_key([0; 12], &bound, sealed))
    }
}

fn key_of(plain: &[u8]) -> Option<Key> {
    Key::made_by(|key| (plain.len() == Key::LEN).then(|| key.copy_from_slice(plain)).ok_or(())).ok()
}

/// Wraps the master key for a recipient; gives the object's id and bytes.
pub(crate) async fn wrap(
    master: &Key,
    repository: RepositoryId,
    recipient: &Recipient,
    new: &NewKey,
) -> Result<(KeyId, Vec<u8>)> {
    check_label(&new.label).map_err(in_memory)?;
    let key = KeyId(crypto::random().map_err(in_memory)?);
    let mut fields = Fields {
        format: FORMAT.to_owned(),
        version: VERSION,
        repository,
        domain: DOMAIN.to_owned(),
        key,
        label: new.label.clone(),
        created: whole_second(new.created),
        method: String::new(),
        cost: None,
        salt: None,
        provider: None,
        kms_key: None,
        wrapped: None,
        sealed: String::new(),
        proof: String::new(),
    };
    let wrapping = match recipient {
        Recipient::Passphrase(passphrase) => {
            let salt = crypto::random::<16>().map_err(in_memory)?;
            fields.method = PASSPHRASE.to_owned();
            (fields.cost, fields.salt) = (Some(Cost::WRITTEN), Some(to_hex(&salt)));
            let passphrase = passphrase.clone();
            background::run(move || stretch(&passphrase, &salt, Cost::WRITTEN)).await?.map_err(in_memory)?
        }
        Recipient::Kms(kms) => {
            let wrapping = Key::random().map_err(in_memory)?;
            let wrapped = wrap_by(kms.as_ref(), &wrapping, &KmsContext { repository, key }).await?;
            fields.method = KMS.to_owned();
            (fields.provider, fields.kms_key) = (Some(kms.provider().to_owned()), Some(wrapped.key));
            fields.wrapped = Some(to_hex(&wrapped.bytes));
            SealingKey::new(&wrapping)
        }
    };
    let mut sealed = Vec::with_capacity(48);
    sealed.extend_from_slice(master.bytes());
    wrapping.seal([0; 12], &bound(&repository, &key), &mut sealed, 0);
    fields.sealed = to_hex(&sealed);
    Ok((key, fields.with_proof(&DomainKeys::derive(master)).map_err(in_memory)?))
}

async fn wrap_by(kms: &dyn Kms, wrapping: &Key, context: &KmsContext) -> Result<Wrapped> {
    let wrapped = kms.wrap(wrapping.bytes(), context).await.map_err(super::KeyError::from)?;
    check_wrapped(kms.provider(), &wrapped.key, wrapped.bytes.len()).map_err(in_memory)?;
    Ok(wrapped)
}

fn in_memory(what: Malformed) -> Error {
    Error::invalid(what.to_string())
}

/// Fractions would only make objects and lists longer.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What the sealed master key is bound to.
fn bound(repository: &RepositoryId, key: &KeyId) -> Vec<u8> {
    [&repository.0[..], &key.0, DOMAIN.as_bytes()].concat()
}

/// All bytes before the digits of the proof.
fn proven_part(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.len().checked_sub(checked_json::TAIL_LEN + AFTER_PROOF.len() + PROOF_DIGITS)?;
    let part = &bytes[..end];
    part.ends_with(BEFORE_PROOF.as_bytes()).then_some(part)
}

impl Fields {
    /// The bytes of the object, with the proof filled in.
    fn with_proof(mut self, keys: &DomainKeys) -> Result<Vec<u8>, Malformed> {
        self.proof = "0".repeat(PROOF_DIGITS);
        let unproven = checked_json::write(&self)?;
        let part = proven_part(&unproven).ok_or_else(|| Malformed::new("a key object has no place for its proof"))?;
        self.proof = to_hex(keys.prove(part).as_bytes());
        checked_json::write(&self)
    }

    /// How it is wrapped; fields that the method does not have are wrong.
    fn method(self) -> Result<Method, Malformed> {
        let sealed = from_hex::<48>(&self.sealed)
            .ok_or_else(|| Malformed::new("its sealed key is not 96 hexadecimal digits"))?;
        match (self.method.as_str(), self.cost, self.salt, self.provider, self.kms_key, self.wrapped) {
            (PASSPHRASE, Some(cost), Some(salt), None, None, None) => {
                let salt = from_hex(&salt).ok_or_else(|| Malformed::new("its salt is not 32 hexadecimal digits"))?;
                Ok(Method::Passphrase { cost, salt, sealed })
            }
            (KMS, None, None, Some(provider), Some(kms_key), Some(wrapped)) => {
                check_wrapped(&provider, &kms_key, wrapped.len() / 2)?;
                let wrapped = any_hex(&wrapped).ok_or_else(|| Malformed::new("its wrapped key is not hexadecimal"))?;
                Ok(Method::Kms { provider, kms_key, wrapped, sealed })
            }
            _ => Err(Malformed::new(format!("its fields are not those of the method {}", self.method))),
        }
    }
}

fn any_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| std::str::from_utf8(pair).ok().and_then(from_hex::<1>).map(|[byte]| byte)).collect()
}

/// A label is shown on terminals as it is.
fn check_label(label: &str) -> Result<(), Malformed> {
    if label.len() > MAX_LABEL_LEN || label.chars().any(char::is_control) {
        return Err(Malformed::new(format!("a label has at most {MAX_LABEL_LEN} bytes, and no control characters")));
    }
    Ok(())
}

fn check_wrapped(provider: &str, kms_key: &str, len: usize) -> Result<(), Malformed> {
    let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if !(1..=32).contains(&provider.len()) || !provider.bytes().all(is_name) {
        return Err(Malformed::new("its provider is not 1 to 32 characters of a-z, 0-9 and -"));
    }
    if !(1..=Wrapped::MAX_KEY_LEN).contains(&kms_key.len()) || !kms_key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Malformed::new(format!(
            "the name of the service's key is not 1 to {} visible characters of ASCII",
            Wrapped::MAX_KEY_LEN
        )));
    }
    if !(1..=Wrapped::MAX_LEN).contains(&len) {
        return Err(Malformed::new(format!("its wrapped key has not 1 to {} bytes", Wrapped::MAX_LEN)));
    }
    Ok(())
}
