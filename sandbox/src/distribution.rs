//! The programs that clusters are made of, and where they come from.
//!
//! In this order: the directory that `KUBEBUILDER_ASSETS` names, `PATH`, the cache. What is nowhere can be built once into
//! the cache, from Debian's own packages ([`build`](crate::build)). Those of Kubernetes are of one directory, and so of one release.
//!
//! Nodes see one directory with `bin`, `cni` and `xtables` in it. One that has everything is taken as it is; otherwise
//! one is put together out of links in the sandbox's own directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::assets::{Assets, is_executable};
use crate::error::{Error, Result};
use crate::files;

/// In `bin`: the daemons of Kubernetes and its client.
const KUBERNETES: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// In `bin`: what Kubernetes stands on.
const FOUNDATION: &[&str] = &[
    "etcd",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "busybox",
    "conntrack",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
    "ebtables",
    "ebtables-save",
    "ebtables-restore",
];

/// In `cni`: how a pod gets its network.
const CNI: &[&str] = &["bridge", "host-local", "loopback", "portmap"];

/// Where distributions install network plugins.
const CNI_DIRECTORIES: &[&str] = &["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// What a node shares with the machine: a program below one of these has the same path in both.
const SHARED_WITH_NODES: &[&str] = &["/usr/", "/bin/", "/sbin/"];

/// A directory with all programs.
#[derive(Debug, Clone)]
pub struct Distribution {
    directory: PathBuf,
    /// For each program, where it was found.
    origin: BTreeMap<String, PathBuf>,
}

impl Distribution {
    /// Finds all programs, or says which are missing and what to do about it.
    pub fn find(sandbox_directory: &Path) -> Result<Self> {
        let origin = find_all(&Assets::from_environment())?;
        let directory = match whole(&origin) {
            Some(directory) => directory,
            None => gather(&origin, &sandbox_directory.join("distribution"))?,
        };
        Ok(Self { directory, origin })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }

    /// Where each program was found, by its place in the distribution.
    pub fn origin(&self) -> &BTreeMap<String, PathBuf> {
        &self.origin
    }
}

fn find_all(assets: &Assets) -> Result<BTreeMap<String, PathBuf>> {
    let remedy = "run `sandbox build`, which makes them once, or name a directory that has them in KUBEBUILDER_ASSETS";
    let kubernetes = assets.find_together(KUBERNETES).map_err(|missing| {
        let gaps: Vec<_> =
            missing.gaps.iter().map(|(d, lacks)| format!("; {} lacks {}", d.display(), lacks.join(", "))).collect();
        Error::machine(format!("no directory has all of {}{}", KUBERNETES.join(", "), gaps.concat()), remedy)
    })?;
    let mut cni: Vec<PathBuf> = assets.directories().iter().filter_map(|directory| sibling(directory, "cni")).collect();
    cni.extend(CNI_DIRECTORIES.iter().map(PathBuf::from));
    let mut origin: BTreeMap<_, _> =
        KUBERNETES.iter().map(|name| (format!("bin/{name}"), kubernetes.join(name))).collect();
    let mut missing = Vec::new();
    for name in FOUNDATION {
        match assets.find_by(name, is_usable) {
            Ok(found) => drop(origin.insert(format!("bin/{name}"), found)),
            Err(_) => missing.push(*name),
        }
    }
    for name in CNI {
        match cni.iter().map(|p| p.join(name)).find(|p| is_usable(p)) {
            Some(found) => drop(origin.insert(format!("cni/{name}"), found)),
            None => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(origin);
    }
    Err(Error::machine(format!("these programs are missing: {}", missing.join(", ")), remedy))
}

fn sibling(directory: &Path, name: &str) -> Option<PathBuf> {
    let found = directory.parent()?.join(name);
    found.is_dir().then_some(found)
}

fn is_usable(path: &Path) -> bool {
    // The images' busybox has no libraries around it, so one that needs them is of no use.
    is_executable(path) && (!path.ends_with("busybox") || is_static(path))
}

fn is_static(path: &Path) -> bool {
    let loader = b"/lib64/ld-linux";
    fs::read(path).is_ok_and(|bytes| !bytes.windows(loader.len()).any(|window| window == loader))
}

/// The directory that has everything in the layout that nodes need, if the programs were all found in one.
fn whole(origin: &BTreeMap<String, PathBuf>) -> Option<PathBuf> {
    let (place, first) = origin.first_key_value()?;
    let directory = first.to_str()?.strip_suffix(place.as_str())?;
    let directory = PathBuf::from(directory);
    origin.iter().all(|(place, found)| directory.join(place) == *found).then(|| fs::canonicalize(&directory).ok())?
}

/// Puts a distribution together; one that was put together of the same programs before is left as it is.
fn gather(origin: &BTreeMap<String, PathBuf>, directory: &Path) -> Result<PathBuf> {
    let list = directory.join("origin.json");
    if files::read_json::<BTreeMap<String, PathBuf>>(&list)?.as_ref() == Some(origin) {
        return Ok(directory.to_owned());
    }
    files::remove_dir(directory)?;
    for (place, found) in origin {
        let target = directory.join(place);
        files::create_dir(target.parent().unwrap_or(directory))?;
        place_program(found, &target)?;
        // Some programs are scripts around what lies in a folder beside theirs.
        if let Some(xtables) = found.parent().and_then(|bin| sibling(bin, "xtables")) {
            let link = directory.join("xtables");
            if !link.exists() {
                copy_directory(&xtables, &link)?;
            }
        }
    }
    files::write_json(&list, origin, files::PUBLIC)?;
    Ok(directory.to_owned())
}

fn place_program(found: &Path, target: &Path) -> Result<()> {
    if SHARED_WITH_NODES.iter().any(|prefix| found.starts_with(prefix)) {
        return symlink(found, target).map_err(Error::file("link", target));
    }
    // Several names of one program stay one file, and keep their names, by which it knows what to be.
    let real = fs::canonicalize(found).map_err(Error::file("find", found))?;
    if fs::hard_link(&real, target).is_ok() {
        return Ok(());
    }
    fs::copy(&real, target).map_err(Error::file("copy", &real))?;
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    files::create_dir(to)?;
    for name in files::list(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(Error::file("copy", &from))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        files::write(path, "#!/bin/sh\n", files::PROGRAM).expect("written");
    }

    fn origin_of(directory: &Path, places: &[&str]) -> BTreeMap<String, PathBuf> {
        places
            .iter()
            .map(|place| {
                program(&directory.join(place));
                ((*place).to_owned(), directory.join(place))
            })
            .collect()
    }

    #[test]
    fn a_named_directory_with_a_part_of_kubernetes_does_not_mix_with_another() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (named, cache) = (root.path().join("named"), root.path().join("cache"));
        for name in ["kube-apiserver", "kubectl", "etcd"] {
            program(&named.join(name));
        }
        for name in KUBERNETES.iter().chain(FOUNDATION) {
            program(&cache.join("bin").join(name));
        }
        for name in CNI {
            program(&cache.join("cni").join(name));
        }
        let origin = find_all(&Assets::new(Some(named.as_os_str()), None, Some(&cache))).expect("all are there");
        for name in KUBERNETES {
            assert_eq!(origin[&format!("bin/{name}")], cache.join("bin").join(name));
        }
        assert_eq!(origin["bin/etcd"], named.join("etcd"));
        let error = find_all(&Assets::new(Some(named.as_os_str()), None, None)).expect_err("a part").to_string();
        assert!(error.contains("named lacks kube-controller-manager, kube-scheduler"), "{error}");
    }

    #[test]
    fn a_complete_directory_is_taken_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let origin = origin_of(directory.path(), &["bin/etcd", "bin/runc", "cni/bridge"]);
        let found = whole(&origin).expect("it is whole");
        assert_eq!(found, fs::canonicalize(directory.path()).expect("it exists"));
    }

    #[test]
    fn scattered_programs_are_gathered_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut origin = origin_of(&directory.path().join("a"), &["bin/etcd"]);
        origin.append(&mut origin_of(&directory.path().join("b"), &["cni/bridge"]));
        program(&directory.path().join("a/xtables/lib/x"));
        assert_eq!(whole(&origin), None);
        let target = directory.path().join("gathered");
        gather(&origin, &target).expect("gathered");
        for place in ["bin/etcd", "cni/bridge", "xtables/lib/x"] {
            assert!(target.join(place).is_file(), "{place}");
        }
        program(&target.join("bin/marker"));
        gather(&origin, &target).expect("nothing to do");
        assert!(target.join("bin/marker").exists());
    }
}
