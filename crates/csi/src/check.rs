//! What every request is held to before anything is done: what must be there is, and nothing is larger than the specification lets it be.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use tonic::Status;

/// Bytes of a string: the specification's bound.
const MOST_STRING: usize = 128;
/// Bytes of an id: as the specification says of a node's; a snapshot's is made of two names.
const MOST_ID: usize = 256;
/// Bytes of a map, keys and values: the specification's bound.
const MOST_MAP: usize = 4 << 10;
/// Bytes of a path: Linux's bound.
const MOST_PATH: usize = 4095;

/// A name that the orchestrator gives.
pub(crate) fn name(field: &str, name: &str) -> Result<(), Status> {
    needed(field, name, MOST_STRING)?;
    if name.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(Status::invalid_argument(format!("{field} has a control character in it")));
    }
    Ok(())
}

/// An id that this driver gave.
pub(crate) fn id(field: &str, id: &str) -> Result<(), Status> {
    needed(field, id, MOST_ID)
}

fn needed(field: &str, text: &str, most: usize) -> Result<(), Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is missing")));
    }
    short(field, text, most)
}

fn short(field: &str, text: &str, most: usize) -> Result<(), Status> {
    if text.len() > most {
        return Err(Status::invalid_argument(format!("{field} has {} bytes, and {most} are the most", text.len())));
    }
    Ok(())
}

/// A map of a request; its values may be secrets, and are not told.
pub(crate) fn map(field: &str, map: &HashMap<String, String>) -> Result<(), Status> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MOST_MAP {
        return Err(Status::invalid_argument(format!("{field} has {bytes} bytes, and {MOST_MAP} are the most")));
    }
    Ok(())
}

/// A path on this machine: absolute, and without a way up.
pub(crate) fn path(field: &str, path: &str) -> Result<PathBuf, Status> {
    needed(field, path, MOST_PATH)?;
    let path = Path::new(path);
    let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if !path.is_absolute() || !is_plain || path.parent().is_none() || path.as_os_str().as_encoded_bytes().contains(&0) {
        let what = format!("{field} {path:?} must be absolute, not / itself, and without ..");
        return Err(Status::invalid_argument(what));
    }
    Ok(path.components().collect())
}

/// A path where a kubelet has volumes: below its folder, whatever links there are. Pods make links in volumes that are there too, so nothing below is gone through that is one; but the first
/// part, which whoever has set up the node may have put elsewhere.
pub(crate) fn below(field: &str, path: &Path, folder: &Path) -> Result<(), Status> {
    let parts = path.ancestors().take_while(|part| *part != folder).collect::<Vec<_>>();
    let is_link = |part: &Path| part.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let is_below =
        path.starts_with(folder) && parts.split_last().is_some_and(|(_, parts)| !parts.iter().any(|p| is_link(p)));
    if is_below {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{field} {path:?} is not below the kubelet's folder {folder:?}, or a link leads away from there"
    )))
}

/// A path that something may be looked for under; where it cannot be, it is not there.
pub(crate) fn any_path(field: &str, path: &str) -> Result<PathBuf, Status> {
    needed(field, path, MOST_PATH)?;
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_missing_or_too_large_is_refused_by_its_name() {
        for result in [
            name("name", ""),
            name("name", &"x".repeat(129)),
            name("name", "a\u{1}"),
            id("volume_id", &"x".repeat(257)),
            map("secrets", &HashMap::from([("k".to_owned(), "v".repeat(5000))])),
        ] {
            assert_eq!(result.unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        assert!(name("name", &"x".repeat(128)).is_ok() && name("name", "ein Ärger").is_ok());
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        for wrong in ["", "a/b", "/", "/a/../b", "/a\0b", &format!("/{}", "x".repeat(5000))] {
            assert!(path("target_path", wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(path("target_path", "/a//b/./c/").unwrap(), Path::new("/a/b/c"));
    }

    #[test]
    fn a_path_is_below_the_kubelets_folder_and_no_link_leads_out() {
        let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kubelet = home.path().join("kubelet");
        let volume = kubelet.join("pods/1/volumes");
        std::fs::create_dir_all(&volume).unwrap();
        symlink(elsewhere.path(), volume.join("out")).unwrap();
        symlink(elsewhere.path(), kubelet.join("plugins")).unwrap();
        let check = |path: &Path, good: bool| {
            assert_eq!(below("target_path", path, &kubelet).is_ok(), good, "{path:?}");
        };
        check(&volume, true);
        check(&volume.join("new/mount"), true);
        check(&kubelet.join("plugins/csi/globalmount"), true);
        check(&volume.join("out"), false);
        check(&volume.join("out/etc"), false);
        check(&kubelet, false);
        check(home.path(), false);
        check(&home.path().join("kubelet-2/pods"), false);
        check(Path::new("/etc"), false);
    }
}
