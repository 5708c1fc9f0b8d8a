//! Locks: files that say who works on the repository. An exclusive one, such as `restic prune` has, is respected; ours is shared.
//!
//! A lock counts for half an hour. While we work, ours is renewed every five minutes: a new one is written, then the old one is removed, so
//! that there is one at any time.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Id;
use super::crypto::Key;
use super::error::{Error, Result};
use super::folder::{FileKind, Folder};
use super::sealed;

/// How often our lock is renewed; restic does it as often.
const RENEW_EVERY: Duration = Duration::from_secs(5 * 60);
/// How old a lock is when restic takes it for that of a dead process, and may remove it.
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);

/// A file below `locks/`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    time: Timestamp,
    exclusive: bool,
    hostname: String,
    username: String,
    pid: u32,
}

/// Our lock.
pub(super) struct Lock {
    id: Id,
    host: String,
    written: Instant,
}

impl Lock {
    /// Takes a shared lock. Locks of processes of this machine that are dead are removed.
    pub(super) fn take(folder: &Folder, key: &Key, host: &str) -> Result<Self> {
        let lock = Self { id: write(folder, key, host)?, host: host.to_owned(), written: Instant::now() };
        // Whoever comes later sees ours; whoever was here before is seen by us.
        match lock.look_at_others(folder, key) {
            Ok(()) => Ok(lock),
            Err(error) => {
                lock.release(folder)?;
                Err(error)
            }
        }
    }

    fn look_at_others(&self, folder: &Folder, key: &Key) -> Result<()> {
        for id in folder.list(FileKind::Lock)? {
            if id == self.id {
                continue;
            }
            // One that cannot be read is being written, was just removed, or is broken: restic leaves those alone, too.
            let Some(other) = read(folder, key, &id) else { continue };
            if other.is_stale(&self.host) {
                folder.remove(FileKind::Lock, &id)?;
            } else if other.exclusive {
                return Err(Error::Locked {
                    path: folder.path().to_owned(),
                    host: other.hostname,
                    pid: other.pid,
                    since: other.time.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Whether ours is the only one.
    pub(super) fn is_alone(&self, folder: &Folder) -> Result<bool> {
        Ok(folder.list(FileKind::Lock)?.iter().all(|id| *id == self.id))
    }

    /// Renews the lock when it is time; called again and again while there is work.
    pub(super) fn keep(&mut self, folder: &Folder, key: &Key) -> Result<()> {
        let age = self.written.elapsed();
        if age < RENEW_EVERY {
            return Ok(());
        }
        // The machine may have slept; then somebody may have removed the lock, and after it what was not in a snapshot yet.
        if age >= STALE_AFTER {
            return Err(Error::LockLost { path: folder.path().to_owned() });
        }
        let old = std::mem::replace(&mut self.id, write(folder, key, &self.host)?);
        self.written = Instant::now();
        folder.remove(FileKind::Lock, &old)
    }

    pub(super) fn release(&self, folder: &Folder) -> Result<()> {
        folder.remove(FileKind::Lock, &self.id)
    }
}

impl Document {
    /// Whether whoever wrote it is dead, as restic judges: too old, or a process of this machine that is not there any more.
    fn is_stale(&self, host: &str) -> bool {
        let age = Timestamp::now().duration_since(self.time);
        let old = SignedDuration::try_from(STALE_AFTER).is_ok_and(|limit| age > limit);
        old || (self.hostname == host && !Path::new("/proc").join(self.pid.to_string()).exists())
    }
}

fn write(folder: &Folder, key: &Key, host: &str) -> Result<Id> {
    let document = Document {
        time: Timestamp::now(),
        exclusive: false,
        hostname: host.to_owned(),
        username: "orlop".to_owned(),
        pid: std::process::id(),
    };
    folder.write(FileKind::Lock, &sealed::write(key, &document)?)
}

fn read(folder: &Folder, key: &Key, id: &Id) -> Option<Document> {
    let bytes = folder.read(&folder.path_of(FileKind::Lock, id)).ok()?;
    sealed::read(key, &bytes).ok()
}
