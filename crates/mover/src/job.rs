//! What a mover is told to do.

use std::path::PathBuf;

use repository::tree::ExpectedCounts;
use repository::{Passphrase, PointId, RootKind, StoreConfig, TableRef};
use serde::{Deserialize, Serialize};

/// One volume to move. It carries credentials, so it comes from a file mounted from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    pub store: StoreConfig,
    pub passphrase: Passphrase,
    /// Where the volume is mounted, or its device.
    pub volume: PathBuf,
    pub form: Form,
    pub direction: Direction,
}

/// As what a volume is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Its files, with all that is known of them.
    Files,
    /// Its bytes, whatever they mean to those who use it: it is a device.
    Image,
}

impl Form {
    /// How a recovery point has it.
    #[must_use]
    pub fn kind(self) -> RootKind {
        match self {
            Self::Files => RootKind::Tree,
            Self::Image => RootKind::Volume,
        }
    }

    /// As what a content of a recovery point is moved, if a volume can be filled with it.
    #[must_use]
    pub fn of(kind: RootKind) -> Option<Self> {
        match kind {
            RootKind::Tree => Some(Self::Files),
            RootKind::Volume => Some(Self::Image),
            RootKind::Stream => None,
        }
    }
}

/// Which way the bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Direction {
    /// Stores the volume.
    Backup {
        /// The recovery point that the run makes.
        point: PointId,
        /// Earlier recovery points that have the same volume, the best first; what is unchanged since is not stored again, and of files not read. The first is
        /// used that may be, which the repository decides.
        parents: Vec<PointId>,
        /// The name of the volume in them.
        content: String,
    },
    /// Fills the volume. For files it must be empty or hold what an interrupted restore of the same tree left; a device is overwritten, and must
    /// have as many bytes as are expected.
    Restore {
        root: TableRef,
        expected: ExpectedCounts,
        /// A mover that did not end well may have filled a part of it: that is not fetched again.
        resumes: bool,
    },
}
