//! Finding the programs of Kubernetes and etcd.
//!
//! The programs of Kubernetes are all taken from one directory, the first that has those that are wanted: of two releases side by
//! side, one could refuse what the other sends, and the tests of a release that somebody names would not be of it.
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

/// Programs that are not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingAsset {
    /// The name of the program; of several the first.
    pub program: String,
    /// The directories that were looked into, in order.
    pub searched: Vec<PathBuf>,
    /// Directories that have some of the programs that must be of one release, and what each lacks.
    pub gaps: Vec<(PathBuf, Vec<String>)>,
}

impl fmt::Display for MissingAsset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = format!("run: sandbox build, or name a directory that has it in {ASSETS_VARIABLE}");
        if self.gaps.is_empty() {
            let searched: Vec<_> = self.searched.iter().map(|d| d.display().to_string()).collect();
            return write!(f, "{} is in none of {}; {remedy}", self.program, searched.join(", "));
        }
        let gaps: Vec<_> =
            self.gaps.iter().map(|(d, lacks)| format!("{} lacks {}", d.display(), lacks.join(", "))).collect();
        write!(f, "no directory has all programs of Kubernetes: {}; {remedy}", gaps.join("; "))
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
        self.find_by(program, is_executable)
    }

    /// The same, where more is asked of the file.
    pub(crate) fn find_by(&self, program: &str, usable: impl Fn(&Path) -> bool) -> Result<PathBuf, MissingAsset> {
        let missing =
            || MissingAsset { program: program.to_owned(), searched: self.directories.clone(), gaps: Vec::new() };
        self.directories.iter().map(|directory| directory.join(program)).find(|file| usable(file)).ok_or_else(missing)
    }

    /// The first directory that has all of these programs, so that they are of one release.
    pub fn find_together(&self, programs: &[&str]) -> Result<&Path, MissingAsset> {
        let mut gaps = Vec::new();
        for directory in &self.directories {
            let absent: Vec<_> = programs.iter().filter(|p| !is_executable(&directory.join(p))).collect();
            if absent.is_empty() {
                return Ok(directory);
            }
            if absent.len() < programs.len() {
                gaps.push((directory.clone(), absent.iter().map(ToString::to_string).collect()));
            }
        }
        let program = programs.first().copied().unwrap_or_default().to_owned();
        Err(MissingAsset { program, searched: self.directories.clone(), gaps })
    }

    /// The first program of several that is missing, if any; what a test asks before it decides to run.
    pub fn first_missing(&self, programs: &[&str]) -> Option<MissingAsset> {
        let (kubernetes, others): (Vec<_>, Vec<_>) = programs.iter().copied().partition(|p| is_of_kubernetes(p));
        let together = self.find_together(&kubernetes).err().filter(|_| !kubernetes.is_empty());
        others.iter().find_map(|program| self.find(program).err()).or(together)
    }
}

fn is_of_kubernetes(program: &str) -> bool {
    program.starts_with("kube")
}

/// Where `sandbox build` keeps what it made: `bin`, and what else it needs beside it.
///
/// `None` only where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_directory() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("orlop").join("kubernetes"))
}

pub(crate) fn is_executable(file: &Path) -> bool {
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
    fn programs_of_kubernetes_come_from_one_directory() {
        let tree = Tree::with(&[
            ("named/kube-apiserver", 0o755),
            ("named/etcd", 0o755),
            ("p2/kube-apiserver", 0o755),
            ("p2/kube-controller-manager", 0o755),
            ("cache/bin/kubelet", 0o755),
        ]);
        let assets = tree.assets();
        assert_eq!(assets.find_together(&["kube-apiserver"]).unwrap(), tree.at("named"));
        assert_eq!(assets.find_together(&["kube-apiserver", "kube-controller-manager"]).unwrap(), tree.at("p2"));
        assert_eq!(assets.first_missing(&["etcd", "kube-apiserver", "kube-controller-manager"]), None);
        let missing = assets.first_missing(&["kube-apiserver", "kubelet"]).unwrap().to_string();
        let named = format!("{} lacks kubelet", tree.at("named").display());
        let cache = format!("{} lacks kube-apiserver", tree.at("cache/bin").display());
        assert!(missing.contains(&named) && missing.contains(&cache), "{missing}");
    }

    #[test]
    fn empty_settings_are_absent_ones() {
        let assets = Assets::new(Some(OsStr::new("")), Some(OsStr::new("")), None);
        assert_eq!(assets.find("etcd").unwrap_err().searched, Vec::<PathBuf>::new());
    }
}
