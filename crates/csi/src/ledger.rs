//! How each volume of this node was asked to be used, in a file that lives as long as the machine runs, as mounts do.
//!
//! It is written before anything is mounted and changed after it is unmounted. What *is* mounted is read from the kernel's table alone; the ledger tells
//! what the table cannot: with which arguments. So an entry without a mount is a call that was interrupted, and no more.

use crate::capability::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const NAME: &str = "csi.json";

/// Why the ledger is not read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}", path = .path.display())]
pub struct LedgerError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl LedgerError {
    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        crate::status::story(self)
    }
}

/// A volume that was asked to be staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Staged {
    pub(crate) at: PathBuf,
    pub(crate) usage: Usage,
    /// Where it was asked to be published.
    pub(crate) targets: BTreeMap<PathBuf, Published>,
}

/// How it was asked to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Published {
    pub(crate) usage: Usage,
    pub(crate) read_only: bool,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
    volumes: BTreeMap<String, Staged>,
}

impl Ledger {
    /// Reads what earlier processes have written, in a folder that is made if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(NAME);
        let error = |action| {
            let path = path.clone();
            move |source| LedgerError { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error("make the folder of"))?;
        let volumes = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| error("understand")(e.into()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(error("read")(e)),
        };
        Ok(Self { folder: folder.to_owned(), volumes })
    }

    pub(crate) fn get(&self, id: &str) -> Option<Staged> {
        self.volumes.get(id).cloned()
    }

    /// Writes what is so of a volume from now on, durably or not at all.
    pub(crate) fn set(&mut self, id: &str, staged: Option<Staged>) -> Result<(), LedgerError> {
        if self.volumes.get(id) == staged.as_ref() {
            return Ok(());
        }
        let mut volumes = self.volumes.clone();
        match staged {
            Some(staged) => drop(volumes.insert(id.to_owned(), staged)),
            None => drop(volumes.remove(id)),
        }
        let (path, new) = (self.folder.join(NAME), self.folder.join(format!("{NAME}.new")));
        let write = || {
            let json = serde_json::to_vec_pretty(&volumes)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| LedgerError { action: "write", path: path.clone(), source })?;
        self.volumes = volumes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{Access, Sharing};

    #[test]
    fn what_is_written_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let usage = Usage { access: Access::Block, sharing: Sharing::OneReader };
        let staged = Staged {
            at: "/s".into(),
            targets: BTreeMap::from([("/t".into(), Published { usage: usage.clone(), read_only: true })]),
            usage,
        };
        let mut ledger = Ledger::open(&folder).unwrap();
        ledger.set("a", Some(staged.clone())).unwrap();
        ledger.set("b", Some(staged.clone())).unwrap();
        ledger.set("b", None).unwrap();
        let ledger = Ledger::open(&folder).unwrap();
        assert_eq!((ledger.get("a"), ledger.get("b")), (Some(staged), None));
        fs::write(folder.join(NAME), "[{]").unwrap();
        assert!(Ledger::open(&folder).unwrap_err().story().contains("csi.json"));
    }
}
