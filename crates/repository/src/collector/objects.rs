//! The objects that sessions and collectors leave for each other.
//!
//! Those that tell of life and death are checked JSON, because they are read before anything else and hold nothing that must be kept
//! secret; what a collector found is sealed like a recovery point.

use crate::canonical_json;
use crate::checked_json;
use crate::codec::{Fields, Malformed};
use crate::crypto::{DomainKeys, random};
use crate::ids::{PointId, SessionId, WriterId};
use crate::writer::PackInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const SESSION_FORMAT: &str = "orlop-session";
const TOMBSTONE_FORMAT: &str = "orlop-revoked";
const COLLECTED_FORMAT: &str = "orlop-collected";
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"ORLOPCOL";
/// Magic, version, nonce.
const HEADER_LEN: usize = 8 + 4 + 12;
/// The longest collection that is read, in bytes.
pub(crate) const MAX_COLLECTION_LEN: u64 = 128 << 20;
/// How many packs one collection names at most, at some 75 bytes each; what is left over, the next one finds. It is 32 TiB in full packs.
pub(crate) const MAX_CANDIDATES: usize = 1 << 20;
/// What the first byte of a tombstone is, and of no recovery point.
const FIRST_OF_JSON: u8 = b'{';

/// A writing session, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionRecord {
    format: String,
    version: u32,
    epoch: u64,
    writer: WriterId,
    /// The recovery point that it works for.
    pub(crate) point: PointId,
    /// Where it runs, for people; and which process it is, if that does all of the run ([`super::process`]).
    pub(crate) host: String,
    /// When it began, by the clock there; for people.
    pub(crate) started: Timestamp,
}

/// Says that a recovery point will never be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Tombstone {
    format: String,
    version: u32,
    /// The recovery point.
    pub(crate) point: PointId,
    /// When, by the clock of whoever revoked it; for people.
    pub(crate) revoked: Timestamp,
}

/// Says that a collection is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Collected {
    format: String,
    version: u32,
    epoch: u64,
}

/// What a collector found before it opened an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Collection {
    version: u32,
    /// The epoch that it opens.
    pub(crate) epoch: u64,
    /// The recovery points that there were.
    pub(crate) points: Vec<PointId>,
    /// The packs that none of them refers to.
    pub(crate) candidates: Vec<PackInfo>,
}

impl SessionRecord {
    pub(crate) fn new(id: SessionId, point: PointId, host: String, started: Timestamp) -> Self {
        let (epoch, writer) = (id.epoch, id.writer);
        Self { format: SESSION_FORMAT.to_owned(), version: VERSION, epoch, writer, point, host, started }
    }

    pub(crate) fn id(&self) -> SessionId {
        SessionId { epoch: self.epoch, writer: self.writer }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Malformed> {
        checked_json::write(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8], id: &SessionId) -> Result<Self, Malformed> {
        let read: Self = checked_json::read(bytes)?;
        check(read.format == SESSION_FORMAT && read.version == VERSION && read.id() == *id, read)
    }
}

impl Tombstone {
    pub(crate) fn new(point: PointId, revoked: Timestamp) -> Self {
        Self { format: TOMBSTONE_FORMAT.to_owned(), version: VERSION, point, revoked }
    }

    /// Whether the bytes of an object under `points/` are those of a tombstone rather than of a recovery point.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&FIRST_OF_JSON)
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Malformed> {
        checked_json::write(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8], id: &PointId) -> Result<Self, Malformed> {
        let read: Self = checked_json::read(bytes)?;
        check(read.format == TOMBSTONE_FORMAT && read.version == VERSION && read.point == *id, read)
    }
}

/// The bytes that say that a collection is over.
pub(crate) fn collected_to_bytes(epoch: u64) -> Result<Vec<u8>, Malformed> {
    checked_json::write(&Collected { format: COLLECTED_FORMAT.to_owned(), version: VERSION, epoch })
}

/// Checks these bytes.
pub(crate) fn verify_collected(bytes: &[u8], epoch: u64) -> Result<(), Malformed> {
    let read: Collected = checked_json::read(bytes)?;
    check(read.format == COLLECTED_FORMAT && read.version == VERSION && read.epoch == epoch, ())
}

fn check<T>(fits: bool, read: T) -> Result<T, Malformed> {
    if fits { Ok(read) } else { Err(Malformed::new("it is not what its name says")) }
}

impl Collection {
    pub(crate) fn new(epoch: u64, points: Vec<PointId>, candidates: Vec<PackInfo>) -> Self {
        Self { version: VERSION, epoch, points, candidates }
    }

    pub(crate) fn to_bytes(&self, keys: &DomainKeys) -> Result<Vec<u8>, Malformed> {
        let nonce = random::<12>()?;
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &nonce].concat();
        bytes.extend(canonical_json::to_bytes(self).map_err(|error| Malformed::new(error.to_string()))?);
        keys.collection(self.epoch).seal(nonce, &bound(self.epoch), &mut bytes, HEADER_LEN);
        let fits = bytes.len() as u64 <= MAX_COLLECTION_LEN;
        if fits { Ok(bytes) } else { Err(Malformed::new("a collection names too many recovery points")) }
    }

    pub(crate) fn from_bytes(bytes: &[u8], epoch: u64, keys: &DomainKeys) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes);
        fields.expect(MAGIC, "magic")?;
        let version = fields.u32()?;
        let nonce = fields.array()?;
        let sealed = fields.bytes(fields.remaining())?;
        let plain = keys.collection(epoch).open(nonce, &bound(epoch), sealed);
        let plain = plain.ok_or_else(|| Malformed::new("it does not open with its key"))?;
        let read: Self =
            serde_json::from_slice(&plain).map_err(|error| Malformed::new(format!("its fields are wrong: {error}")))?;
        check(version == VERSION && read.version == VERSION && read.epoch == epoch, read)
    }
}

fn bound(epoch: u64) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &epoch.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;
    use crate::ids::PackId;

    #[test]
    fn a_collection_survives_and_every_changed_byte_is_noticed() {
        let keys = DomainKeys::derive(&Key::new([5; 32]));
        let pack = PackInfo { id: PackId { epoch: 1, writer: WriterId([2; 12]), sequence: 3 }, bytes: 7 };
        let collection = Collection::new(2, vec!["one".parse().unwrap()], vec![pack]);
        let bytes = collection.to_bytes(&keys).unwrap();
        assert_eq!(Collection::from_bytes(&bytes, 2, &keys).unwrap(), collection);
        assert!(Collection::from_bytes(&bytes, 3, &keys).is_err());
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert!(Collection::from_bytes(&flipped, 2, &keys).is_err(), "byte {position}");
        }
    }

    #[test]
    fn an_object_under_another_name_is_refused() {
        let (point, other): (PointId, PointId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let id = SessionId { epoch: 1, writer: WriterId([2; 12]) };
        let now = Timestamp::UNIX_EPOCH;
        let session = SessionRecord::new(id, point.clone(), "ship".to_owned(), now).to_bytes().unwrap();
        assert!(SessionRecord::from_bytes(&session, &id).is_ok());
        assert!(SessionRecord::from_bytes(&session, &SessionId { epoch: 2, ..id }).is_err());
        let tombstone = Tombstone::new(point.clone(), now).to_bytes().unwrap();
        assert!(Tombstone::is_one(&tombstone) && Tombstone::from_bytes(&tombstone, &point).is_ok());
        assert!(Tombstone::from_bytes(&tombstone, &other).is_err());
        assert!(Tombstone::from_bytes(&session, &point).is_err());
        assert!(verify_collected(&collected_to_bytes(2).unwrap(), 2).is_ok());
        assert!(verify_collected(&collected_to_bytes(2).unwrap(), 3).is_err());
    }
}
