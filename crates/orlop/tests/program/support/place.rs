//! A repository in a folder, with room for what is backed up and restored, and bytes to fill both with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

use super::{Ran, orlop};

/// A folder of its own for a test: with a passphrase, and with a repository where [`Place::new`] made it.
pub(crate) struct Place {
    folder: TempDir,
    /// Where the repository is.
    repository: PathBuf,
}

impl Place {
    /// With a repository.
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        place.run(&["init"]).good();
        place
    }

    /// Without one.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let repository = folder.path().canonicalize().expect("the folder is there").join("repository");
        Self::with(folder, repository)
    }

    /// With a repository in another folder.
    pub(crate) fn elsewhere(repository: &Path) -> Self {
        let place = Self::with(tempfile::tempdir().expect("make a folder"), repository.to_owned());
        place.run(&["init"]).good();
        place
    }

    fn with(folder: TempDir, repository: PathBuf) -> Self {
        let place = Self { folder, repository };
        fs::write(place.path("password"), "open sesame\n").expect("write the passphrase");
        place
    }

    /// A path below the folder; without links in it, as it is in recovery points.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the folder is there").join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("the path is text").to_owned()
    }

    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    /// What tells the program of the repository.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let location = format!("file://{}", self.repository.display());
        [("ORLOP_LOCATION", location), ("ORLOP_PASSWORD_FILE", self.text("password"))]
    }

    /// `orlop repo`, on the repository.
    pub(crate) fn command(&self) -> Command {
        let mut command = orlop();
        command.envs(self.environment()).arg("repo");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.command().args(words).output().expect("run orlop").into()
    }

    /// The objects below a folder of the repository, in the order of their names.
    pub(crate) fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![self.repository.join(folder)], Vec::new());
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let path = entry.expect("list").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// The largest object below a folder of the repository.
    pub(crate) fn object(&self, folder: &str) -> PathBuf {
        let objects = self.objects(folder).into_iter();
        objects.max_by_key(|path| fs::metadata(path).expect("look").len()).expect("there is an object")
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed << 32);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let len = usize::try_from(len).expect("it fits into memory");
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 0x10;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("allow it to be written");
    fs::write(path, bytes).expect("write");
}
