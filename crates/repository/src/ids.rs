//! Names of things: blobs, packs, sessions, recovery points.

use crate::codec::{Fields, Malformed, from_hex, to_hex};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Gives a fixed-width type its text form: lowercase hexadecimal of its encoded bytes.
macro_rules! hex_text {
    ($type:ty, $len:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.encode()))
            }
        }

        impl std::str::FromStr for $type {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let bytes = from_hex::<{ $len }>(text).ok_or_else(|| {
                    Malformed::new(format!("{text:?} is not {} lowercase hexadecimal digits", $len * 2))
                })?;
                Self::decode(&mut Fields::new(&bytes))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// An identifier of `$len` bytes that are all that there is to it.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// How many bytes it takes, in memory and encoded.
            pub const LEN: usize = $len;

            /// The bytes as they are stored.
            pub fn encode(&self) -> [u8; $len] {
                self.0
            }

            /// Takes the identifier from the front of `fields`.
            pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
                fields.array().map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        hex_text!($name, $len);
    };
}

byte_id! {
    /// The identity of a blob: the keyed BLAKE3 of its plain bytes.
    ///
    /// The key belongs to the dedup domain, so that identities prove nothing across domains.
    BlobId, 32
}
byte_id! {
    /// One writing session; random, so that no two sessions ever choose the same name.
    WriterId, 12
}
byte_id! {
    /// One repository; random, bound into its keys.
    RepositoryId, 16
}
byte_id! {
    /// One wrapping of the master key.
    KeyId, 16
}

/// One writing session as the store names it: the epoch that it began in, and its writer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The epoch.
    pub epoch: u64,
    /// The writer.
    pub writer: WriterId,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.writer)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl std::str::FromStr for SessionId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parsed = text.split_once('-').and_then(|(epoch, writer)| {
            Some(Self { epoch: from_hex::<8>(epoch).map(u64::from_be_bytes)?, writer: writer.parse().ok()? })
        });
        parsed.ok_or_else(|| Malformed::new(format!("{text:?} is not the name of a session")))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One pack: the epoch that the session started in, the session, and a number within it.
///
/// Never used twice, because the key that seals a pack is derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId {
    /// The epoch of the repository that the session read when it started.
    pub epoch: u64,
    /// The session.
    pub writer: WriterId,
    /// Counts the packs of the session from zero.
    pub sequence: u32,
}

impl PackId {
    /// How many bytes it takes encoded.
    pub const LEN: usize = 8 + WriterId::LEN + 4;

    /// The bytes as they are stored.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..20].copy_from_slice(&self.writer.0);
        bytes[20..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Takes the identifier from the front of `fields`.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self { epoch: fields.u64()?, writer: WriterId::decode(fields)?, sequence: fields.u32()? })
    }
}

hex_text!(PackId, PackId::LEN);

/// Where a blob is, and what it must be.
///
/// A reference carries the location, so that a restore needs no index; when the pack is gone, the index finds the blob by
/// its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobRef {
    /// The identity, checked on every read.
    pub id: BlobId,
    /// The pack that holds the blob.
    pub pack: PackId,
    /// Offset of the sealed blob in the pack, in bytes.
    pub offset: u32,
    /// Length of the sealed blob, in bytes.
    pub stored_len: u32,
    /// Length of the plain bytes.
    pub plain_len: u32,
}

impl BlobRef {
    /// How many bytes it takes encoded.
    pub const LEN: usize = BlobId::LEN + PackId::LEN + 12;

    /// The bytes as they are stored.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..56].copy_from_slice(&self.pack.encode());
        bytes[56..60].copy_from_slice(&self.offset.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[64..].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes
    }

    /// Takes a reference from the front of `fields`.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: BlobId::decode(fields)?,
            pack: PackId::decode(fields)?,
            offset: fields.u32()?,
            stored_len: fields.u32()?,
            plain_len: fields.u32()?,
        })
    }
}

hex_text!(BlobRef, BlobRef::LEN);

/// The root of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableRef {
    /// The root page.
    pub root: BlobRef,
    /// How many levels of inner pages are above the leaves; zero when the root is a leaf.
    pub height: u8,
    /// How many entries the table has.
    pub entries: u64,
}

impl TableRef {
    /// How many bytes it takes encoded.
    pub const LEN: usize = BlobRef::LEN + 9;

    /// Stands where there is no table yet, or where it does not matter which.
    pub(crate) const NOWHERE: Self = Self {
        root: BlobRef {
            id: BlobId([0; 32]),
            pack: PackId { epoch: 0, writer: WriterId([0; 12]), sequence: 0 },
            offset: 0,
            stored_len: 0,
            plain_len: 0,
        },
        height: 0,
        entries: 0,
    };

    /// The bytes as they are stored inside of other structures.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..BlobRef::LEN].copy_from_slice(&self.root.encode());
        bytes[BlobRef::LEN] = self.height;
        bytes[BlobRef::LEN + 1..].copy_from_slice(&self.entries.to_le_bytes());
        bytes
    }

    /// Takes a reference from the front of `fields`.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self { root: BlobRef::decode(fields)?, height: fields.u8()?, entries: fields.u64()? })
    }
}

/// The name of a recovery point: 1 to 63 characters of `a-z`, `0-9` and `-`.
///
/// The same rule as for a label of Kubernetes, so that the name of a run can serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PointId(String);

impl PointId {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for PointId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        if fits && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(format!("{text:?} is not 1 to {} characters of a-z, 0-9 and -", Self::MAX_LEN)))
        }
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob_ref() -> BlobRef {
        BlobRef {
            id: BlobId([7; 32]),
            pack: PackId { epoch: 1, writer: WriterId([9; 12]), sequence: 3 },
            offset: 40,
            stored_len: 117,
            plain_len: 100,
        }
    }

    #[test]
    fn sizes_on_disk_are_fixed() {
        assert_eq!((PackId::LEN, BlobRef::LEN, TableRef::LEN), (24, 68, 77));
    }

    #[test]
    fn references_survive_bytes_and_text() {
        let table = TableRef { root: blob_ref(), height: 2, entries: 1 << 40 };
        assert_eq!(TableRef::decode(&mut Fields::new(&table.encode())), Ok(table));
        assert_eq!(blob_ref().to_string().parse(), Ok(blob_ref()));
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<TableRef>(&json).unwrap(), table);
    }

    #[test]
    fn names_of_recovery_points_are_restricted() {
        for good in ["a", "shop-20261122", &"x".repeat(63)] {
            assert!(good.parse::<PointId>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a/b", "..", "a.b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<PointId>().is_err(), "{bad}");
        }
    }
}
