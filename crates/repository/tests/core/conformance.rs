//! One suite of rules that every store keeps, and the stores on which it is run: each kind that there is, on a real server where there is
//! one, and wrappers of them that go wrong.
//!
//! The suite sees the store as its users do, with retries. [`conforms`] holds for all that create conditionally.

use crate::faults::{EAGER, Fault, Faulty, Request, memory};
use crate::google::GoogleServer;
use crate::s3::S3Server;
use crate::servers::{self, Server};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use repository::store::ObjectInfo;
use repository::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Decides by the number and the kind of a request.
type Plan = fn(u64, Request) -> Fault;

/// More objects than servers list in one answer, which is 1000; Azure lists 5000.
const MANY: usize = 1_050;
/// More than a pack has, and more than servers take in one part.
const BIG: usize = 33 << 20;
/// How many objects are made at once where there are many to make.
const AT_ONCE: usize = 32;

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}

fn info(name: &str, size: u64) -> ObjectInfo {
    ObjectInfo { name: name.to_owned(), size, modified: None }
}

/// What is listed, but for the times; those that the store tells are of this test.
async fn list(store: &Store, folder: &str) -> Vec<ObjectInfo> {
    let recently = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let untimed = |object: ObjectInfo| {
        assert!(object.modified.is_none_or(|time| time > recently), "{object:?}");
        ObjectInfo { modified: None, ..object }
    };
    store.list(folder).await.unwrap().into_iter().map(untimed).collect()
}

/// The rules.
pub(crate) async fn conforms(store: Store) {
    creates_once_and_reads_back(&store).await;
    reads_ranges(&store).await;
    tells_what_is_not_there(&store).await;
    lists_what_is_there(&store).await;
    deletes(&store).await;
    let features = store.probe().await.unwrap();
    assert!(features.conditional_create && features.delete);
    assert_eq!(list(&store, "probes/").await, []);
}

/// The rules that take long.
pub(crate) async fn conforms_at_size(store: Store) {
    one_creator_wins(&store).await;
    keeps_big_objects(&store).await;
    lists_many(&store).await;
}

async fn creates_once_and_reads_back(store: &Store) {
    let long = Bytes::from(vec![7; 300_000]);
    store.put_new("folder/a", Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(store.get("folder/a", 5).await.unwrap(), "first");
    store.put_new("folder/deep/b", long.clone()).await.unwrap();
    store.put_new("folder2/c", Bytes::new()).await.unwrap();
    assert_eq!(store.get("folder2/c", 0).await.unwrap(), "");
    // Nothing is overwritten, neither by the same nor by other bytes of the same length.
    assert_eq!(kind(store.put_new("folder/a", Bytes::from_static(b"other")).await), StoreErrorKind::AlreadyExists);
    assert_eq!(store.get("folder/a", 5).await.unwrap(), "first");
    assert_eq!(kind(store.get("folder/a", 4).await), StoreErrorKind::TooLarge);
    assert_eq!(store.head("folder/deep/b").await.unwrap(), 300_000);
    assert_eq!(store.head("folder2/c").await.unwrap(), 0);
    assert_eq!(store.get("folder/deep/b", 300_000).await.unwrap(), long);
}

async fn reads_ranges(store: &Store) {
    let long = store.get("folder/deep/b", 300_000).await.unwrap();
    assert_eq!(store.get_range("folder/a", 1..3).await.unwrap(), "ir");
    assert_eq!(store.get_range("folder/a", 0..1).await.unwrap(), "f");
    assert_eq!(store.get_range("folder/a", 4..5).await.unwrap(), "t");
    assert_eq!(store.get_range("folder/deep/b", 0..300_000).await.unwrap(), long);
    assert_eq!(store.get_range("folder/deep/b", 299_999..300_000).await.unwrap(), long[299_999..]);
    for beyond in [3..6, 5..6, 100..106] {
        assert_eq!(kind(store.get_range("folder/a", beyond.clone()).await), StoreErrorKind::TooShort, "{beyond:?}");
    }
    assert_eq!(kind(store.get_range("folder2/c", 0..1).await), StoreErrorKind::TooShort);
}

async fn tells_what_is_not_there(store: &Store) {
    for name in ["folder/x", "nowhere/x", "folder/a/x", "folde"] {
        assert_eq!(kind(store.get(name, 9).await), StoreErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.get_range(name, 0..1).await), StoreErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.head(name).await), StoreErrorKind::NotFound, "{name}");
    }
}

async fn lists_what_is_there(store: &Store) {
    let (a, b, c) = (info("folder/a", 5), info("folder/deep/b", 300_000), info("folder2/c", 0));
    assert_eq!(list(store, "").await, [a.clone(), b.clone(), c]);
    assert_eq!(list(store, "folder/").await, [a, b.clone()]);
    assert_eq!(list(store, "folder/deep/").await, [b]);
    assert_eq!(list(store, "nowhere/").await, []);
    assert_eq!(list(store, "fold/").await, []);
    // The longest names that a repository has, and every kind of character in them.
    let names = [
        "domains/default/points/a-63-characters-long-name-0123456789-0123456789-0123456789-abc",
        "epochs/ffffffffffffffff",
    ];
    for name in names {
        store.put_new(name, Bytes::from_static(b"x")).await.unwrap();
        let (folder, _) = name.rsplit_once('/').unwrap();
        assert_eq!(list(store, &format!("{folder}/")).await, [info(name, 1)]);
        store.delete(name).await.unwrap();
        assert_eq!(list(store, &format!("{folder}/")).await, []);
    }
}

async fn deletes(store: &Store) {
    store.delete("folder/a").await.unwrap();
    store.delete("folder/a").await.unwrap();
    store.delete("nowhere/at-all").await.unwrap();
    assert_eq!(kind(store.get("folder/a", 9).await), StoreErrorKind::NotFound);
    store.put_new("folder/a", Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(store.get("folder/a", 9).await.unwrap(), "again");
}

/// Many create one object at once: one succeeds, and its bytes are those that stay.
async fn one_creator_wins(store: &Store) {
    for round in 0..6 {
        let name = format!("contended/{round}");
        let create = |creator: usize| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { (creator, store.put_new(&name, Bytes::from(format!("by {creator}"))).await) })
        };
        let results: Vec<_> = futures::future::try_join_all((0..4).map(create)).await.unwrap();
        let winners: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(creator, _)| creator).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(store.get(&name, 9).await.unwrap(), format!("by {}", winners[0]));
        for (_, result) in results.iter().filter(|(_, result)| result.is_err()) {
            assert_eq!(kind(result.clone()), StoreErrorKind::AlreadyExists);
        }
    }
}

async fn keeps_big_objects(store: &Store) {
    let big: Bytes = (0..BIG).map(|i| u8::try_from((i * 31 + i / 4_093) % 251).unwrap()).collect();
    let len = big.len() as u64;
    store.put_new("big", big.clone()).await.unwrap();
    assert_eq!(store.head("big").await.unwrap(), len);
    assert_eq!(store.get_range("big", len - 20..len).await.unwrap(), big[BIG - 20..]);
    let middle = 8_388_600..16_777_300;
    assert!(store.get_range("big", middle.start as u64..middle.end as u64).await.unwrap() == big[middle]);
    assert!(store.get("big", len).await.unwrap() == big);
    store.delete("big").await.unwrap();
}

async fn lists_many(store: &Store) {
    let names: Vec<_> = (0..MANY).map(|i| format!("many/{:02x}/{i:06}", i % 7)).collect();
    let made = stream::iter(&names)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |name| store.put_new(name, Bytes::from_static(b"1234")));
    made.await.unwrap();
    let mut expected: Vec<_> = names.iter().map(|name| info(name, 4)).collect();
    expected.sort();
    assert_eq!(list(store, "many/").await, expected);
    assert_eq!(store.list("many/03/").await.unwrap().len(), names.iter().filter(|name| name.contains("/03/")).count());
}

#[tokio::test]
async fn memory_conforms() {
    conforms(memory()).await;
    conforms_at_size(memory()).await;
}

#[tokio::test]
async fn a_file_system_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/yet/there");
    let store = StoreConfig::FileSystem { path: path.clone() }.open(RetryPolicy::never()).unwrap();
    conforms(store.clone()).await;
    conforms_at_size(store).await;
    assert_eq!(std::fs::read_dir(path.join("unfinished")).unwrap().count(), 0, "an unfinished file stayed behind");
}

#[tokio::test]
async fn s3_conforms_with_and_without_a_prefix() {
    let server = S3Server::start().await;
    conforms(server.config("").open(RetryPolicy::never()).unwrap()).await;
    let server = S3Server::start().await;
    let store = server.config("team/our backups, ü").open(RetryPolicy::never()).unwrap();
    conforms(store.clone()).await;
    let whole = server.config("").open(RetryPolicy::never()).unwrap();
    assert!(whole.list("").await.unwrap().iter().all(|object| object.name.starts_with("team/our backups, ü/")));
}

#[tokio::test]
async fn s3_conforms_at_size() {
    let server = S3Server::start().await;
    conforms_at_size(server.config("p").open(EAGER).unwrap()).await;
}

/// Starts a server, or ends the test with the reason why it cannot be had here.
macro_rules! server {
    ($start:expr) => {
        match $start.await {
            Ok(server) => server,
            Err(reason) => sandbox::skip!("{reason}"),
        }
    };
}

#[tokio::test]
async fn moto_conforms() {
    let server: Server = server!(servers::moto());
    server.make_bucket("plain", &[]).await;
    let store = server.s3("plain", "team/a").open(EAGER).unwrap();
    conforms(store.clone()).await;
    // Who is first among many is not asked: this server looks and then writes, so its answer would be chance.
    keeps_big_objects(&store).await;
    lists_many(&store).await;
}

#[tokio::test]
async fn azurite_conforms() {
    let server = server!(servers::azurite());
    // Without a prefix first, while nothing else is in the container.
    conforms(server.azure("").open(RetryPolicy::never()).unwrap()).await;
    let store = server.azure("team/a").open(EAGER).unwrap();
    conforms(store.clone()).await;
    conforms_at_size(store).await;
}

#[tokio::test]
async fn google_conforms() {
    let server = GoogleServer::start().await;
    conforms(server.config("").open(RetryPolicy::never()).unwrap()).await;
    let store = server.config("team/our backups, ü").open(RetryPolicy::never()).unwrap();
    conforms(store.clone()).await;
    conforms_at_size(store).await;
    let repo = crate::fixture::create(server.config("repository").open(RetryPolicy::never()).unwrap()).await;
    let contents = crate::fixture::contents(&[("a", "1"), ("spread", "wide")]);
    crate::fixture::publish(&repo, "first", &contents, None).await.unwrap();
    assert_eq!(crate::fixture::restore(&repo, "first").await.unwrap(), contents);
}

/// The negative case: a server that ignores the condition overwrites, and the probe must say so.
#[tokio::test]
async fn a_server_that_ignores_conditions_does_not_conform_and_is_noticed() {
    let server = server!(servers::s3rver());
    let store = server.s3rver_config().open(EAGER).unwrap();
    store.put_new("x", Bytes::from_static(b"one")).await.unwrap();
    let again = store.put_new("x", Bytes::from_static(b"two")).await;
    assert!(again.is_ok(), "the server has learnt conditions, so another one is needed here: {again:?}");
    store.delete("x").await.unwrap();
    let features = store.probe().await.unwrap();
    assert!(!features.conditional_create && features.delete);
    // A single writer is served all the same.
    let repo = crate::fixture::create(store.clone()).await;
    assert!(!repo.known().conditional_create);
    let contents = crate::fixture::contents(&[("a", "1")]);
    crate::fixture::publish(&repo, "first", &contents, None).await.unwrap();
    let other = crate::fixture::contents(&[("a", "2")]);
    let error = crate::fixture::publish(&repo, "first", &other, None).await.unwrap_err();
    assert_eq!(error.kind(), repository::ErrorKind::AlreadyExists);
    assert_eq!(crate::fixture::restore(&repo, "first").await.unwrap(), contents);
}

#[tokio::test]
async fn stores_with_passing_faults_conform() {
    let plans: [(&str, Plan); 6] = [
        ("every other request fails", |number, _| {
            if number % 2 == 0 { Fault::Refused(StoreErrorKind::Unreachable) } else { Fault::None }
        }),
        ("every other answer is lost", |number, request| match request {
            Request::Delete => Fault::None,
            _ if number % 2 == 0 => Fault::AnswerLost,
            _ => Fault::None,
        }),
        ("two of three answers to creations are lost", |number, request| {
            if request == Request::Create && number % 3 != 0 { Fault::AnswerLost } else { Fault::None }
        }),
        ("every other answer to a deletion is lost", |number, request| {
            if request == Request::Delete && number % 2 == 0 { Fault::AnswerLost } else { Fault::None }
        }),
        ("reads are cut short now and then", |number, request| {
            if request == Request::Read && number % 3 == 0 { Fault::CutShort } else { Fault::None }
        }),
        ("every request is slow", |_, _| Fault::Slow),
    ];
    for (name, plan) in plans {
        println!("{name}");
        conforms(Faulty::new(memory(), plan).store(EAGER)).await;
        // Each wrapper also over a real file system and a real protocol.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let files = StoreConfig::FileSystem { path }.open(RetryPolicy::never()).unwrap();
        conforms(Faulty::new(files, plan).store(EAGER)).await;
        let server = S3Server::start().await;
        conforms(Faulty::new(server.config("").open(RetryPolicy::never()).unwrap(), plan).store(EAGER)).await;
    }
}

/// A server that asks to slow down, in each of the ways in which servers do, is asked again.
#[tokio::test]
async fn a_server_that_throttles_conforms() {
    let answers = [
        (503, "<Error><Code>SlowDown</Code></Error>"),
        (429, "<Error><Code>TooManyRequests</Code></Error>"),
        (500, "<Error><Code>InternalError</Code></Error>"),
        (503, ""),
    ];
    for answer in answers {
        let requests = AtomicU64::new(0);
        let server = S3Server::start_with(move |_| {
            // Not every other one: a part that cannot be read is followed by a question for its length.
            requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(3).then_some(answer)
        })
        .await;
        conforms(server.config("").open(EAGER).unwrap()).await;
    }
}

/// Every kind of failure at every operation: what may pass is tried as often as the policy says, what is final once, and the kind
/// arrives as it was.
#[tokio::test]
async fn each_failure_of_each_operation_is_told_and_repeated_as_its_kind_wants() {
    use StoreErrorKind as K;
    let all = u64::from(EAGER.attempts);
    let kinds = [
        (K::Unreachable, all),
        (K::Unreadable, 3),
        (K::AccessDenied, 1),
        (K::NoSpace, 1),
        (K::NotDurable, 1),
        (K::TooLarge, 1),
        (K::NotSupported, 1),
        (K::Invalid, 1),
        (K::NotFound, 1),
        (K::AlreadyExists, 1),
    ];
    for (failure, attempts) in kinds {
        let broken = || Faulty::new(memory(), move |_, _| Fault::Refused(failure));
        let check = |what: &str, found: StoreErrorKind, faulty: &Faulty| {
            assert_eq!((found, faulty.requests()), (failure, attempts), "{what} {failure:?}");
        };
        let faulty = broken();
        check("create", kind(faulty.store(EAGER).put_new("x", Bytes::new()).await), &faulty);
        let faulty = broken();
        check("get", kind(faulty.store(EAGER).get("x", 1).await), &faulty);
        let faulty = broken();
        check("range", kind(faulty.store(EAGER).get_range("x", 0..1).await), &faulty);
        let faulty = broken();
        check("head", kind(faulty.store(EAGER).head("x").await), &faulty);
        let faulty = broken();
        check("list", kind(faulty.store(EAGER).list("").await), &faulty);
        let faulty = broken();
        let deleted = faulty.store(EAGER).delete("x").await;
        // What is not there is deleted.
        if failure == K::NotFound { deleted.unwrap() } else { check("delete", kind(deleted), &faulty) }
    }
}
