//! Object lock, on a server that has it: what credentials of every day can destroy, and what they cannot.
//!
//! The attacker has the keys with which backups are written. He may create, overwrite and delete as he likes; he also tries to delete
//! versions, as somebody could whose policy is too generous.

use crate::fixture::{self, Contents, contents, passphrase};
use crate::servers::{self, Server};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use repository::check::{self, CheckOptions};
use repository::copy::copy;
use repository::repair::{RepairOptions, RepairSources, repair};
use repository::{
    CollectOptions, CollectState, ErrorKind, Lock, LockMode, NoProgress, Repository, RetryPolicy, Store, StoreErrorKind,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio_util::sync::CancellationToken;

const LOCKABLE: &str = "lockable";
const DAY: i64 = 86_400;
/// The server wants a signature to be there, and does not look at it.
const SIGNED: &str =
    "AWS4-HMAC-SHA256 Credential=a key/20261125/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A server with a bucket that can lock, or the end of the test with the reason why there is none.
macro_rules! lockable {
    () => {{
        let server = match servers::moto().await {
            Ok(server) => server,
            Err(reason) => sandbox::skip!("{reason}"),
        };
        server.make_bucket(LOCKABLE, &[("x-amz-bucket-object-lock-enabled", "true")]).await;
        server
    }};
}

fn store(server: &Server) -> Store {
    server.s3(LOCKABLE, "team/a").open(RetryPolicy::never()).unwrap()
}

fn a_month() -> Lock {
    Lock::new(LockMode::Governance, 30 * 86_400).unwrap()
}

/// How far the clock of the test is ahead of the system's, in seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::SeqCst))
}

fn in_a_month() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(30 * DAY)
}

/// Two recovery points, the second of which needs packs of the first.
async fn two_points(repo: &Repository) -> Contents {
    let (one, two) =
        (contents(&[("a", "1"), ("spread", "wide")]), contents(&[("a", "1"), ("b", "2"), ("spread", "wide")]));
    let parent = fixture::publish(repo, "first", &one, None).await.unwrap();
    fixture::publish(repo, "second", &two, Some(&parent)).await.unwrap();
    two
}

/// Deletes everything, overwrites some of it, and tries to delete every version; gives how many of those were refused.
async fn destroy_what_can_be(server: &Server, store: &Store) -> (usize, usize) {
    for object in store.list("").await.unwrap() {
        store.delete(&object.name).await.unwrap();
        if object.name.contains("packs/") || object.name == "orlop-repository" {
            store.put_new(&object.name, Bytes::from_static(b"ransom")).await.unwrap();
        }
    }
    let (_, listed) = server.ask("GET", &format!("/{LOCKABLE}?versions"), &[], "").await;
    let (mut tried, mut refused) = (0, 0);
    // The attacker's own versions, which nothing locks, are of no interest.
    for version in listed.split("<Version>").skip(1).filter(|version| !version.contains("<Size>6</Size>")) {
        let between = |tag: &str| {
            let rest = version.split_once(&format!("<{tag}>")).unwrap().1;
            rest.split_once("</").unwrap().0.to_owned()
        };
        let path = format!("/{LOCKABLE}/{}?versionId={}", between("Key"), between("VersionId"));
        tried += 1;
        let (status, answer) = server.ask("DELETE", &path, &[("authorization", SIGNED)], "").await;
        refused += usize::from(status == 403 && answer.contains("AccessDenied"));
    }
    (tried, refused)
}

#[tokio::test]
async fn credentials_of_every_day_cannot_destroy_a_locked_recovery_point() {
    let server = lockable!();
    let repo = Repository::create_locked(store(&server), &passphrase(), Some(a_month())).await.unwrap();
    let known = repo.known();
    assert_eq!((known.abilities.versions, known.lock), (Some(true), Some(a_month())));
    assert!(known.conditional_create && known.abilities.object_lock.is_some());
    let expected = two_points(&repo).await;
    let objects = store(&server).list("").await.unwrap().len();

    let (tried, refused) = destroy_what_can_be(&server, &store(&server)).await;
    // All but the version of the probe, which was deleted before there was a lock.
    assert_eq!(refused, objects, "{tried} were tried");
    assert!(Repository::open(store(&server), &passphrase()).await.is_err());

    let config = server.s3(LOCKABLE, "team/a");
    let past = config.open_past_deletions(RetryPolicy::never()).unwrap();
    let repo = Repository::open(past, &passphrase()).await.unwrap();
    assert_eq!(fixture::restore(&repo, "second").await.unwrap(), expected);
    let options = CheckOptions { read_data: true };
    let report = check::check(&repo, options, &NoProgress, &mut |finding| panic!("{finding:?}")).await.unwrap();
    assert!(report.is_clean() && report.points == 2);
    // Nothing is written that way.
    let error = fixture::publish(&repo, "third", &expected, None).await.unwrap_err();
    assert!(
        matches!(&error, repository::Error::Store(e) if e.kind == StoreErrorKind::NotSupported)
            || matches!(&error, repository::Error::SessionOver { .. }),
        "{error:?}"
    );
}

/// Shows that the test above can fail: without a lock the same attacker leaves nothing.
#[tokio::test]
async fn without_a_lock_the_same_attack_destroys_everything() {
    let server = lockable!();
    let repo = Repository::create(store(&server), &passphrase()).await.unwrap();
    two_points(&repo).await;
    let (_, refused) = destroy_what_can_be(&server, &store(&server)).await;
    assert_eq!(refused, 0);
    let past = server.s3(LOCKABLE, "team/a").open_past_deletions(RetryPolicy::never()).unwrap();
    assert!(Repository::open(past, &passphrase()).await.is_err());
}

#[tokio::test]
async fn what_is_locked_is_not_deleted_and_not_hidden() {
    let server = lockable!();
    let repo = Repository::create_locked(store(&server), &passphrase(), Some(a_month())).await.unwrap();
    let expected = two_points(&repo).await;
    let error = repo.forget(&fixture::point_id("first")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("it is locked until 20"), "{error}");
    let until = repo.store().locked_until("orlop-repository").await.unwrap().unwrap();
    let rest = until.duration_since(Timestamp::now()).as_secs();
    assert!((44 * DAY..=45 * DAY).contains(&rest), "{rest}");
    assert_eq!(fixture::restore(&repo, "first").await.unwrap().len(), 2);
    assert_eq!(fixture::restore(&repo, "second").await.unwrap(), expected);

    // What is not of lasting value is not locked, and is deleted for good: no version of it stays.
    repo.store().put_new("notes/x", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(repo.store().locked_until("notes/x").await.unwrap(), None);
    repo.store().delete("notes/x").await.unwrap();
    repo.store().delete("notes/x").await.unwrap();
    let (_, versions) = server.ask("GET", &format!("/{LOCKABLE}?versions&prefix=team/a/notes"), &[], "").await;
    assert!(!versions.contains("notes/x</Key>"), "{versions}");
}

/// A run that died leaves packs that nobody needs, and that nobody can delete yet: a collection leaves them, and ends.
#[tokio::test]
async fn a_collector_leaves_what_is_locked() {
    let server = lockable!();
    let repo = Repository::create_locked(store(&server), &passphrase(), Some(a_month())).await.unwrap();
    let expected = two_points(&repo).await;
    let dead = fixture::point_id("dead");
    let writer = repo.writer(&dead).await.unwrap();
    fixture::store_contents(&writer, &contents(&[("lost", "work")]), None).await.unwrap();
    let left = writer.finish().await.unwrap().packs;
    repo.forget(&dead).await.unwrap();
    for _ in 0..2 {
        let report = repo.collect(&CollectOptions::default(), &NoProgress).await.unwrap();
        assert_eq!((report.state, report.packs), (CollectState::Finished, 0), "{report:?}");
    }
    let packs = repo.store().list("domains/default/packs/").await.unwrap();
    assert!(packs.iter().any(|object| object.name.ends_with(&left[0].id.to_string())), "{packs:?}");
    assert_eq!(fixture::restore(&repo, "second").await.unwrap(), expected);
}

#[tokio::test]
async fn a_lock_is_extended_for_what_a_new_point_needs_and_for_nothing_else() {
    let server = lockable!();
    let store = store(&server).with_clock(clock);
    let repo = Repository::create_locked(store, &passphrase(), Some(a_month())).await.unwrap();
    let one = contents(&[("a", "1")]);
    let parent = fixture::publish(&repo, "first", &one, None).await.unwrap();
    fixture::publish(&repo, "other", &contents(&[("z", "26")]), None).await.unwrap();
    let pack_of = async |name: &str| {
        let id = repo.point(&fixture::point_id(name)).await.unwrap().packs[0].id;
        format!("domains/default/packs/{:02x}/{id}", id.writer.0[0])
    };
    let (needed, not_needed) = (pack_of("first").await, pack_of("other").await);
    let days_left = async |name: &str| {
        let until = repo.store().locked_until(name).await.unwrap().unwrap();
        (until.duration_since(clock()).as_secs() + DAY / 2) / DAY
    };
    assert_eq!((days_left(&needed).await, days_left(&not_needed).await), (45, 45));

    // After ten days, what is promised holds still; nothing is asked for.
    AHEAD.store(10 * DAY, Ordering::SeqCst);
    let mut grown = one.clone();
    grown.insert("b".to_owned(), b"2".to_vec());
    let parent = fixture::publish(&repo, "second", &grown, Some(&parent)).await.unwrap();
    assert_eq!((days_left(&needed).await, days_left(&not_needed).await), (35, 35));

    // After twenty it would not.
    AHEAD.store(20 * DAY, Ordering::SeqCst);
    grown.insert("c".to_owned(), b"3".to_vec());
    fixture::publish(&repo, "third", &grown, Some(&parent)).await.unwrap();
    assert_eq!((days_left(&needed).await, days_left(&not_needed).await), (45, 25));
    assert_eq!((days_left(&pack_of("second").await).await, days_left("orlop-repository").await), (35, 45));
}

/// A pack that a recovery point refers to may be gone, when a repair has its blobs in another one: then that one is locked for it.
#[tokio::test]
async fn what_a_repair_has_moved_is_locked_where_it_is() {
    what_was_hurt_is_locked_where_a_repair_has_it(false).await;
}

/// A pack that is damaged cannot be deleted as long as it is locked, so it is there; and is no good.
#[tokio::test]
async fn what_a_repair_has_moved_is_locked_also_where_the_damaged_pack_stays() {
    what_was_hurt_is_locked_where_a_repair_has_it(true).await;
}

async fn what_was_hurt_is_locked_where_a_repair_has_it(stays: bool) {
    let server = lockable!();
    let repo = Repository::create_locked(store(&server), &passphrase(), Some(a_month())).await.unwrap();
    let one = contents(&[("a", "1"), ("spread", "wide")]);
    let parent = fixture::publish(&repo, "first", &one, None).await.unwrap();
    let there = fixture::create(crate::faults::memory()).await;
    let (progress, cancel) = (Arc::new(NoProgress), CancellationToken::new());
    copy(&repo, &there, &fixture::point_id("first"), progress, &cancel).await.unwrap();
    let stored = async || {
        let mut names = Vec::new();
        for folder in ["packs", "index"] {
            let objects = store(&server).list(&format!("domains/default/{folder}/")).await.unwrap();
            names.extend(objects.into_iter().map(|object| object.name));
        }
        names
    };
    let lost = stored().await.remove(0);
    let mut bytes = store(&server).get(&lost, 64 << 20).await.unwrap().to_vec();
    store(&server).delete(&lost).await.unwrap();
    let mut grown = one.clone();
    grown.insert("b".to_owned(), b"2".to_vec());
    if stays {
        // In the first blob.
        bytes[50] ^= 1;
        repo.store().put_new(&lost, bytes.into()).await.unwrap();
    } else {
        let error = fixture::publish(&repo, "second", &grown, Some(&parent)).await.unwrap_err();
        assert!(error.is_damage(), "nobody has it: {error}");
    }

    let before = stored().await;
    let sources = RepairSources { from: Some(there), living: BTreeMap::new() };
    let report = repair(&repo, &sources, &RepairOptions::default(), &NoProgress).await.unwrap();
    let kept: Vec<_> = report.kept.iter().map(|(name, _)| name).collect();
    assert_eq!(kept, if stays { vec![&lost] } else { vec![] });
    assert_eq!(
        report.left.iter().filter(|finding| finding.object != lost).collect::<Vec<_>>(),
        [] as [&check::Finding; 0]
    );
    // What is found only when something else is there again is stored in a pack of its own.
    let moved: Vec<_> = stored().await.into_iter().filter(|name| !before.contains(name)).collect();
    assert!(["packs", "index"].iter().all(|folder| moved.iter().any(|name| name.contains(folder))), "{moved:?}");
    let repo = Repository::open(store(&server).with_clock(in_a_month), &passphrase()).await.unwrap();
    let days_left = async || {
        let mut days = Vec::new();
        for name in &moved {
            let until = repo.store().locked_until(name).await.unwrap().unwrap();
            days.push((until.duration_since(in_a_month()).as_secs() + DAY / 2) / DAY);
        }
        days
    };
    assert!(days_left().await.iter().all(|days| *days == 15));
    fixture::publish(&repo, "third", &grown, Some(&parent)).await.unwrap();
    let days = days_left().await;
    assert!(days.iter().all(|days| *days == 45), "not all is locked for longer: {days:?}");
    assert_eq!(fixture::restore(&repo, "third").await.unwrap(), grown);
}

#[tokio::test]
async fn a_store_that_cannot_lock_is_refused() {
    let error = Repository::create_locked(crate::faults::memory(), &passphrase(), Some(a_month())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("cannot lock objects"), "{error}");
}
