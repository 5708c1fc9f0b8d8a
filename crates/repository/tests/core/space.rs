//! No space left: an error of its kind, nothing half-done, and everything well again when there is space.

use crate::faults::{Fault, Faulty, Request, memory};
use crate::fixture::{self, contents, passphrase};
use repository::{ErrorKind, Repository, RetryPolicy, StoreConfig, StoreErrorKind};
use sandbox::small_disk::SmallDisk;

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

#[tokio::test]
async fn a_full_file_system_is_told_as_such_and_keeps_what_it_has() {
    let disk = match SmallDisk::mount(4) {
        Ok(disk) => disk,
        Err(reason) => sandbox::skip!("{reason}"),
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
