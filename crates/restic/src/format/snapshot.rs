//! Snapshots: what makes the tree below them a backup. A snapshot is written last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Id;

/// A file below `snapshots/`. Fields that are not known are left out when it is read: only ours are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub time: Timestamp,
    /// The listing at the top.
    pub tree: Id,
    /// What it is of; restic groups by this and the host.
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default)]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
}
