//! What a mover is told to do.

use std::path::PathBuf;

use repository::tree::ExpectedCounts;
use repository::{Passphrase, PointId, StoreConfig, TableRef};
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
        /// The recovery point that the run makes.
        point: PointId,
        /// Earlier recovery points that have the same volume, the best first; what is unchanged since is not read. The first is
        /// used that may be, which the repository decides.
        parents: Vec<PointId>,
        /// The name of the volume in them.
        content: String,
    },
    /// Fills the volume, which must be empty or hold what an interrupted restore of the same tree left.
    Restore { root: TableRef, expected: ExpectedCounts },
}
