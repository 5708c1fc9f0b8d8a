//! Which pools a node opens, and of what they are made.

use crate::error::{Error, Kind};
use rustix::fs::{CWD, RenameFlags};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
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
        self.make(bytes)
    }

    /// Makes the file under another name, which it keeps until it is a pool: one that is cut off would be no pool for ever, and is never taken for one of somebody else.
    fn make(&self, bytes: u64) -> std::result::Result<FileDisk, OpenError> {
        let failed = |action: &str| {
            let action = format!("{action} {}", self.path.display());
            move |source: io::Error| OpenError::Disk { action, source }
        };
        let mut unfinished = self.path.clone().into_os_string();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("make")(error)),
            _ => {}
        }
        let shape = Shape { id: rand::random(), log_blocks: None, most_changed_nodes: None };
        let made = FileDisk::create(&unfinished, bytes).and_then(|disk| volume::create(&disk, shape).map(|()| disk));
        let named = made.and_then(|disk| {
            rustix::fs::renameat_with(CWD, &unfinished, CWD, &self.path, RenameFlags::NOREPLACE)
                .map_err(|error| failed("make")(error.into()))?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
            folder.map_err(failed("sync the folder of")).map(|()| disk)
        });
        if named.is_err() {
            let _gone = std::fs::remove_file(&unfinished);
        }
        named
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
    fn a_pool_whose_making_was_cut_off_is_made_and_what_is_no_pool_stays() {
        let folder = tempfile::tempdir().unwrap();
        let spec = PoolSpec { path: folder.path().join("pool"), bytes: Some(64 << 20) };
        let unfinished = folder.path().join("pool.unfinished");
        std::fs::write(&unfinished, b"the first bytes").unwrap();
        drop(spec.open().unwrap());
        assert!(!unfinished.exists() && spec.open().is_ok());
        std::fs::write(&spec.path, b"something else").unwrap();
        assert!(matches!(spec.open(), Err(OpenError::NotAPool)));
        assert_eq!(std::fs::read(&spec.path).unwrap(), b"something else");
    }

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
