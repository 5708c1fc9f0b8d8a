//! The seam: what the driver asks of whoever owns the volumes.
//!
//! It is one node ([`crate::OnNode`]), or a cluster that keeps several copies of each volume. Calls wait, and are made where
//! waiting is allowed. All of them are safe to repeat: what is there as it was asked for is a success, and so is deleting or detaching what is not there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What is noted of a volume or snapshot: it lies where the bytes lie.
pub type Labels = BTreeMap<String, String>;

/// What a volume is encrypted with.
pub type Secret = Zeroizing<Vec<u8>>;

/// Who owns volumes.
pub trait Volumes: Send + Sync + 'static {
    /// How much there is for new volumes with so many replicas.
    ///
    /// # Errors
    ///
    /// If nobody can tell.
    fn capacity(&self, replicas: u32) -> Result<Capacity, Error>;

    /// Makes an empty volume.
    ///
    /// # Errors
    ///
    /// If another one has the name, or there is no room.
    fn create(&self, new: NewVolume, secret: Option<&Secret>) -> Result<Volume, Error>;

    /// A volume that was found, once it can be used: an earlier call may have ended before that.
    ///
    /// # Errors
    ///
    /// If it cannot be used yet.
    fn ready(&self, volume: Volume) -> Result<Volume, Error> {
        Ok(volume)
    }

    /// Makes a volume that begins as a snapshot, of its size; a larger one is grown then.
    ///
    /// # Errors
    ///
    /// If another one has the name, or the snapshot is not there.
    fn clone_snapshot(&self, snapshot: &str, new: NewVolume) -> Result<Volume, Error>;

    /// The volume of this id.
    ///
    /// # Errors
    ///
    /// If nobody can tell.
    fn find(&self, id: &str) -> Result<Option<Volume>, Error>;

    /// All volumes, by their ids.
    ///
    /// # Errors
    ///
    /// If nobody can tell.
    fn list(&self) -> Result<Vec<Volume>, Error>;

    /// Deletes a volume; its snapshots and clones stay.
    ///
    /// # Errors
    ///
    /// If it is used.
    fn delete(&self, id: &str) -> Result<(), Error>;

    /// Makes a volume larger, used or not.
    ///
    /// # Errors
    ///
    /// If it cannot be so large.
    fn grow(&self, id: &str, bytes: u64) -> Result<Volume, Error>;

    /// Changes how much may be asked of a volume.
    ///
    /// # Errors
    ///
    /// If it is not there.
    fn limit(&self, id: &str, limits: Limits) -> Result<(), Error>;

    /// Sets labels of a volume, and removes those of which the value is empty.
    ///
    /// # Errors
    ///
    /// If it is not there.
    fn label(&self, id: &str, labels: &Labels) -> Result<(), Error>;

    /// Takes snapshots of volumes at one instant, all or none, and notes the labels of each. It returns when they are taken; asked again, it waits for those that
    /// are not.
    ///
    /// # Errors
    ///
    /// If they cannot be taken at one instant.
    fn snapshot(&self, ids: &[String], labels: &Labels) -> Result<Vec<Snapshot>, Error>;

    /// All snapshots, by their ids; those that are not taken yet too.
    ///
    /// # Errors
    ///
    /// If nobody can tell.
    fn snapshots(&self) -> Result<Vec<Snapshot>, Error>;

    /// Deletes a snapshot; clones of it stay.
    ///
    /// # Errors
    ///
    /// If it is used.
    fn delete_snapshot(&self, id: &str) -> Result<(), Error>;

    /// Serves a volume as a block device of this machine; its path.
    ///
    /// # Errors
    ///
    /// If the secret is missing or wrong, or it cannot be served here.
    fn attach(&self, id: &str, secret: Option<&Secret>) -> Result<PathBuf, Error>;

    /// Ends that.
    ///
    /// # Errors
    ///
    /// If somebody uses the device.
    fn detach(&self, id: &str) -> Result<(), Error>;

    /// Tells page by page, in ascending order, what is data in a volume or snapshot, or what has changed since an older snapshot; from the block with the byte
    /// `start` on. Whoever is told says whether to go on.
    ///
    /// # Errors
    ///
    /// If one of the two is not there, or the one does not come from the other.
    fn ranges(
        &self,
        of: &str,
        since: Option<&str>,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error>;
}

/// A volume to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id to be.
    pub id: String,
    /// Its size, in whole blocks of 4096 bytes.
    pub bytes: u64,
    /// How many copies there are to be, each on another node. One lies on this node, and is used here alone.
    pub replicas: u32,
    /// The rules about where they are, by their name; only with several.
    pub placement: Option<String>,
    /// How much may be asked of it.
    pub limits: Limits,
    /// What is noted of it.
    pub labels: Labels,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What it is known by.
    pub id: String,
    /// Its size.
    pub bytes: u64,
    /// How many copies of it there are to be. With more than one it can be used on every node.
    pub replicas: u32,
    /// Its bytes are kept encrypted.
    pub is_encrypted: bool,
    /// How much may be asked of it.
    pub limits: Limits,
    /// The block device of this machine that it is served as.
    pub device: Option<PathBuf>,
    /// What is noted of it.
    pub labels: Labels,
    /// What is wrong with it, and what to do.
    pub trouble: Option<String>,
}

/// Where the bytes of a volume come from at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot.
    Snapshot(String),
    /// Another volume, as it was when this one was made.
    Volume(String),
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is known by: `VOLUME@SNAPSHOT`.
    pub id: String,
    /// The volume that it was taken of.
    pub volume: String,
    /// Its size.
    pub bytes: u64,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Its bytes are kept encrypted.
    pub is_encrypted: bool,
    /// Whether it can be used.
    pub state: SnapshotState,
    /// The driver of this node was asked for it, and no other.
    pub is_asked_here: bool,
    /// What is noted of it.
    pub labels: Labels,
}

/// Whether a snapshot can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// It was asked for, and is not taken yet.
    Wanted,
    /// It is there.
    Ready,
    /// It was there; no pool has it any more.
    Lost,
}

/// How much may be asked of a volume in a second; nothing is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub iops: Option<u64>,
    /// Bytes.
    pub bytes_per_second: Option<u64>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes that are free.
    pub free: u64,
    /// The size of the largest volume that could ever be filled.
    pub largest: u64,
}

/// Bytes that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub offset: u64,
    /// How many; at least one.
    pub length: u64,
}

/// What kind of error it is: what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was asked makes no sense.
    Invalid,
    /// It is not there.
    NotFound,
    /// There is one already, and it is another.
    Exists,
    /// The state of something forbids it.
    Precondition,
    /// There is no room.
    NoRoom,
    /// A secret is missing or wrong.
    Denied,
    /// The bytes are not those that were written.
    Damaged,
    /// Something of it is under way; it is to be asked for again.
    Busy,
    /// It was not done.
    Failed,
}

/// Why something was not done: the whole story in one line, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{story}")]
pub struct Error {
    /// What kind it is.
    pub kind: Kind,
    /// The story.
    pub story: String,
}
