//! Creating and opening repositories, rightly and wrongly.

use crate::faults::{Fault, Faulty, OpenBook, memory};
use crate::fixture::{self, passphrase};
use bytes::Bytes;
use repository::{Error, ErrorKind, Passphrase, Repository, RetryPolicy, StoreConfig, StoreErrorKind};

#[tokio::test]
async fn what_is_created_can_be_opened() {
    let store = memory();
    let created = fixture::create(store.clone()).await;
    let opened = Repository::open(store.clone(), &passphrase()).await.unwrap();
    assert_eq!(opened.id(), created.id());
    assert_eq!(Repository::open_or_create(store, &passphrase()).await.unwrap().id(), created.id());
}

#[tokio::test]
async fn each_mistake_has_its_own_error() {
    let store = memory();
    let error = Repository::open(store.clone(), &passphrase()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NotARepository, false));
    assert_eq!(error.to_string(), "memory holds no repository");
    fixture::create(store.clone()).await;
    let error = Repository::open(store.clone(), &Passphrase::new("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPassphrase);
    assert_eq!(
        error.guidance(),
        "give the passphrase of a recipient, or the service's key that is one; `orlop repo key list` shows the recipients"
    );
    let error = Repository::create(store, &passphrase()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    for (refusal, kind) in [
        (StoreErrorKind::AccessDenied, ErrorKind::AccessDenied),
        (StoreErrorKind::Unreachable, ErrorKind::Unreachable),
        (StoreErrorKind::NoSpace, ErrorKind::NoSpace),
    ] {
        let store = Faulty::new(memory(), move |_, _| Fault::Refused(refusal)).store(RetryPolicy::never());
        assert_eq!(Repository::open_or_create(store, &passphrase()).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_newer_repository_is_refused_by_its_version() {
    let book = OpenBook::default();
    fixture::create(book.store()).await;
    // The checksum is over everything before its digits, as the specification says.
    let text = String::from_utf8(book.read("orlop-repository").unwrap().to_vec()).unwrap();
    let newer = text.replace("\"version\":1", "\"version\":2,\"novelty\":true");
    let hashed = &newer[..newer.len() - 67];
    let newer = format!("{hashed}{}\"}}\n", blake3_hex(hashed.as_bytes()));
    book.swap("orlop-repository", Some(Bytes::from(newer)));
    let error = Repository::open(book.store(), &passphrase()).await.unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error:?}");
}

fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[tokio::test]
async fn a_damaged_configuration_is_named() {
    let book = OpenBook::default();
    fixture::create(book.store()).await;
    book.swap("orlop-repository", Some(Bytes::from_static(b"{}")));
    let error = Repository::open(book.store(), &passphrase()).await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { object, .. } if object == "orlop-repository"), "{error:?}");
    // Creating does not paper over it.
    let error = Repository::create(book.store(), &passphrase()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn only_one_of_several_creators_wins() {
    let store = memory();
    let passphrase = passphrase();
    let create = || Repository::open_or_create(store.clone(), &passphrase);
    let (a, b, c) = tokio::join!(create(), create(), create());
    let ids = [a, b, c].map(|repo| repo.unwrap().id());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_creation_that_is_cut_off_anywhere_can_be_repeated() {
    let whole = Faulty::new(memory(), |_, _| Fault::None);
    fixture::create(whole.store(RetryPolicy::never())).await;
    for cut in 0..whole.requests() {
        let inner = memory();
        let crashing = Faulty::new(inner.clone(), move |number, _| {
            if number < cut { Fault::None } else { Fault::Refused(StoreErrorKind::Unreachable) }
        });
        let first = Repository::create(crashing.store(RetryPolicy::never()), &passphrase()).await;
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Unreachable, "cut at {cut}");
        let second = Repository::open_or_create(inner.clone(), &passphrase()).await.unwrap();
        let opened = Repository::open(inner, &passphrase()).await.unwrap();
        assert_eq!(opened.id(), second.id(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_store_without_conditional_creation_still_overwrites_nothing() {
    let book = OpenBook::overwriting();
    let repo = fixture::create(book.store()).await;
    let first = fixture::publish(&repo, "a", &fixture::contents(&[("x", "1")]), None).await.unwrap();
    let before = book.read("domains/default/points/a").unwrap();
    let other = fixture::publish(&repo, "a", &fixture::contents(&[("x", "2")]), Some(&first)).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(book.read("domains/default/points/a").unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_no_repository() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x/y");
    let store = StoreConfig::FileSystem { path: path.clone() }.open(RetryPolicy::never()).unwrap();
    let error = Repository::open(store, &passphrase()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARepository);
    assert!(!path.exists(), "looking made the folder");
}

#[tokio::test]
async fn an_object_among_the_keys_that_is_no_key_is_not_in_the_way() {
    let book = OpenBook::default();
    let created = fixture::create(book.store()).await;
    let first = format!("domains/default/keys/{}", "0".repeat(32));
    for bytes in [vec![b'x'; 20 << 10], b"{}".to_vec()] {
        book.swap(&first, Some(Bytes::from(bytes)));
        assert_eq!(Repository::open(book.store(), &passphrase()).await.unwrap().id(), created.id());
        let error = Repository::open(book.store(), &Passphrase::new("wrong")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "it may be the key that this passphrase opens");
    }
    book.withhold(&first, StoreErrorKind::Unreadable);
    assert_eq!(Repository::open(book.store(), &passphrase()).await.unwrap().id(), created.id());
    for (kind, expected) in
        [(StoreErrorKind::Unreachable, ErrorKind::Unreachable), (StoreErrorKind::AccessDenied, ErrorKind::AccessDenied)]
    {
        book.withhold(&first, kind);
        assert_eq!(Repository::open(book.store(), &passphrase()).await.unwrap_err().kind(), expected);
    }
}
