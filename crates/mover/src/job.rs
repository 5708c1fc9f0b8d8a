//! What a mover is told to do.

use std::path::PathBuf;

use repository::tree::ExpectedCounts;
use repository::{Passphrase, StoreConfig, TableRef};
use serde::{Deserialize, Serialize};

/// One volume to move. It carries credentials, so it comes from a file mounted from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    pub store: StoreConfig,
    pub passphrase: Passphrase,
    /// Where the volume is mounted.
    pub volume: PathBuf,
    pub direction: Direction,
}

/// Which way the bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Direction {
    /// Stores the volume.
    Backup {
        /// The tree of the same volume in an earlier recovery point; what is unchanged since is not read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<TableRef>,
    },
    /// Fills the volume, which must be empty or hold what an interrupted restore of the same tree left.
    Restore { root: TableRef, expected: ExpectedCounts },
}
