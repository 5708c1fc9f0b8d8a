//! A repository and directories to try trees on, and a comparison of directories that shares no code with the product.

pub(crate) use crate::literals::noise;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repository::tree::{self, BackupOptions, RestoreOptions, RestoreSummary, TreeSummary, VerifyOptions};
use repository::{NoProgress, Passphrase, Progress, Repository, RetryPolicy, StoreConfig, TableRef};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

/// A repository in a folder and an empty source directory.
pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::in_home(tempfile::tempdir().unwrap()).await
    }

    /// For trees of many files: in memory where that is large enough, because some disks take milliseconds to remove a
    /// file.
    pub(crate) async fn roomy() -> Self {
        Self::in_home(roomy_directory()).await
    }

    async fn in_home(home: TempDir) -> Self {
        fs::create_dir(home.path().join("source")).unwrap();
        let store = StoreConfig::FileSystem { path: home.path().join("store") };
        let store = store.open(RetryPolicy::default()).unwrap();
        let repository = Repository::create(store, &Passphrase::new("for tests")).await.unwrap();
        Self { home, repository }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub(crate) async fn backup(&self, parent: Option<&TableRef>) -> TreeSummary {
        self.backup_with(parent, &settled(), Arc::new(NoProgress)).await.unwrap()
    }

    pub(crate) async fn backup_with(
        &self,
        parent: Option<&TableRef>,
        options: &BackupOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<TreeSummary, tree::Error> {
        let writer = self.repository.writer(&"scratch".parse().unwrap()).await.unwrap();
        let summary = tree::backup(&writer, &self.repository, &self.source(), parent, options, progress).await;
        writer.finish().await.unwrap();
        summary
    }

    pub(crate) async fn restore(&self, root: &TableRef, target: &str) -> RestoreSummary {
        self.restore_with(root, target, &RestoreOptions::default()).await.unwrap()
    }

    pub(crate) async fn restore_with(
        &self,
        root: &TableRef,
        target: &str,
        options: &RestoreOptions,
    ) -> Result<RestoreSummary, tree::Error> {
        tree::restore(&self.repository, root, &self.path(target), options, Arc::new(NoProgress)).await
    }

    /// What the product finds different, as text.
    pub(crate) async fn differences(&self, root: &TableRef, directory: &str) -> Vec<String> {
        let directory = self.path(directory);
        let options = VerifyOptions::default();
        let progress = Arc::new(NoProgress);
        let found = tree::verify(&self.repository, root, Some(&directory), &options, progress).await.unwrap();
        assert_eq!(found.differences.count.min(20), found.differences.first.len() as u64);
        found.differences.first.iter().map(|one| format!("{}: {}", one.path, one.what)).collect()
    }

    /// Backs the source up, restores it to `target`, and compares the two in both ways.
    pub(crate) async fn round_trip(&self, target: &str) -> (TreeSummary, RestoreSummary) {
        let stored = self.backup(None).await;
        assert!(stored.is_complete(), "{stored:?}");
        let restored = self.restore(&stored.root, target).await;
        assert!(restored.failed.is_empty(), "{restored:?}");
        assert_eq!((restored.files, restored.bytes), (stored.files, stored.bytes));
        assert_eq!((restored.directories, restored.others), (stored.directories, stored.others));
        assert_same(&self.source(), &self.path(target));
        assert_eq!(self.differences(&stored.root, target).await, [""; 0]);
        (stored, restored)
    }
}

/// A temporary directory in memory if there are 4 GiB of it, else in the usual place.
fn roomy_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(found) if found.f_bavail * found.f_frsize >= 4 << 30 => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

/// Options with a start long after every change, so that the times of all files prove their content.
pub(crate) fn settled() -> BackupOptions {
    BackupOptions::new(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1))
}

/// What is compared of a file; the inode only tells which names are of the same file.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    represents: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    None,
    Link(PathBuf),
    /// Small content itself would fill the screen when it differs.
    Bytes(u64, blake3::Hash),
    SameAs(PathBuf),
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    let mut paths = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if fs::symlink_metadata(root.join(&path)).unwrap().is_dir() {
                open.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let content = if metadata.is_symlink() {
            Content::Link(fs::read_link(&full).unwrap())
        } else if metadata.is_dir() {
            Content::None
        } else if let Some(first) = names.get(&(metadata.dev(), metadata.ino())) {
            Content::SameAs(first.clone())
        } else {
            names.insert((metadata.dev(), metadata.ino()), path.clone());
            if metadata.is_file() { Content::Bytes(metadata.len(), hash(&full)) } else { Content::None }
        };
        let facts = Facts {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            represents: metadata.rdev(),
            xattrs: xattrs(&full),
            content,
        };
        all.insert(path, facts);
    }
    all
}

fn hash(path: &Path) -> blake3::Hash {
    let (mut hasher, mut file, mut buffer) = (blake3::Hasher::new(), File::open(path).unwrap(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finalize(),
            len => hasher.update(&buffer[..len]),
        };
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        len => len.unwrap(),
    };
    let names = names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..len].to_vec()
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Fails with the first difference between two directories.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (facts(one), facts(other));
    let names = |facts: &BTreeMap<PathBuf, Facts>| facts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (path, facts) in &one {
        assert_eq!(facts, &other[path], "{}", path.display());
    }
}

pub(crate) fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test, or a part of it, does not run.
pub(crate) fn skip(reason: &str) {
    sandbox::skip::report(&sandbox::skip::current_test(module_path!()), reason);
}

/// A runtime whose threads have these capabilities only, so that root meets the refusals that others meet. Work on the calling
/// thread keeps its own.
pub(crate) fn runtime_with(capabilities: CapabilitySet) -> tokio::runtime::Runtime {
    let keep_them = move || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective &= capabilities;
        rustix::thread::set_capabilities(None, sets).unwrap();
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(keep_them).build().unwrap()
}
