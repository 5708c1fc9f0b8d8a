//! How messages travel: frames, byte by byte in `docs/formats/replication-wire.md`. Pure: bytes go in, messages come out.
//!
//! ```text
//! header (24 bytes: magic, version, kind, lengths, checksums) ─ head (as long as its kind says) ─ data (at most 4 MiB)
//! ```
//! A connection belongs to one attachment and one replica. It begins with a [`Hello`], which is answered by a [`Welcome`] or a [`Farewell`]; then
//! requests go one way and answers the other, in any order. Or it belongs to somebody who looks at snapshots of the replica ([`crate::look`]), and each look is answered by what is seen.
//!
//! * A length is judged before memory is taken for what it announces, and before the rest of the frame has come.
//! * Each value has one form: what is decoded is encoded to the same bytes again. What is reserved is zero, or the frame is refused.
//! * Data is not copied: what is written is sent from where it lies ([`Frame`] has head and data apart), and what is received is a slice of what was read.

mod answer;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hello;
mod look;
mod numbers;
mod request;
#[cfg(test)]
mod tests;

pub use frame::{Frame, Frames, HEADER, Kind};
pub use hello::{ClusterId, Farewell, Hello, MOST_NODE_NAME, Welcome, agree};

use crate::look::{Look, Unseen};
use crate::message::{Answer, Changed, Request};
use bytes::Bytes;
use numbers::Reader;

/// The oldest version of the protocol that is spoken here.
pub const OLDEST: u16 = 1;
/// The newest one.
pub const NEWEST: u16 = 2;
/// The version from which on replicas are asked what their snapshots have.
pub const LOOKS: u16 = 2;
/// Bytes of a block: the unit of all requests.
pub const BLOCK: usize = 4096;
/// The most data of one frame, in bytes: 4 MiB. Whoever has more to write sends several requests.
pub const MOST_DATA: usize = 4 << 20;
/// The most blocks that one request writes, reads or hashes.
pub const MOST_BLOCKS: u64 = (MOST_DATA / BLOCK) as u64;
/// The most ranges in one answer to what has changed: they have 1 MiB.
pub const MOST_RANGES: u32 = 1 << 16;
/// The longest reason that is told, in bytes. Longer ones are cut.
pub const MOST_REASON: usize = 1024;

/// Why bytes are no message. After it nothing more can be taken from the connection that they came by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Something else speaks there.
    #[error("the peer does not speak this protocol: a frame begins with {0:02x?}")]
    Magic([u8; 4]),
    /// It is not what was sent.
    #[error("the {0} of a frame is not what was sent: its checksum is another")]
    Checksum(&'static str),
    /// Of another version than was agreed.
    #[error("a frame has version {found}, and {expected} was agreed")]
    Version {
        /// That of the frame.
        found: u16,
        /// That of the connection.
        expected: u16,
    },
    /// Of a kind that is not known.
    #[error("a frame is of the unknown kind {0}")]
    Kind(u16),
    /// A frame that is known, and has no business here.
    #[error("a {0:?} came where none is expected")]
    Unexpected(Kind),
    /// A length that cannot be.
    #[error("a {kind:?} announces {len} bytes of {part}, and {allowed} are possible")]
    Length {
        /// Of which kind.
        kind: Kind,
        /// Head or data.
        part: &'static str,
        /// How many were announced.
        len: u32,
        /// What is possible.
        allowed: usize,
    },
    /// A field that cannot be.
    #[error("the {field} of a {kind:?} is {value}, which cannot be")]
    Field {
        /// Of which kind.
        kind: Kind,
        /// Which one.
        field: &'static str,
        /// What it is.
        value: String,
    },
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first that an attachment says.
    Hello(Hello),
    /// The first that a replica says.
    Welcome(Welcome),
    /// The last that is said.
    Farewell(Farewell),
    /// Of an attachment.
    Request(Request),
    /// Of a replica.
    Answer(Answer),
    /// Of somebody who wants to know what a snapshot has.
    Look(Look),
    /// Of the replica that was asked that.
    Seen(Result<Changed, Unseen>),
}

impl Message {
    /// What was received.
    ///
    /// # Errors
    /// It cannot be.
    pub fn decode(kind: Kind, head: &[u8], data: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(kind, head);
        let message = match kind {
            Kind::Hello => Self::Hello(hello::decode_hello(&mut reader, &data)?),
            Kind::Welcome => Self::Welcome(hello::decode_welcome(&mut reader, &data)?),
            Kind::Farewell => Self::Farewell(hello::decode_farewell(&mut reader, &data)?),
            Kind::Request => Self::Request(request::decode(&mut reader, data)?),
            Kind::Answer => Self::Answer(answer::decode(&mut reader, data)?),
            Kind::Look => Self::Look(look::decode(&mut reader, &data)?),
            Kind::Seen => Self::Seen(look::decode_seen(&mut reader, &data)?),
        };
        reader.end()?;
        Ok(message)
    }

    /// What is sent.
    #[must_use]
    pub fn encode(&self, version: u16) -> Frame {
        match self {
            Self::Hello(hello) => hello::encode_hello(hello),
            Self::Welcome(welcome) => hello::encode_welcome(*welcome),
            Self::Farewell(farewell) => hello::encode_farewell(farewell),
            Self::Request(request) => request::encode(request, version),
            Self::Answer(answer) => answer::encode(answer, version),
            Self::Look(look) => look::encode(look, version),
            Self::Seen(seen) => look::encode_seen(seen, version),
        }
    }
}
