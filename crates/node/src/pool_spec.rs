//! Which pools a node opens, and of what they are made.

use crate::error::{Error, Kind};
use std::io;
use std::path::PathBuf;
use volume::{FileDisk, OpenError, Shape};

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
        let Some(bytes) = self.bytes else { return FileDisk::open(&self.path) };
        if std::fs::symlink_metadata(&self.path).is_ok() {
            let disk = FileDisk::open(&self.path)?;
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
