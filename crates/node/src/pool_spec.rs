//! Which pools a node opens, and of what they are made.

use crate::error::{Error, Kind};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volume::{FileDisk, OpenError, Shape};

/// So long does a node wait for a pool that somebody has.
const MOST_WAIT: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Which pool a node opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// The file or raw device.
    pub path: PathBuf,
    /// A file of this size is made if there is none, and a pool in one that is smaller grows; a device, and a file without it, is taken as it is.
    pub bytes: Option<u64>,
}

impl PoolSpec {
    /// Opens the file or device; what does not exist or is too small becomes what it should be. What is no pool, or has lost its end, stays as it is.
    pub(crate) fn open(&self) -> std::result::Result<FileDisk, OpenError> {
        let Some(bytes) = self.bytes else { return self.open_when_let_go() };
        if std::fs::symlink_metadata(&self.path).is_ok() {
            let disk = self.open_when_let_go()?;
            volume::look(&disk)?;
            disk.extend(bytes).map_err(|source| OpenError::Disk { action: "make it larger".into(), source })?;
            return Ok(disk);
        }
        let disk = FileDisk::create(&self.path, bytes)?;
        let shape = Shape { id: rand::random(), log_blocks: None, most_changed_nodes: None };
        if let Err(error) = volume::create(&disk, shape) {
            // Nobody else has seen the file, which was made a moment ago.
            drop(disk);
            let _gone = std::fs::remove_file(&self.path);
            return Err(error);
        }
        Ok(disk)
    }

    /// The kernel ends the ring of a node that was killed only after the node itself, and with the ring the lock of its pool: a node that takes its
    /// place waits for that. One that lives keeps its pool for longer than anybody waits.
    fn open_when_let_go(&self) -> std::result::Result<FileDisk, OpenError> {
        let begin = Instant::now();
        loop {
            match FileDisk::open(&self.path) {
                Err(OpenError::InUse { .. }) if begin.elapsed() < MOST_WAIT => std::thread::sleep(LOOK_AGAIN),
                opened => return opened,
            }
        }
    }

    /// What people call it: the last part of its path.
    #[must_use]
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }
}

/// Why a pool was not opened, and what helps.
pub(crate) fn unopened(what: &str, error: OpenError) -> Error {
    use OpenError as E;
    let next = match &error {
        E::Damaged { .. } | E::LogDamaged { .. } => {
            "; `orlop store repair` mends what the rest tells, and a replica or a backup has the data"
        }
        E::NotAPool => "; `orlop store format` makes a pool of what holds nothing else",
        E::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "; with a size, as in PATH,size=100GiB, a file is made"
        }
        _ => "",
    };
    Error::new(Kind::Failed, format!("{what}: {error}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_pool_that_somebody_is_about_to_let_go_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let spec = PoolSpec { path: folder.path().join("pool"), bytes: Some(64 << 20) };
        let held = spec.open().unwrap();
        assert!(matches!(FileDisk::open(&spec.path), Err(OpenError::InUse { .. })));
        std::thread::scope(|threads| {
            let (tell, told) = mpsc::channel();
            threads.spawn(move || tell.send(spec.open().map(drop)).unwrap());
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
            drop(held);
            told.recv().unwrap().unwrap();
        });
    }
}
