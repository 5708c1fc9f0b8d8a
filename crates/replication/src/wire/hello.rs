//! The first that is said on a connection: who wants what, and which version both speak.

use super::frame::{Builder, UNAGREED};
use super::numbers::{Reader, cut};
use super::{Frame, Kind, MOST_REASON, NEWEST, OLDEST, WireError};
use crate::units::{AttachmentId, NodeId, ReplicaId, VolumeId};
use bytes::Bytes;

/// The longest name of a node, in bytes: that of a host in the DNS, which Kubernetes keeps to.
pub const MOST_NODE_NAME: usize = 253;

/// A cluster. Nodes of one never serve those of another, whoever has signed their certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// What an attachment says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that it speaks.
    pub oldest: u16,
    /// The newest one.
    pub newest: u16,
    /// Of which cluster it is.
    pub cluster: ClusterId,
    /// Whose replica it wants.
    pub volume: VolumeId,
    /// Which one.
    pub replica: ReplicaId,
    /// Who asks; every request of the connection is of this attachment.
    pub attachment: AttachmentId,
    /// On which node it is. The certificate has to say so too.
    pub node: NodeId,
}

/// What a replica says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u16,
}

/// Why a replica does not go on. (In later versions there may be others, which are to be understood as [`Farewell::Other`].)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Farewell {
    /// There is no version that both speak.
    #[error("no version of the protocol is spoken by both: {0}")]
    Version(String),
    /// It is of another cluster.
    #[error("the peer is of another cluster: {0}")]
    Cluster(String),
    /// It is not here.
    #[error("the peer does not have the replica: {0}")]
    NoReplica(String),
    /// He is not who he says.
    #[error("the peer refuses the name of this node: {0}")]
    Identity(String),
    /// There is no room for one more.
    #[error("the peer takes no more connections: {0}")]
    Busy(String),
    /// What was sent is not understood.
    #[error("the peer does not understand: {0}")]
    Unclear(String),
    /// Something else.
    #[error("the peer refuses: {0}")]
    Other(String),
}

/// The version that is spoken with somebody, if there is one: the newest of both.
///
/// # Errors
/// What to tell him otherwise.
pub fn agree(hello: &Hello) -> Result<u16, Farewell> {
    let version = hello.newest.min(NEWEST);
    if version >= hello.oldest.max(OLDEST) {
        return Ok(version);
    }
    let Hello { oldest, newest, .. } = hello;
    Err(Farewell::Version(format!("{oldest} to {newest} there, {OLDEST} to {NEWEST} here; upgrade the older node")))
}

pub(super) fn encode_hello(hello: &Hello) -> Frame {
    let name = cut(&hello.node.0, MOST_NODE_NAME);
    Builder::new(Kind::Hello)
        .put(hello.oldest.to_le_bytes())
        .put(hello.newest.to_le_bytes())
        .put([0; 12])
        .put(hello.cluster.0.to_le_bytes())
        .put(hello.volume.0.to_le_bytes())
        .put(hello.attachment.0.to_le_bytes())
        .put(hello.replica.0.to_le_bytes())
        .frame(UNAGREED, Bytes::copy_from_slice(name.as_bytes()))
}

pub(super) fn decode_hello(reader: &mut Reader<'_>, data: &[u8]) -> Result<Hello, WireError> {
    let (oldest, newest) = (reader.u16()?, reader.u16()?);
    // A later version may have put something here; it speaks of what both know with the fields that follow.
    let _reserved = (reader.u32()?, reader.u64()?);
    let cluster = ClusterId(reader.u128()?);
    let volume = VolumeId(reader.u128()?);
    let attachment = AttachmentId(reader.u128()?);
    let replica = ReplicaId(reader.u64()?);
    if oldest == 0 || oldest > newest {
        return Err(reader.unfit("range of versions", format_args!("{oldest} to {newest}")));
    }
    let node = NodeId(reader.text("node", data, MOST_NODE_NAME)?.into());
    Ok(Hello { oldest, newest, cluster, volume, replica, attachment, node })
}

pub(super) fn encode_welcome(welcome: Welcome) -> Frame {
    let mut builder = Builder::new(Kind::Welcome);
    builder.put(welcome.version.to_le_bytes()).put([0; 6]).frame(UNAGREED, Bytes::new())
}

pub(super) fn decode_welcome(reader: &mut Reader<'_>, _data: &[u8]) -> Result<Welcome, WireError> {
    let version = reader.u16()?;
    let _reserved = (reader.u16()?, reader.u32()?);
    Ok(Welcome { version })
}

impl Farewell {
    fn parts(&self) -> (u16, &str) {
        match self {
            Self::Version(text) => (1, text),
            Self::Cluster(text) => (2, text),
            Self::NoReplica(text) => (3, text),
            Self::Identity(text) => (4, text),
            Self::Busy(text) => (5, text),
            Self::Unclear(text) => (6, text),
            Self::Other(text) => (7, text),
        }
    }
}

pub(super) fn encode_farewell(farewell: &Farewell) -> Frame {
    let (code, text) = farewell.parts();
    let mut builder = Builder::new(Kind::Farewell);
    let text = Bytes::copy_from_slice(cut(text, MOST_REASON).as_bytes());
    builder.put(code.to_le_bytes()).put([0; 2]).frame(UNAGREED, text)
}

pub(super) fn decode_farewell(reader: &mut Reader<'_>, data: &[u8]) -> Result<Farewell, WireError> {
    let (code, _reserved) = (reader.u16()?, reader.u16()?);
    let text = reader.text("reason", data, MOST_REASON)?;
    Ok(match code {
        1 => Farewell::Version(text),
        2 => Farewell::Cluster(text),
        3 => Farewell::NoReplica(text),
        4 => Farewell::Identity(text),
        5 => Farewell::Busy(text),
        6 => Farewell::Unclear(text),
        _ => Farewell::Other(text),
    })
}
