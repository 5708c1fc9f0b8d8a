//! Copies in another repository: the same content, stored once.

use crate::damage::{THOROUGH, findings};
use crate::faults::{Fault, Faulty, OpenBook};
use crate::fixture::{self, contents, point_id};
use bytes::Bytes;
use repository::copy::{CopySummary, copy};
use repository::{ErrorKind, NoProgress, Repository, RetryPolicy, StoreErrorKind};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn copied(from: &Repository, to: &Repository, name: &str) -> repository::Result<CopySummary> {
    copy(from, to, &point_id(name), Arc::new(NoProgress), &CancellationToken::new()).await
}

#[tokio::test]
async fn a_copy_is_the_same_and_what_is_there_is_not_stored_again() {
    let (here, there) = (OpenBook::default(), OpenBook::default());
    let (from, to) = (fixture::create(here.store()).await, fixture::create(there.store()).await);
    let text = |n: u32| (format!("{n:05}"), blake3::hash(&n.to_le_bytes()).as_bytes().repeat(30));
    let first: fixture::Contents = (0..3000).map(text).collect();
    let stored = fixture::publish(&from, "first", &first, None).await.unwrap();
    let mut second = first.clone();
    second.insert("spread".to_owned(), b"new".to_vec());
    second.insert("00005".to_owned(), b"changed".to_vec());
    fixture::publish(&from, "second", &second, Some(&stored)).await.unwrap();

    let one = copied(&from, &to, "first").await.unwrap();
    assert_eq!((one.was_there, &one.base, one.read_bytes), (false, &None, 3000 * 32 * 30));
    let two = copied(&from, &to, "second").await.unwrap();
    assert_eq!((two.was_there, &two.base), (false, &Some(point_id("first"))));
    assert_eq!(two.read_bytes, "newchanged".len() as u64, "only what is new is read");
    assert!(two.stored_bytes * 5 < one.stored_bytes, "{one:?} {two:?}");
    assert!(copied(&from, &to, "second").await.unwrap().was_there);

    assert_eq!(findings(&to, THOROUGH).await, []);
    assert_eq!(fixture::restore(&to, "first").await.unwrap(), first);
    assert_eq!(fixture::restore(&to, "second").await.unwrap(), second);
    let (original, copy) =
        (from.point(&point_id("second")).await.unwrap(), to.point(&point_id("second")).await.unwrap());
    assert_eq!((original.created, &original.source, original.complete), (copy.created, &copy.source, copy.complete));
    let facts = |root: &repository::Root| (root.name.clone(), root.files, root.bytes, root.table.entries);
    assert_eq!(facts(&original.roots[0]), facts(&copy.roots[0]));
    assert_ne!(from.id(), to.id());
    assert_ne!(original.roots[0].table.root.id, copy.roots[0].table.root.id, "the keys are others");
}

#[tokio::test]
async fn another_recovery_point_of_the_name_is_not_touched() {
    let (from, to) =
        (fixture::create(OpenBook::default().store()).await, fixture::create(OpenBook::default().store()).await);
    fixture::publish(&from, "a", &contents(&[("x", "1")]), None).await.unwrap();
    fixture::publish(&to, "a", &contents(&[("x", "2"), ("y", "3")]), None).await.unwrap();
    assert_eq!(copied(&from, &to, "a").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(copied(&from, &to, "b").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture::restore(&to, "a").await.unwrap(), contents(&[("x", "2"), ("y", "3")]));
}

/// What the other repository has lost is stored again, and not referred to.
#[tokio::test]
async fn what_is_gone_there_is_stored_again() {
    let there = OpenBook::default();
    let (from, to) = (fixture::create(OpenBook::default().store()).await, fixture::create(there.store()).await);
    let first = contents(&[("x", "1"), ("y", "2")]);
    let stored = fixture::publish(&from, "first", &first, None).await.unwrap();
    let second = contents(&[("x", "1"), ("y", "3")]);
    fixture::publish(&from, "second", &second, Some(&stored)).await.unwrap();
    copied(&from, &to, "first").await.unwrap();
    let packs: Vec<_> = there.names().into_iter().filter(|name| name.contains("/packs/")).collect();
    packs.iter().for_each(|name| _ = there.swap(name, None));
    copied(&from, &to, "second").await.unwrap();
    assert_eq!(fixture::restore(&to, "second").await.unwrap(), second);
}

/// A damaged blob is never copied as if it were right.
#[tokio::test]
async fn damage_is_not_copied() {
    let here = OpenBook::default();
    let (from, to) = (fixture::create(here.store()).await, fixture::create(OpenBook::default().store()).await);
    fixture::publish(&from, "a", &contents(&[("x", "1")]), None).await.unwrap();
    let pack = here.names().into_iter().find(|name| name.contains("/packs/")).unwrap();
    let mut flipped = here.read(&pack).unwrap().to_vec();
    flipped[45] ^= 1;
    here.swap(&pack, Some(Bytes::from(flipped)));
    assert_eq!(copied(&from, &to, "a").await.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(to.points().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_copy_that_is_cut_off_anywhere_can_be_repeated() {
    let from = fixture::create(OpenBook::default().store()).await;
    let all = contents(&[("x", "1"), ("spread", "2")]);
    fixture::publish(&from, "a", &all, None).await.unwrap();
    for stop in 0.. {
        let there = OpenBook::default();
        fixture::create(there.store()).await;
        let cut = Faulty::new(there.store(), move |number, _| match number {
            number if number < stop => Fault::None,
            _ => Fault::Refused(StoreErrorKind::Unreachable),
        });
        let ended = match Repository::open(cut.store(RetryPolicy::never()), &fixture::passphrase()).await {
            Ok(to) => copied(&from, &to, "a").await.is_ok(),
            Err(_) => false,
        };
        let to = Repository::open(there.store(), &fixture::passphrase()).await.unwrap();
        let was_there = to.points().await.unwrap().len() == 1;
        assert!(was_there || !ended);
        assert_eq!(copied(&from, &to, "a").await.unwrap().was_there, was_there);
        assert_eq!(fixture::restore(&to, "a").await.unwrap(), all, "cut off at {stop}");
        assert_eq!(findings(&to, THOROUGH).await, []);
        if ended {
            break;
        }
    }
}
