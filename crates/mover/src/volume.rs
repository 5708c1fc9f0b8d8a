//! The marker of a volume that is being filled.
//!
//! The steps of a restore, and what a crash after each leaves:
//! 1. the volume is found empty: nothing;
//! 2. the marker is written and synced: an empty volume with a marker, which the same job fills;
//! 3. the volume is filled, synced and compared: a volume with a marker, which the same job fills again, with the same
//!    result;
//! 4. the marker is removed and synced: a full volume.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use repository::TableRef;
use repository::tree::restore::refuse_used;

use crate::failure::Error;

/// The name of the marker at the top of a volume. Its content is the reference of the tree that is being restored.
pub const MARKER_NAME: &str = ".orlop-restore-unfinished";

/// Greatest length of a marker that is read, in bytes: a reference and some room.
const MARKER_BYTES: u64 = 512;

/// Refuses to store a volume that was never completely filled.
pub(crate) fn refuse_unfinished(volume: &Path) -> Result<(), Error> {
    match read_marker(volume)? {
        None => Ok(()),
        Some(found) => {
            Err(Error::UnfinishedRestore { found, advice: "finish the restore before a backup is made of it" })
        }
    }
}

/// A volume that is being filled.
pub(crate) struct Filling {
    volume: PathBuf,
}

impl Filling {
    /// Marks an empty volume, or goes on with one that was marked for the same tree.
    pub(crate) fn begin(volume: &Path, root: &TableRef) -> Result<Self, Error> {
        let wanted = root.root.to_string();
        match read_marker(volume)? {
            Some(found) if found == wanted => {}
            Some(found) if found.is_empty() => write_marker(volume, &wanted)?, // Cut off while it was written.
            Some(found) => {
                let advice = "delete what is in the volume, or use another";
                return Err(Error::UnfinishedRestore { found, advice });
            }
            None => {
                refuse_used(volume, &[])?;
                write_marker(volume, &wanted)?;
            }
        }
        Ok(Self { volume: volume.to_owned() })
    }

    /// Removes the marker, and gives the top of the volume its time back.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let volume = &self.volume;
        let work = || {
            let modified = fs::metadata(volume)?.modified()?;
            fs::remove_file(volume.join(MARKER_NAME))?;
            let top = File::open(volume)?;
            top.set_modified(modified)?;
            top.sync_all()
        };
        work().map_err(failed("remove the marker from", volume))
    }
}

fn write_marker(volume: &Path, text: &str) -> Result<(), Error> {
    let work = || {
        let mut marker = File::create(volume.join(MARKER_NAME))?;
        marker.write_all(text.as_bytes())?;
        marker.sync_all()?;
        File::open(volume)?.sync_all()
    };
    work().map_err(failed("write the marker to", volume))
}

fn read_marker(volume: &Path) -> Result<Option<String>, Error> {
    let path = volume.join(MARKER_NAME);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look for a marker on", volume)(error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MARKER_BYTES => {
            Ok(Some("of an unknown kind".to_owned()))
        }
        Ok(_) => fs::read_to_string(&path).map(Some).map_err(failed("read the marker of", volume)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Volume { action, path: path.to_owned(), source }
}
