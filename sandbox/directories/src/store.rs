//! The volumes and snapshots of this node.
//!
//!     ROOT/volumes/ID/about.json     what is known of a volume
//!     ROOT/volumes/ID/data/          what is in it
//!     ROOT/snapshots/ID/…            likewise
//!
//! What is not whole, or is to go, has a dot before its name: so what has a name is whole, and what has a dot when the driver starts is of a process that has ended, and is removed.

use crate::copy;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tonic::Status;

/// The longest name that a volume or a snapshot may have.
const MOST_NAME: usize = 128;

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Volume => "volumes",
            Self::Snapshot => "snapshots",
        }
    }
}

/// What is known of a volume or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// How large it is said to be.
    pub(crate) bytes: i64,
    /// What it was made from, by its path below the root.
    pub(crate) made_from: Option<PathBuf>,
    /// When that was begun.
    pub(crate) made_at: SystemTime,
}

/// All of it. Changes are made one after the other.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    turn: Mutex<()>,
}

impl Store {
    /// Opens what is there, and removes what was left half done.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for kind in [Kind::Volume, Kind::Snapshot] {
            let folder = root.join(kind.folder());
            fs::create_dir_all(&folder)?;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(Self { root: root.to_owned(), turn: Mutex::new(()) })
    }

    /// Waits until nobody else changes anything.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what is in it lies.
    pub(crate) fn data(&self, kind: Kind, id: &str) -> PathBuf {
        self.root.join(path(kind, id)).join("data")
    }

    /// What is known of it; nothing if it is not there.
    pub(crate) fn about(&self, kind: Kind, id: &str) -> Result<Option<About>, Status> {
        let file = self.root.join(path(kind, checked(id)?)).join("about.json");
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                let bytes = read.map_err(failed(&file))?;
                serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&file)(error.into()))
            }
        }
    }

    /// Makes it, empty or as a copy of another one, unless it is there; what is known of it then.
    pub(crate) fn make(&self, kind: Kind, id: &str, bytes: i64, from: Option<(Kind, &str)>) -> Result<About, Status> {
        let _turn = self.turn();
        if let Some(about) = self.about(kind, id)? {
            return Ok(about);
        }
        let about = About { bytes, made_from: from.map(|(kind, id)| path(kind, id)), made_at: SystemTime::now() };
        let (whole, part) = (self.root.join(path(kind, id)), self.unfinished(kind, id));
        let making = || {
            remove(&part)?;
            fs::create_dir(&part)?;
            match from {
                Some((kind, id)) => copy::directory(&self.data(kind, id), &part.join("data"))?,
                None => fs::create_dir(part.join("data"))?,
            }
            fs::write(part.join("about.json"), serde_json::to_vec(&about)?)?;
            fs::rename(&part, &whole)
        };
        making().map_err(|error| {
            // What is left of it takes room, and nothing more: the next attempt removes it, or the next start.
            let _ = remove(&part);
            failed(&whole)(error)
        })?;
        Ok(about)
    }

    /// Removes it, if it is there.
    pub(crate) fn remove(&self, kind: Kind, id: &str) -> Result<(), Status> {
        let _turn = self.turn();
        let (whole, part) = (self.root.join(path(kind, checked(id)?)), self.unfinished(kind, id));
        let removing = || {
            remove(&part)?;
            match fs::rename(&whole, &part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                renamed => renamed.and_then(|()| remove(&part)),
            }
        };
        removing().map_err(failed(&whole))
    }

    fn unfinished(&self, kind: Kind, id: &str) -> PathBuf {
        self.root.join(kind.folder()).join(format!(".{id}"))
    }
}

/// Where something is below the root.
pub(crate) fn path(kind: Kind, id: &str) -> PathBuf {
    Path::new(kind.folder()).join(id)
}

/// A name that can be one of a directory.
fn checked(id: &str) -> Result<&str, Status> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if id.is_empty() || id.len() > MOST_NAME || id.starts_with('.') || !id.bytes().all(is_plain) {
        let allowed = format!("at most {MOST_NAME} letters, digits, - _ and ., and no . at the begin");
        return Err(Status::invalid_argument(format!("{id:?} is no name: {allowed}")));
    }
    Ok(id)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What a caller is told of something that went wrong with a path.
pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Status {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted(format!("{path}: {error}"))
        }
        _ => Status::internal(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn names(root: &Path, kind: Kind) -> Vec<String> {
        let listed = fs::read_dir(root.join(kind.folder())).unwrap();
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_snapshot_is_what_its_volume_was_and_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.make(Kind::Volume, "v", 10, None).unwrap();
        let file = store.data(Kind::Volume, "v").join("file");
        fs::write(&file, "before").unwrap();
        let taken = store.make(Kind::Snapshot, "s", 10, Some((Kind::Volume, "v"))).unwrap();
        fs::write(&file, "after").unwrap();
        let again = store.make(Kind::Snapshot, "s", 10, Some((Kind::Volume, "v"))).unwrap();
        assert_eq!((&again, taken.made_from.as_deref()), (&taken, Some(Path::new("volumes/v"))));
        store.make(Kind::Volume, "w", 20, Some((Kind::Snapshot, "s"))).unwrap();
        store.remove(Kind::Volume, "v").unwrap();
        store.remove(Kind::Snapshot, "s").unwrap();
        store.remove(Kind::Snapshot, "s").unwrap();
        assert_eq!(fs::read_to_string(store.data(Kind::Volume, "w").join("file")).unwrap(), "before");
        assert_eq!(
            (names(folder.path(), Kind::Volume), names(folder.path(), Kind::Snapshot)),
            (vec!["w".into()], vec![])
        );
    }

    #[test]
    fn what_is_half_done_is_not_there_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let said = store.make(Kind::Snapshot, "s", 1, Some((Kind::Volume, "gone"))).unwrap_err();
        assert_eq!((said.code(), store.about(Kind::Snapshot, "s").unwrap()), (Code::Internal, None));
        fs::create_dir_all(folder.path().join("snapshots/.s/data")).unwrap();
        Store::open(folder.path()).unwrap();
        assert_eq!(names(folder.path(), Kind::Snapshot), Vec::<String>::new());
    }

    #[test]
    fn names_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for wrong in ["", ".", "..", ".s", "a/b", "../volumes", &"x".repeat(129)] {
            assert_eq!(store.about(Kind::Volume, wrong).unwrap_err().code(), Code::InvalidArgument, "{wrong}");
            assert_eq!(store.remove(Kind::Volume, wrong).unwrap_err().code(), Code::InvalidArgument, "{wrong}");
        }
    }
}
