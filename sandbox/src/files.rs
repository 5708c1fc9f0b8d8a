//! Small files, with errors that name them.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

/// Readable by everybody on the machine, as configuration is.
pub(crate) const PUBLIC: u32 = 0o644;
/// Readable by its owner alone, as keys and kubeconfigs are.
pub(crate) const PRIVATE: u32 = 0o600;
/// A script.
pub(crate) const PROGRAM: u32 = 0o755;

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create directory", path))
}

/// Writes a file whole, with its directory; a key is never readable by others, not even for a moment.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| std::io::Write::write_all(&mut file, content.as_ref()))
        .map_err(Error::file("write", path))
}

pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize, mode: u32) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| Error::Json {
        action: "encode",
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    write(path, text, mode)
}

/// The text of a file, or none when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read(path)?
        .map(|text| {
            serde_json::from_str(&text).map_err(|source| Error::Json {
                action: "decode",
                path: path.to_owned(),
                source,
            })
        })
        .transpose()
}

/// The names in a directory in their order; none when there is no such directory.
pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}
