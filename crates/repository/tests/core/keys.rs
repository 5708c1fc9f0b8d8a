//! Recipients are added, removed, exchanged and erased, and the data stays as it is.

use crate::faults::{Fault, Faulty, OpenBook, memory};
use crate::fixture::{self, contents, passphrase};
use bytes::Bytes;
use repository::check::{CheckOptions, check};
use repository::keys::{self, KeyError, KeyMethod, KeyRing, NewKey};
use repository::{Error, ErrorKind, NoProgress, Passphrase, Recipient, Repository, RetryPolicy, Store, StoreErrorKind};

fn other() -> Recipient {
    Passphrase::new("another passphrase").into()
}

fn new_key(label: &str) -> NewKey {
    NewKey { label: label.to_owned(), created: "2026-11-25T10:00:00.5Z".parse().unwrap() }
}

async fn opens(store: &Store, recipient: &Recipient) -> bool {
    match Repository::open(store.clone(), recipient).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WrongPassphrase => false,
        Err(error) => panic!("{error}"),
    }
}

fn key_error<T: std::fmt::Debug>(result: Result<T, Error>) -> KeyError {
    match result.unwrap_err() {
        Error::Key(error) => error,
        error => panic!("{error}"),
    }
}

async fn findings(repo: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    let options = CheckOptions { read_data: true };
    check(repo, options, &NoProgress, &mut |finding| found.push(finding.what)).await.unwrap();
    found
}

#[tokio::test]
async fn each_recipient_opens_until_his_key_is_removed_and_the_data_stays() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "a", &contents(&[("x", "1")]), None).await.unwrap();
    let data = |book: &OpenBook| -> Vec<_> {
        let names = book.names().into_iter().filter(|name| !name.contains("/keys/"));
        names.map(|name| (book.read(&name), name)).collect()
    };
    let before = data(&book);

    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    assert!(!opens(&book.store(), &other()).await);
    let added = ring.add(&other(), &new_key("the other one")).await.unwrap();
    assert!(opens(&book.store(), &other()).await && opens(&book.store(), &passphrase().into()).await);

    // Both know the same master key: what one wrote, the other reads.
    let opened = Repository::open(book.store(), &other()).await.unwrap();
    assert_eq!(fixture::restore(&opened, "a").await.unwrap(), contents(&[("x", "1")]));

    let entries = ring.list().await.unwrap();
    let entry = entries.iter().find(|entry| entry.id == added).unwrap();
    let info = entry.info.as_ref().unwrap();
    assert_eq!((info.label.as_str(), info.proven, info.in_use), ("the other one", Some(true), false));
    assert_eq!(info.created, "2026-11-25T10:00:00Z".parse().unwrap());
    assert!(matches!(info.method, KeyMethod::Passphrase { .. }));
    assert_eq!(entries.len(), 2);
    // Who has no key sees the same, and nothing proven.
    let seen = keys::list(&book.store()).await.unwrap();
    assert!(seen.iter().all(|entry| entry.info.as_ref().unwrap().proven.is_none()));
    assert_eq!(seen.len(), 2);

    assert_eq!(findings(&repo).await, Vec::<String>::new());
    ring.remove(added, false).await.unwrap();
    assert!(!opens(&book.store(), &other()).await && opens(&book.store(), &passphrase().into()).await);
    assert_eq!(findings(&repo).await, Vec::<String>::new());
    assert_eq!(data(&book), before, "the announcement is gone, and nothing else was touched");
}

#[tokio::test]
async fn the_last_key_the_one_in_use_and_unknown_ones_are_not_removed() {
    let store = memory();
    fixture::create(store.clone()).await;
    let ring = KeyRing::open(store.clone(), &passphrase()).await.unwrap();
    let own = ring.in_use();
    assert!(matches!(key_error(ring.remove(own, false).await), KeyError::InUse { id } if id == own));
    assert!(matches!(key_error(ring.remove(own, true).await), KeyError::LastKey { id } if id == own));
    let nobody = repository::KeyId([9; 16]);
    assert!(matches!(key_error(ring.remove(nobody, true).await), KeyError::NoSuchKey { id } if id == nobody));
    ring.add(&other(), &new_key("")).await.unwrap();
    assert!(matches!(key_error(ring.remove(own, false).await), KeyError::InUse { .. }));
    ring.check_removal(own, true).await.unwrap();
    assert!(opens(&store, &passphrase().into()).await, "looking changes nothing");
    ring.remove(own, true).await.unwrap();
    assert!(!opens(&store, &passphrase().into()).await && opens(&store, &other()).await);
}

#[tokio::test]
async fn a_label_is_one_short_line() {
    let store = memory();
    fixture::create(store.clone()).await;
    let ring = KeyRing::open(store.clone(), &passphrase()).await.unwrap();
    for label in ["a\nb", "\u{1b}[31m", &"x".repeat(129), "\u{9b}"] {
        assert_eq!(ring.add(&other(), &new_key(label)).await.unwrap_err().kind(), ErrorKind::Invalid, "{label:?}");
    }
    ring.add(&other(), &new_key(&"ü\"".repeat(42))).await.unwrap();
    assert_eq!(keys::list(&store).await.unwrap().len(), 2);
}

/// The text of a key, changed, under a checksum that is right.
fn forged(text: &Bytes, change: impl FnOnce(&str) -> String) -> Bytes {
    let text = std::str::from_utf8(text).unwrap();
    let changed = change(&text[..text.len() - 67]);
    Bytes::from(format!("{changed}{}\"}}\n", blake3::hash(changed.as_bytes()).to_hex()))
}

#[tokio::test]
async fn a_forged_key_does_not_count_as_one_that_remains() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    let own = format!("domains/default/keys/{}", ring.in_use());
    let text = book.read(&own).unwrap();
    // Who can write to the store, and has no secret, makes a key that looks like somebody's.
    let id = "f".repeat(32);
    let name = format!("domains/default/keys/{id}");
    book.swap(&name, Some(forged(&text, |text| text.replace(&ring.in_use().to_string(), &id))));
    let entries = ring.list().await.unwrap();
    assert_eq!(entries[1].info.as_ref().unwrap().proven, Some(false));
    assert!(matches!(key_error(ring.remove(ring.in_use(), true).await), KeyError::LastKey { .. }));
    assert_eq!(findings(&repo).await, ["it is not from somebody who had the master key, or was changed"]);
    ring.remove(id.parse().unwrap(), false).await.unwrap();
    assert_eq!(findings(&repo).await, Vec::<String>::new());
    // A label that was changed is noticed too.
    book.swap(&own, Some(forged(&text, |text| text.replace("\"label\":\"first\"", "\"label\":\"spare\""))));
    assert!(opens(&book.store(), &passphrase().into()).await);
    assert_eq!(findings(&repo).await, ["it is not from somebody who had the master key, or was changed"]);
}

#[tokio::test]
async fn a_key_of_a_later_method_is_left_alone_and_a_damaged_one_can_be_removed() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    let text = book.read(&format!("domains/default/keys/{}", ring.in_use())).unwrap();
    let place = |digit: &str| format!("domains/default/keys/{}", digit.repeat(32));
    let later = forged(&text, |text| {
        text.replace(&ring.in_use().to_string(), &"0".repeat(32)).replace("passphrase-argon2id", "quantum")
    });
    book.swap(&place("0"), Some(later));
    assert!(opens(&book.store(), &passphrase().into()).await && !opens(&book.store(), &other()).await);
    assert!(matches!(
        &keys::list(&book.store()).await.unwrap()[0].info.as_ref().unwrap().method,
        KeyMethod::Other(method) if method == "quantum"
    ));
    book.swap(&place("0"), Some(Bytes::from_static(b"rubbish")));
    assert!(ring.list().await.unwrap()[0].info.is_err());
    ring.remove("0".repeat(32).parse().unwrap(), false).await.unwrap();
    assert_eq!(findings(&repo).await, Vec::<String>::new());
}

/// Runs `work` on a store that answers no more from the n-th request on, for every n until it gets through.
async fn cut_everywhere<F: Future<Output = Result<(), Error>>>(
    prepare: impl AsyncFn() -> OpenBook,
    work: impl Fn(Store) -> F,
    look: impl AsyncFn(u64, OpenBook),
) {
    for cut in 0.. {
        let book = prepare().await;
        let crashing = Faulty::new(book.store(), move |number, _| {
            if number < cut { Fault::None } else { Fault::Refused(StoreErrorKind::Unreachable) }
        });
        let end = work(crashing.store(RetryPolicy::never())).await;
        look(cut, book).await;
        if end.is_ok() {
            assert!(cut > 10, "so few requests cannot do it");
            return;
        }
    }
}

async fn created() -> OpenBook {
    let book = OpenBook::default();
    fixture::create(book.store()).await;
    book
}

#[tokio::test]
async fn a_rotation_that_is_cut_off_anywhere_leaves_a_key_that_opens() {
    let rotate = async |store: Store| {
        let ring = KeyRing::open(store, &passphrase()).await?;
        ring.rotate(&other(), &new_key("rotated")).await.map(drop)
    };
    let look = async |cut, book: OpenBook| {
        let (old, new) = (opens(&book.store(), &passphrase().into()).await, opens(&book.store(), &other()).await);
        assert!(old || new, "cut at {cut}: nothing opens");
        // Done again by whoever can, it is done, and leaves nothing behind.
        let ring = KeyRing::open(book.store(), &if new { other() } else { passphrase().into() }).await.unwrap();
        for entry in ring.list().await.unwrap() {
            if entry.id != ring.in_use() {
                ring.remove(entry.id, false).await.unwrap();
            }
        }
        assert_eq!(ring.list().await.unwrap().len(), 1, "cut at {cut}");
    };
    cut_everywhere(created, rotate, look).await;
}

#[tokio::test]
async fn after_an_erasure_nothing_opens_and_nothing_is_made_in_its_place() {
    let book = created().await;
    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    ring.add(&other(), &new_key("")).await.unwrap();
    let id = keys::identity(&book.store()).await.unwrap();
    let wrong = repository::RepositoryId([1; 16]);
    assert_eq!(keys::erase(&book.store(), wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(opens(&book.store(), &other()).await);

    assert_eq!(keys::erase(&book.store(), id).await.unwrap().len(), 2);
    for recipient in [passphrase().into(), other()] {
        let error = Repository::open(book.store(), &recipient).await.unwrap_err();
        assert!(matches!(error, Error::NoKeys { .. }), "{error}");
        let error = Repository::open_or_create(book.store(), &recipient).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    assert_eq!(keys::erase(&book.store(), id).await.unwrap(), []);
}

#[tokio::test]
async fn an_erasure_that_is_cut_off_can_be_repeated() {
    let book = created().await;
    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    ring.add(&other(), &new_key("")).await.unwrap();
    let id = ring.repository();
    for cut in 0..4 {
        let crashing = Faulty::new(book.store(), move |number, _| {
            if number < cut { Fault::None } else { Fault::Refused(StoreErrorKind::AccessDenied) }
        });
        let error = keys::erase(&crashing.store(RetryPolicy::never()), id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "cut at {cut}");
    }
    keys::erase(&book.store(), id).await.unwrap();
    assert!(book.names().iter().all(|name| !name.contains("/keys/") && !name.contains("/removals/")));
}

#[tokio::test]
async fn there_are_at_most_as_many_keys_as_are_tried() {
    let book = created().await;
    let ring = KeyRing::open(book.store(), &passphrase()).await.unwrap();
    let text = book.read(&format!("domains/default/keys/{}", ring.in_use())).unwrap();
    for number in 0..62 {
        let id = format!("{number:032x}");
        let copy =
            forged(&text, |text| text.replace(&ring.in_use().to_string(), &id).replace("passphrase-argon2id", "x"));
        book.swap(&format!("domains/default/keys/{id}"), Some(copy));
    }
    ring.add(&other(), &new_key("the 64th")).await.unwrap();
    assert!(matches!(key_error(ring.add(&other(), &new_key("")).await), KeyError::TooMany));
    assert!(opens(&book.store(), &other()).await, "keys of other methods are not tried");
}
