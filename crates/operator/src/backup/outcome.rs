//! What a mover hands over, and how it is kept in the status until the recovery point is written.

use mover::{Form, Outcome, PackList, Stored};
use repository::tree::Incidents;
use repository::{PointId, Repository, SessionId, TableRef};
use serde::{Deserialize, Serialize};

/// What a mover stored. Kept as JSON in the status; the names of single files are not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Moved {
    /// As what.
    pub form: Form,
    /// The table of the tree, or of the image.
    pub root: TableRef,
    /// Files in it.
    pub files: u64,
    /// Bytes of the files, or of the image.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub new_bytes: u64,
    /// Files that were written while they were read.
    pub changed_while_read: u64,
    /// Files that the tree lacks because they could not be read.
    pub missed: u64,
    /// The first of them, for people; not kept.
    #[serde(skip)]
    pub first_missed: Option<String>,
    /// Packs that were written.
    pub packs: PackList,
    /// The sessions that wrote them.
    pub sessions: Vec<SessionId>,
}

/// What a mover says.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one of them per volume, for a moment")]
pub(super) enum Reported {
    /// It stored the volume, maybe not all of it.
    Moved(Moved),
    /// It did not.
    Failed {
        /// Why.
        error: String,
        /// Whether another attempt can do better.
        retryable: bool,
    },
}

impl Moved {
    /// Looks that it is in the repository, as far as a recovery point stands on it.
    pub(super) async fn verify(&self, repository: &Repository, point: &PointId) -> Result<(), repository::Error> {
        let packs = self.packs.read(repository).await?;
        repository.verify_sessions(point, &self.sessions, &packs).await?;
        repository.read_blob(&self.root.root).await.map(drop)
    }

    /// As the status keeps it.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers, texts and lists of them always serialise")
    }

    /// Reads back what [`Moved::encode`] wrote.
    pub(super) fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What it holds; see [`super::parents::held`].
    pub(super) fn held(&self) -> u64 {
        super::parents::held(self.form, self.files, &self.root)
    }

    /// Bytes that were added to the repository.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.packs.bytes
    }

    /// Why the volume is not whole, if it is not.
    pub(super) fn unreadable(&self) -> Option<String> {
        let first = self.first_missed.as_deref().unwrap_or("the mover's log names them");
        (self.missed > 0)
            .then(|| format!("{} files could not be read ({first}); the others are in the recovery point", self.missed))
    }
}

/// Reads what a mover left.
pub(super) fn parse(message: &str) -> Result<Reported, serde_json::Error> {
    let outcome: Outcome = serde_json::from_str(message)?;
    let (error, retryable) = match outcome.failure {
        Some(failure) => (failure.error, failure.retryable),
        None => ("the mover gives no reason".into(), true),
    };
    match outcome.backup {
        Some(mover::Backup { stored: Stored::Files(tree), packs, sessions })
            if outcome.ok || !tree.missed.is_empty() =>
        {
            Ok(Reported::Moved(Moved {
                form: Form::Files,
                root: tree.root,
                files: tree.files,
                bytes: tree.bytes,
                new_bytes: tree.new_bytes,
                changed_while_read: tree.changed_while_read.count,
                missed: tree.missed.count,
                first_missed: first(&tree.missed),
                packs,
                sessions,
            }))
        }
        Some(mover::Backup { stored: Stored::Image { volume, new_bytes }, packs, sessions }) if outcome.ok => {
            Ok(Reported::Moved(Moved {
                form: Form::Image,
                root: volume.root,
                files: 0,
                bytes: volume.bytes,
                new_bytes,
                changed_while_read: 0,
                missed: 0,
                first_missed: None,
                packs,
                sessions,
            }))
        }
        _ => Ok(Reported::Failed { error, retryable }),
    }
}

fn first(incidents: &Incidents) -> Option<String> {
    let first = incidents.first.first()?;
    Some(format!("such as {}: {}", first.path, first.what))
}
