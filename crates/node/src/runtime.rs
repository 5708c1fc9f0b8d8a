//! The folder of a node for what lives as long as the machine runs: its sockets, and the list of what is attached.

use crate::error::{Error, Kind, Result};
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder, claimed for as long as this is there, or the process runs.
///
/// It is claimed before anything else is done: a second node in a folder would take what the first has attached for its own, and forget it, since its pools
/// do not have it.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    _lock: File,
}

impl RuntimeDir {
    /// Claims a folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// If another node has it, or it cannot be made.
    pub fn claim(path: &Path) -> Result<Self> {
        let failed = |source: io::Error| {
            Error::new(Kind::Failed, format!("take the folder {} for this node", path.display())).because(source)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("node.lock"));
        let lock = lock.map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!(
                    "the folder {} is in use by another node; stop that one first, or give this one another --runtime-dir",
                    path.display()
                );
                Err(Error::new(Kind::Precondition, what))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_node_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let first = RuntimeDir::claim(&path).unwrap();
        let refused = RuntimeDir::claim(&path).unwrap_err();
        assert!(refused.to_string().contains("--runtime-dir"), "{refused}");
        RuntimeDir::claim(&folder.path().join("other")).unwrap();
        drop(first);
        RuntimeDir::claim(&path).unwrap();
    }
}
