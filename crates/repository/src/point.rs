//! Recovery points: the documents that make what was written a backup.
//!
//! A recovery point is written last, when everything it refers to is durable, and only if there is none of its name. It is
//! sealed, so nothing about it can be changed without the keys. It names its writing sessions, and counts only while the objects of all
//! of them exist: that is what makes forgetting final (see [`crate::collector`]).

use crate::canonical_json;
use crate::codec::{Fields, Malformed};
use crate::collector::{self, ForgetRequest, Tombstone};
use crate::crypto::random;
use crate::error::{Error, Result};
use crate::holding;
use crate::ids::{PackId, PointId, SessionId, TableRef};
use crate::layout::{self, ObjectName};
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use crate::tags::Tags;
use crate::writer::PackInfo;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const MAGIC: &[u8; 8] = b"ORLOPPNT";
const VERSION: u32 = 1;
/// Magic, version, nonce.
const HEADER_LEN: usize = 8 + 4 + 12;
/// The version of the document that is written, and the greatest that is read.
const DOCUMENT_VERSION: u32 = 1;
/// The longest recovery point that is read, in bytes: 32 TiB in packs take a million lines of some 80 bytes less than twice.
pub(crate) const MAX_POINT_LEN: u64 = 128 << 20;
/// How many recovery points are read at once when they are listed.
const READS: usize = 8;

/// A recovery point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryPoint {
    /// The version of this document; see [`RecoveryPoint::VERSION`].
    pub version: u32,
    /// Its name.
    pub id: PointId,
    /// When it was taken.
    pub created: Timestamp,
    /// Of what.
    pub source: Source,
    /// Words that people gave it.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Whether everything that was wanted is in it.
    pub complete: bool,
    /// The objects of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<TableRef>,
    /// What was wanted, and what became of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<TableRef>,
    /// The contents: volumes, or plain folders.
    pub roots: Vec<Root>,
    /// The writing sessions whose packs it needs first-hand, each once; while the object of any of them is gone, it does not count.
    pub sessions: Vec<SessionId>,
    /// All packs that the run wrote; it may refer to others that were there before.
    pub packs: Vec<PackInfo>,
    /// What it amounts to.
    pub stats: Stats,
}

/// What a recovery point was taken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields, tag = "kind")]
pub enum Source {
    /// Namespaces of a cluster.
    Application {
        /// The cluster; Kubernetes has no better name for it than the UID of `kube-system`.
        cluster_id: String,
        /// What people call the cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster_name: Option<String>,
        /// The backup resource, as `namespace/name`.
        backup: String,
        /// The namespaces, sorted.
        namespaces: Vec<String>,
    },
    /// Folders of a machine.
    Paths {
        /// The machine.
        host: String,
    },
}

/// One content of a recovery point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// A claim as `namespace/name`, or an absolute path; unique in the recovery point.
    pub name: String,
    /// How the content is stored.
    pub kind: RootKind,
    /// The content.
    pub table: TableRef,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many files changed while they were read, and so may be inconsistent in themselves.
    pub changed_while_read: u64,
    /// When reading began.
    pub started: Timestamp,
    /// When reading ended.
    pub finished: Timestamp,
    /// The claim, if it is a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// How a content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RootKind {
    /// As a file tree.
    Tree,
    /// As a volume: a block device, or an image of one.
    Volume,
    /// As a stream of bytes.
    Stream,
}

/// The claim of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The PersistentVolumeClaim as it was, for the restore.
    pub object: serde_json::Value,
}

/// What a recovery point amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stats {
    /// Objects of the application that are stored.
    pub objects: u64,
    /// Files in all contents.
    pub files: u64,
    /// Bytes in all contents.
    pub bytes: u64,
    /// Bytes among them that were new to the repository.
    pub new_bytes: u64,
    /// Bytes that the new ones take in packs.
    pub stored_bytes: u64,
}

impl RecoveryPoint {
    /// The version of the document that this program writes.
    pub const VERSION: u32 = DOCUMENT_VERSION;

    /// A point has sessions, each once, and its packs are of these.
    fn check_sessions(&self) -> Result<(), Malformed> {
        let sessions: BTreeSet<_> = self.sessions.iter().copied().collect();
        if sessions.is_empty() || sessions.len() != self.sessions.len() {
            return Err(Malformed::new("it has no sessions, or one of them twice"));
        }
        let of_session = |pack: &PackId| sessions.contains(&SessionId { epoch: pack.epoch, writer: pack.writer });
        match self.packs.iter().find(|pack| !of_session(&pack.id)) {
            Some(pack) => Err(Malformed::new(format!("its pack {} is of none of its sessions", pack.id))),
            None => Ok(()),
        }
    }

    /// The content of this name.
    pub fn root(&self, name: &str) -> Option<&Root> {
        self.roots.iter().find(|root| root.name == name)
    }
}

/// A recovery point as it is listed.
#[derive(Debug, Clone)]
pub struct PointEntry {
    /// Its name.
    pub id: PointId,
    /// The document, or why it cannot be read.
    pub point: Result<RecoveryPoint>,
}

impl Repository {
    /// All recovery points that count, in order of their names; one that cannot be read does not hide the others.
    pub async fn points(&self) -> Result<Vec<PointEntry>> {
        let objects = self.store().list(&layout::domain_folder("points")).await?;
        let ids = objects.iter().filter_map(|object| match layout::parse(&object.name) {
            ObjectName::Point(id) => Some(id),
            _ => None,
        });
        let read = ids.map(|id| async move { (self.read_point(&id).await, id) });
        let read: Vec<_> = stream::iter(read.collect::<Vec<_>>()).buffered(READS).collect().await;
        // Listed afterwards, because a session is older than its point.
        let sessions = self.sessions().await?;
        let entries = read.into_iter().filter_map(|(found, id)| {
            match found {
                Ok(None) => None,
                Ok(Some(point)) => point.sessions.iter().all(|id| sessions.contains(id)).then_some(Ok(point)),
                Err(error) => Some(Err(error)),
            }
            .map(|point| PointEntry { id, point })
        });
        Ok(entries.collect())
    }

    /// Reads a recovery point, if it counts.
    pub async fn point(&self, id: &PointId) -> Result<RecoveryPoint> {
        let absent = || Error::NoSuchPoint { id: id.clone() };
        let point = self.read_point(id).await?.ok_or_else(absent)?;
        for session in &point.sessions {
            match self.store().head(&layout::session(session)).await {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::NotFound => return Err(absent()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(point)
    }

    /// Reads a recovery point, whether it counts or not; none if there is none, or a tombstone.
    pub(crate) async fn read_point(&self, id: &PointId) -> Result<Option<RecoveryPoint>> {
        match self.store().get(&layout::point(id), MAX_POINT_LEN).await {
            Ok(bytes) if Tombstone::is_one(&bytes) => {
                Tombstone::from_bytes(&bytes, id).map_err(|what| what.in_object(layout::point(id)))?;
                Ok(None)
            }
            Ok(bytes) => self.open_point(id, &bytes).map(Some),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The sessions whose objects exist.
    async fn sessions(&self) -> Result<BTreeSet<SessionId>> {
        let objects = self.store().list(&layout::domain_folder("sessions")).await?;
        let ids = objects.iter().filter_map(|object| match layout::parse(&object.name) {
            ObjectName::Session(id) => Some(id),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// Publishes a recovery point; what it refers to must be durable, which is what [`crate::Writer::finish`] tells.
    ///
    /// Publishing the same again is a success, so that a run that was interrupted can be repeated. One that a collector has revoked
    /// meanwhile is an error: the run has to be made again.
    pub async fn publish(&self, point: &RecoveryPoint) -> Result<()> {
        if point.version != DOCUMENT_VERSION {
            return Err(Error::invalid(format!(
                "a recovery point has version {} instead of {DOCUMENT_VERSION}",
                point.version
            )));
        }
        point.check_sessions().map_err(|what| Error::invalid(what.to_string()))?;
        holding::hold_all(self, point).await?;
        collector::publish(self, point).await
    }

    /// Forgets a recovery point, whole or damaged: it is gone at once; its packs stay until [`Repository::collect`] finds that nothing
    /// else needs them. One that is under way will never be published. One that is gone already is a success.
    ///
    /// One that is pinned is refused. Its name must not be used again.
    pub async fn forget(&self, id: &PointId) -> Result<()> {
        self.refuse_pinned(id).await?;
        collector::forget(self, ForgetRequest { id: id.clone(), now: Timestamp::now() }).await
    }

    pub(crate) fn seal_point(&self, point: &RecoveryPoint) -> Result<Vec<u8>> {
        let nonce = random::<12>().map_err(|what| Error::invalid(what.to_string()))?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&canonical(point)?);
        self.keys().point(&point.id).seal(nonce, &bound(&point.id), &mut bytes, HEADER_LEN);
        if bytes.len() as u64 > MAX_POINT_LEN {
            return Err(Error::invalid(format!(
                "a recovery point of {} bytes is longer than {MAX_POINT_LEN}",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads the bytes of a recovery point's object, every one of them.
    pub(crate) fn open_point(&self, id: &PointId, bytes: &[u8]) -> Result<RecoveryPoint> {
        let name = layout::point(id);
        let damaged = |what: Malformed| what.in_object(&name);
        let mut fields = Fields::new(bytes);
        fields.expect(MAGIC, "magic").map_err(damaged)?;
        let version = fields.u32().map_err(damaged)?;
        let nonce = fields.array().map_err(damaged)?;
        // A version is believed only when the rest opens under it; a flipped bit in it is damage, not a newer format.
        let sealed = fields.bytes(fields.remaining()).map_err(damaged)?;
        let plain = self.keys().point(id).open(nonce, &bound(id), sealed);
        let plain = plain.ok_or_else(|| damaged(Malformed::new("it does not open with its key")))?;
        if version != VERSION {
            return Err(damaged(Malformed::new(format!("its header has version {version} instead of {VERSION}"))));
        }
        let value: serde_json::Value = serde_json::from_slice(&plain)
            .map_err(|error| damaged(Malformed::new(format!("it is not JSON: {error}"))))?;
        let found =
            value.get("version").and_then(serde_json::Value::as_u64).and_then(|found| u32::try_from(found).ok());
        if let Some(found) = found.filter(|found| *found > DOCUMENT_VERSION) {
            return Err(Error::Newer { object: name, found, supported: DOCUMENT_VERSION });
        }
        let point: RecoveryPoint = serde_json::from_value(value)
            .map_err(|error| damaged(Malformed::new(format!("its fields are wrong: {error}"))))?;
        if point.id == *id {
            point.check_sessions().map_err(damaged)?;
            Ok(point)
        } else {
            Err(damaged(Malformed::new(format!("it is recovery point {}", point.id))))
        }
    }
}

fn canonical(point: &RecoveryPoint) -> Result<Vec<u8>> {
    canonical_json::to_bytes(point)
        .map_err(|error| Error::invalid(format!("a recovery point cannot be written as JSON: {error}")))
}

fn bound(id: &PointId) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), id.as_str().as_bytes()].concat()
}
