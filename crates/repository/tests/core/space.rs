//! No space left: an error of its kind, nothing half-done, and everything well again when there is space.

use crate::faults::{Fault, Faulty, Request, memory};
use crate::fixture::{self, contents, passphrase};
use repository::{ErrorKind, Repository, RetryPolicy, StoreConfig, StoreErrorKind};
use std::path::Path;
use std::process::Command;

#[tokio::test]
async fn a_full_store_is_told_as_such_and_publishes_nothing() {
    let inner = memory();
    let repo = fixture::create(inner.clone()).await;
    fixture::publish(&repo, "before", &contents(&[("a", "1")]), None).await.unwrap();
    let full = Faulty::new(inner.clone(), |_, request| {
        if request == Request::Create { Fault::Refused(StoreErrorKind::NoSpace) } else { Fault::None }
    });
    let full = Repository::open(full.store(RetryPolicy::never()), &passphrase()).await.unwrap();
    let error = fixture::publish(&full, "during", &contents(&[("a", "2")]), None).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NoSpace, false));
    assert_eq!(error.guidance(), "free space, or raise the quota, then try again");
    assert_eq!(repo.points().await.unwrap().len(), 1);
    assert_eq!(fixture::restore(&repo, "before").await.unwrap(), contents(&[("a", "1")]));
}

/// A file system in memory of a few MiB; unmounted when it is dropped.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    /// None when this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "orlop-test"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status().unwrap();
        assert!(unmounted.success() || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_file_system_is_told_as_such_and_keeps_what_it_has() {
    let Some(disk) = SmallFileSystem::mount() else {
        sandbox::skip!("mounting a small file system needs root");
    };
    let store = StoreConfig::FileSystem { path: disk.path().join("repository") }.open(RetryPolicy::never()).unwrap();
    let repo = fixture::create(store.clone()).await;
    fixture::publish(&repo, "before", &contents(&[("a", "1")]), None).await.unwrap();

    let mut noise = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let large = [("large".to_owned(), noise)].into();
    let error = fixture::publish(&repo, "during", &large, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(std::fs::read_dir(disk.path().join("repository/unfinished")).unwrap().count(), 0, "a part was left");

    fixture::publish(&repo, "after", &contents(&[("a", "2")]), None).await.unwrap();
    let names: Vec<_> = repo.points().await.unwrap().into_iter().map(|entry| entry.id.to_string()).collect();
    assert_eq!(names, ["after", "before"]);
}
