//! Copies of directories.

use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, utimensat};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// Makes a directory that has what another one has.
///
/// Whoever uses that meanwhile may remove and rename what is in it: what is gone when its turn comes is not in the copy.
pub(crate) fn directory(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from).map_err(named("look at", from))?;
    fs::create_dir(to).map_err(named("make", to))?;
    for entry in fs::read_dir(from).map_err(named("list", from))? {
        let name = entry.map_err(named("list", from))?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        if let Err(error) = one(&source, &target) {
            let is_gone =
                |path: &Path| matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
            if !is_gone(&source) {
                return Err(error);
            }
            // A directory may be copied in part.
            if !is_gone(&target) {
                fs::remove_dir_all(&target).map_err(named("remove", &target))?;
            }
        }
    }
    // At last, since what is made in it changes its times.
    dress(to, &found)
}

fn one(source: &Path, target: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(source).map_err(named("look at", source))?;
    let kind = found.file_type();
    if kind.is_dir() {
        return directory(source, target);
    }
    if kind.is_symlink() {
        let to = fs::read_link(source).map_err(named("read", source))?;
        symlink(to, target).map_err(named("make", target))?;
        return dress(target, &found);
    }
    if !kind.is_file() {
        let odd = io::Error::other("it is neither a file nor a directory nor a symbolic link");
        return Err(named("copy", source)(odd));
    }
    let found = contents(source, target).map_err(named("copy", source))?;
    dress(target, &found)
}

/// Copies what is in a file, whatever is put under its name meanwhile; what the file is.
fn contents(source: &Path, target: &Path) -> io::Result<Metadata> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut from = OpenOptions::new().read(true).custom_flags(flags).open(source)?;
    let found = from.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it was replaced by something that is no file"));
    }
    io::copy(&mut from, &mut File::create_new(target)?)?;
    Ok(found)
}

/// Gives something the owner, the mode and the times that another has. The mode comes after the owner, of which a change takes privileges away.
fn dress(path: &Path, as_is: &Metadata) -> io::Result<()> {
    lchown(path, Some(as_is.uid()), Some(as_is.gid())).map_err(named("give away", path))?;
    if !as_is.is_symlink() {
        let mode = Permissions::from_mode(as_is.mode() & 0o7777);
        fs::set_permissions(path, mode).map_err(named("set the mode of", path))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: as_is.atime(), tv_nsec: as_is.atime_nsec() },
        last_modification: Timespec { tv_sec: as_is.mtime(), tv_nsec: as_is.mtime_nsec() },
    };
    let set = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    set.map_err(|error| named("set the times of", path)(error.into()))
}

/// Says what was to be done, and to what.
fn named(action: &str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let what = format!("{action} {}", path.display());
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Everything of a directory that a copy is to have.
    fn told(folder: &Path) -> Vec<String> {
        let mut told = Vec::new();
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            let found = fs::symlink_metadata(&path).unwrap();
            let bytes = match found.file_type() {
                kind if kind.is_dir() => {
                    left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                    Vec::new()
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            let (name, times) = (path.strip_prefix(folder).unwrap().display(), (found.mtime(), found.mtime_nsec()));
            told.push(format!("{name} {:o} {}:{} {times:?} {bytes:?}", found.mode(), found.uid(), found.gid()));
        }
        told.sort();
        told
    }

    #[test]
    fn a_copy_has_files_directories_and_links_with_owners_modes_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("deep/er/file"), [7; 100_000]).unwrap();
        fs::write(from.join("tool"), "run").unwrap();
        fs::set_permissions(from.join("tool"), Permissions::from_mode(0o6755)).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        let long_ago = Timespec { tv_sec: 1_000_000_000, tv_nsec: 7 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        for name in ["tool", "link", "deep/er"] {
            utimensat(CWD, from.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            lchown(from.join("link"), Some(1), Some(2)).unwrap();
            lchown(from.join("deep/er/file"), Some(3), Some(4)).unwrap();
        }
        fs::set_permissions(from.join("deep"), Permissions::from_mode(0o700)).unwrap();
        directory(&from, &to).unwrap();
        assert_eq!(told(&to), told(&from));
    }

    #[test]
    fn what_cannot_be_copied_is_told_and_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        let said = directory(&from, &to).unwrap_err().to_string();
        assert!(said.contains("from/socket: it is neither a file"), "{said}");
    }
}
