//! Finding the programs of Kubernetes and etcd.
//!
//! Nothing here downloads or builds: `sandbox build` does that, and puts what it made where this module looks last.
//! Every part of the sandbox that starts a foreign program asks [`Assets`], so that there is one order of precedence.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The environment variable that names a directory of binaries, as controller-runtime's envtest reads it.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// The places where programs are looked for, first match wins.
///
/// A directory may hold the programs itself or in a `bin` folder, so that a directory that also has `cni` and `xtables`
/// beside `bin` can be named whole.
#[derive(Clone, Debug)]
pub struct Assets {
    directories: Vec<PathBuf>,
}

/// A program that is in none of the places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingAsset {
    /// The name of the program.
    pub program: String,
    /// The directories that were looked into, in order.
    pub searched: Vec<PathBuf>,
}

impl fmt::Display for MissingAsset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let searched: Vec<_> = self.searched.iter().map(|d| d.display().to_string()).collect();
        write!(
            f,
            "{} is in none of {}; run: sandbox build, or name a directory that has it in {ASSETS_VARIABLE}",
            self.program,
            searched.join(", ")
        )
    }
}

impl std::error::Error for MissingAsset {}

impl Assets {
    /// Reads the places from the environment: `KUBEBUILDER_ASSETS`, then `PATH`, then the cache of `sandbox build`.
    pub fn from_environment() -> Self {
        Self::new(env::var_os(ASSETS_VARIABLE).as_deref(), env::var_os("PATH").as_deref(), cache_directory().as_deref())
    }

    /// Makes the places from given values; empty ones count as absent.
    pub fn new(named: Option<&OsStr>, path: Option<&OsStr>, cache: Option<&Path>) -> Self {
        let mut directories = Vec::new();
        if let Some(named) = named.filter(|n| !n.is_empty()) {
            directories.push(PathBuf::from(named));
            directories.push(Path::new(named).join("bin"));
        }
        directories.extend(path.into_iter().flat_map(env::split_paths).filter(|d| !d.as_os_str().is_empty()));
        directories.extend(cache.map(|c| c.join("bin")));
        Self { directories }
    }

    /// The places, in order.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The executable file of a program.
    pub fn find(&self, program: &str) -> Result<PathBuf, MissingAsset> {
        self.directories
            .iter()
            .map(|directory| directory.join(program))
            .find(|file| is_executable(file))
            .ok_or_else(|| MissingAsset { program: program.to_owned(), searched: self.directories.clone() })
    }

    /// The first program of several that is missing, if any; what a test asks before it decides to run.
    pub fn first_missing(&self, programs: &[&str]) -> Option<MissingAsset> {
        programs.iter().find_map(|program| self.find(program).err())
    }
}

/// Where `sandbox build` keeps what it made: `bin`, and what else it needs beside it.
///
/// `None` only where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_directory() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("orlop").join("kubernetes"))
}

fn is_executable(file: &Path) -> bool {
    const ANY_EXECUTE_BIT: u32 = 0o111;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & ANY_EXECUTE_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Tree {
        root: tempfile::TempDir,
    }

    impl Tree {
        fn with(files: &[(&str, u32)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (file, mode) in files {
                let file = root.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, "").unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self { root }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn assets(&self) -> Assets {
            let path = env::join_paths([self.at("p1"), self.at("p2")]).unwrap();
            Assets::new(Some(self.at("named").as_os_str()), Some(&path), Some(&self.at("cache")))
        }
    }

    fn check(files: &[(&str, u32)], expected: Option<&str>) {
        let tree = Tree::with(files);
        assert_eq!(tree.assets().find("etcd").ok(), expected.map(|e| tree.at(e)), "{files:?}");
    }

    #[test]
    fn places_are_searched_in_order() {
        let all = ["named/etcd", "named/bin/etcd", "p1/etcd", "p2/etcd", "cache/bin/etcd"];
        for first in 0..all.len() {
            let files: Vec<_> = all[first..].iter().map(|f| (*f, 0o755)).collect();
            check(&files, Some(all[first]));
        }
    }

    #[test]
    fn what_cannot_be_executed_does_not_count() {
        check(&[("named/etcd", 0o644), ("p2/etcd", 0o755)], Some("p2/etcd"));
        check(&[("named/etcd/file", 0o755), ("cache/bin/etcd", 0o755)], Some("cache/bin/etcd"));
        check(&[("cache/etcd", 0o755)], None);
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let tree = Tree::with(&[("p1/etcd", 0o755)]);
        let missing = tree.assets().first_missing(&["etcd", "kube-apiserver"]).unwrap();
        assert_eq!(missing.program, "kube-apiserver");
        let message = missing.to_string();
        assert!(message.contains("run: sandbox build"), "{message}");
        assert!(message.contains(&tree.at("cache/bin").display().to_string()), "{message}");
    }

    #[test]
    fn empty_settings_are_absent_ones() {
        let assets = Assets::new(Some(OsStr::new("")), Some(OsStr::new("")), None);
        assert_eq!(assets.find("etcd").unwrap_err().searched, Vec::<PathBuf>::new());
    }
}
