//! How far a run of the program is, by what it has left so far.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::place::Place;

/// What a process was at when it was killed. Those of one command follow each other in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It has not begun a session.
    BackupBegins,
    /// Its session writes packs; the first of them may be in the repository or not.
    BackupWrites,
    /// Its index is written, and what it wrote is read back.
    BackupReadsBack,
    /// Its recovery point is published, and that is not told yet.
    BackupIsPublished,
    /// There is nothing in the target.
    RestoreBegins,
    RestoreFills,
    /// It finds out what is needed, and has not told what it will delete.
    PruneLooks,
    /// It opens an epoch, waits, gives runs up, and finds out again.
    PruneCollects,
    /// It has deleted a pack.
    PruneDeletes,
}

impl Phase {
    pub(crate) const ALL: [Self; 9] = [
        Self::BackupBegins,
        Self::BackupWrites,
        Self::BackupReadsBack,
        Self::BackupIsPublished,
        Self::RestoreBegins,
        Self::RestoreFills,
        Self::PruneLooks,
        Self::PruneCollects,
        Self::PruneDeletes,
    ];

    pub(crate) fn command(self) -> Command {
        match self {
            Self::BackupBegins | Self::BackupWrites | Self::BackupReadsBack | Self::BackupIsPublished => {
                Command::Backup
            }
            Self::RestoreBegins | Self::RestoreFills => Command::Restore,
            Self::PruneLooks | Self::PruneCollects | Self::PruneDeletes => Command::Prune,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Backup,
    Restore,
    Prune,
}

/// Watches one process.
pub(crate) enum Watch<'a> {
    Backup { place: &'a Place, id: String, session: Option<String>, others: BTreeSet<PathBuf> },
    Restore { targets: [PathBuf; 2] },
    Prune { said: PathBuf, packs: Vec<PathBuf> },
}

impl<'a> Watch<'a> {
    pub(crate) fn backup(place: &'a Place, id: &str) -> Self {
        let others = place.objects("domains/default/sessions").into_iter().collect();
        Self::Backup { place, id: id.to_owned(), session: None, others }
    }

    /// An image has another name until it is whole.
    pub(crate) fn restore(target: &Path) -> Self {
        let mut unfinished = target.as_os_str().to_owned();
        unfinished.push(".orlop-unfinished");
        Self::Restore { targets: [target.to_owned(), unfinished.into()] }
    }

    /// Only the process itself deletes packs; `said` is what it writes to standard error.
    pub(crate) fn prune(place: &'a Place, said: &Path) -> Self {
        Self::Prune { said: said.to_owned(), packs: place.objects("domains/default/packs") }
    }

    /// The phase that the process is in, or was in when it ended.
    pub(crate) fn phase(&mut self) -> Phase {
        match self {
            Self::Backup { place, id, session, others } => backup(place, id, session, others),
            Self::Restore { targets } if targets.iter().any(|target| target.exists()) => Phase::RestoreFills,
            Self::Restore { .. } => Phase::RestoreBegins,
            Self::Prune { packs, .. } if packs.iter().any(|pack| !pack.exists()) => Phase::PruneDeletes,
            // Standard error begins with what will be deleted.
            Self::Prune { said, .. } if fs::metadata(&*said).is_ok_and(|said| said.len() > 0) => Phase::PruneCollects,
            Self::Prune { .. } => Phase::PruneLooks,
        }
    }
}

fn backup(place: &Place, id: &str, session: &mut Option<String>, others: &mut BTreeSet<PathBuf>) -> Phase {
    if place.repository().join("domains/default/points").join(id).exists() {
        return Phase::BackupIsPublished;
    }
    if session.is_none() {
        *session = find_session(place, id, others);
    }
    let Some(session) = session else { return Phase::BackupBegins };
    let is_ours = |run: &PathBuf| run.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&**session));
    match place.objects("domains/default/index").iter().any(is_ours) {
        true => Phase::BackupReadsBack,
        false => Phase::BackupWrites,
    }
}

/// The name of the session that works for a recovery point; others are read once.
fn find_session(place: &Place, id: &str, others: &mut BTreeSet<PathBuf>) -> Option<String> {
    let works_for = format!("\"point\":\"{id}\"");
    for path in place.objects("domains/default/sessions") {
        if others.contains(&path) {
            continue;
        }
        // It may be gone again: a prune deletes those that have ended.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if text.contains(&works_for) {
            return path.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        others.insert(path);
    }
    None
}
