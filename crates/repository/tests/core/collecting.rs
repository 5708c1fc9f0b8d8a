//! Collecting what no recovery point needs, beside whoever else works on the repository.

use crate::faults::{Fault, Faulty, OpenBook, Request, memory};
use crate::fixture::{self, Contents, contents, passphrase, point_id};
use jiff::SignedDuration;
use repository::check::{CheckOptions, check};
use repository::{
    CollectOptions, CollectReport, CollectState, Counters, Error, ErrorKind, NoProgress, Progress, Repository,
    RetryPolicy, Store, StoreConfig, StoreErrorKind,
};

/// Longer than a run may be silent.
const LONG: SignedDuration = SignedDuration::from_hours(7);

async fn collect(repo: &Repository) -> CollectReport {
    repo.collect(&CollectOptions::default(), &NoProgress).await.unwrap()
}

async fn plan(repo: &Repository) -> CollectReport {
    repo.collect(&CollectOptions { dry_run: true, ..CollectOptions::default() }, &NoProgress).await.unwrap()
}

async fn packs(store: &Store) -> usize {
    store.list("domains/default/packs/").await.unwrap().len()
}

async fn is_clean(repo: &Repository) {
    let mut on_finding = |finding| panic!("{finding:?}");
    check(repo, CheckOptions { read_data: true }, &NoProgress, &mut on_finding).await.unwrap();
}

fn both() -> Contents {
    contents(&[("both", "in base and later"), ("base", "only in base"), ("spread", "in a table")])
}

fn more() -> Contents {
    contents(&[("both", "in base and later"), ("later", "only in later"), ("spread", "in a table")])
}

/// A run that writes a pack, and is never heard of again.
async fn dead_run(repo: &Repository, id: &str) -> repository::Result<repository::RecoveryPoint> {
    let writer = repo.writer(&point_id(id)).await?;
    let stored = fixture::store_contents(&writer, &contents(&[("lost", id)]), None).await?;
    Ok(fixture::point(id, stored.table, &writer.finish().await?))
}

async fn what_is_forgotten_is_freed_and_what_is_shared_stays(store: Store) {
    let repo = fixture::create(store.clone()).await;
    let base = fixture::publish(&repo, "base", &both(), None).await.unwrap();
    fixture::publish(&repo, "later", &more(), Some(&base)).await.unwrap();
    fixture::publish(&repo, "other", &contents(&[("else", "only in other")]), None).await.unwrap();
    assert_eq!(collect(&repo).await.state, CollectState::Nothing);
    repo.forget(&point_id("other")).await.unwrap();
    repo.forget(&point_id("base")).await.unwrap();
    let planned = plan(&repo).await;
    assert_eq!((planned.packs, packs(&store).await), (1, 3), "the pack of base is needed by later");
    let done = collect(&repo).await;
    assert_eq!((done.state, done.packs, done.index_runs), (CollectState::Finished, 1, 1));
    assert_eq!((done.bytes, done.kept_packs, done.kept_bytes), (planned.bytes, 2, planned.kept_bytes));
    assert_eq!(packs(&store).await, 2);
    assert_eq!(fixture::restore(&repo, "later").await.unwrap(), more());
    is_clean(&repo).await;
    assert_eq!(collect(&repo).await.state, CollectState::Nothing);
    repo.forget(&point_id("later")).await.unwrap();
    assert_eq!(collect(&repo).await.packs, 2);
    for folder in ["packs", "index", "sessions", "beats", "points"] {
        assert_eq!(store.list(&format!("domains/default/{folder}/")).await.unwrap(), [], "{folder}");
    }
    // Of the collections, only that they are over is left.
    let left = store.list("domains/default/collections/").await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|object| object.name.ends_with("-done")), "{left:?}");
    fixture::publish(&repo, "next", &both(), None).await.unwrap();
    assert_eq!(fixture::restore(&repo, "next").await.unwrap(), both());
}

#[tokio::test]
async fn space_is_freed_in_memory() {
    what_is_forgotten_is_freed_and_what_is_shared_stays(memory()).await;
}

#[tokio::test]
async fn space_is_freed_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::FileSystem { path: folder.path().to_owned() };
    what_is_forgotten_is_freed_and_what_is_shared_stays(config.open(RetryPolicy::never()).unwrap()).await;
}

#[tokio::test]
async fn the_space_of_a_dead_run_is_reclaimed_and_the_run_is_told_when_it_wakes_up() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "kept", &both(), None).await.unwrap();
    let late = dead_run(&repo, "dead").await.unwrap();
    let waiting = collect(&repo).await;
    assert_eq!((waiting.state, waiting.packs), (CollectState::Waiting, 0));
    assert_eq!(waiting.waiting[0].point, point_id("dead"));
    book.pass(LONG);
    let planned = plan(&repo).await;
    assert_eq!((planned.packs, planned.revoked.len()), (1, 1));
    let done = collect(&repo).await;
    assert_eq!((done.state, done.packs, done.revoked.len()), (CollectState::Finished, 1, 1));
    assert_eq!(packs(&book.store()).await, 1);
    let revoked = repo.publish(&late).await.unwrap_err();
    assert_eq!((revoked.kind(), revoked.is_retryable()), (ErrorKind::Revoked, false));
    assert!(revoked.guidance().contains("run the backup again"), "{}", revoked.guidance());
    assert!(
        matches!(repo.writer(&point_id("dead")).await, Err(Error::Revoked { .. })),
        "an id that was revoked is used up"
    );
    assert_eq!(repo.point(&point_id("dead")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(repo.points().await.unwrap().len(), 1);
    is_clean(&repo).await;
}

#[tokio::test]
async fn a_collection_waits_for_a_running_writer_and_new_sessions_use_only_what_it_keeps() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    fixture::publish(&repo, "old", &both(), None).await.unwrap();
    fixture::publish(&repo, "gone", &contents(&[("gone", "only in gone")]), None).await.unwrap();
    let slow = repo.writer(&point_id("slow")).await.unwrap();
    let stored = fixture::store_contents(&slow, &contents(&[("slow", "takes its time")]), None).await.unwrap();
    repo.forget(&point_id("gone")).await.unwrap();
    let waiting = collect(&repo).await;
    assert_eq!((waiting.state, waiting.waiting.len()), (CollectState::Waiting, 1));
    assert_eq!(packs(&store).await, 2, "nothing is deleted while it waits");

    let written = slow.finish().await.unwrap();
    repo.publish(&fixture::point("slow", stored.table, &written)).await.unwrap();
    let beside = repo.writer(&point_id("beside")).await.unwrap();
    assert_eq!(beside.session().epoch, 2);
    assert!(beside.parent(&point_id("old")).await.unwrap().is_some(), "the collection lists it");
    assert!(beside.parent(&point_id("slow")).await.unwrap().is_none(), "it was published after the collection began");
    assert!(beside.parent(&point_id("gone")).await.unwrap().is_none());
    let newer = repo.writer(&point_id("newer")).await.unwrap();
    let newer_stored = fixture::store_contents(&newer, &more(), None).await.unwrap();
    repo.publish(&fixture::point("newer", newer_stored.table, &newer.finish().await.unwrap())).await.unwrap();
    assert!(beside.parent(&point_id("newer")).await.unwrap().is_some(), "all its sessions are of the new epoch");

    // What runs in the new epoch is not waited for.
    let done = collect(&repo).await;
    assert_eq!((done.state, done.packs), (CollectState::Finished, 1));
    let after = repo.writer(&point_id("after")).await.unwrap();
    assert!(after.parent(&point_id("slow")).await.unwrap().is_some(), "the collection is over");
    for (id, expected) in [("old", both()), ("slow", contents(&[("slow", "takes its time")])), ("newer", more())] {
        assert_eq!(fixture::restore(&repo, id).await.unwrap(), expected, "{id}");
    }
    is_clean(&repo).await;
}

/// A repository with everything that a collection deals with.
async fn busy(book: &OpenBook) -> Repository {
    let repo = fixture::create(book.store()).await;
    let base = fixture::publish(&repo, "base", &both(), None).await.unwrap();
    fixture::publish(&repo, "later", &more(), Some(&base)).await.unwrap();
    fixture::publish(&repo, "gone", &contents(&[("gone", "only in gone")]), None).await.unwrap();
    dead_run(&repo, "dead").await.unwrap();
    repo.forget(&point_id("gone")).await.unwrap();
    repo.forget(&point_id("base")).await.unwrap();
    book.pass(LONG);
    repo
}

async fn crash_everywhere(fault: Fault) {
    let book = OpenBook::default();
    busy(&book).await;
    let whole = Faulty::new(book.store(), |_, _| Fault::None);
    collect(&Repository::open(whole.store(RetryPolicy::never()), &passphrase()).await.unwrap()).await;
    let mut left = Vec::new();
    for cut in 0..whole.requests() {
        let book = OpenBook::default();
        let repo = busy(&book).await;
        let crashing = Faulty::new(book.store(), move |number, _| match number.cmp(&cut) {
            std::cmp::Ordering::Less => Fault::None,
            std::cmp::Ordering::Equal => fault,
            std::cmp::Ordering::Greater => Fault::Refused(StoreErrorKind::Unreachable),
        });
        if let Ok(cut_off) = Repository::open(crashing.store(RetryPolicy::never()), &passphrase()).await {
            cut_off.collect(&CollectOptions::default(), &NoProgress).await.unwrap_err();
        }
        left.push(packs(&book.store()).await);
        assert_eq!(fixture::restore(&repo, "later").await.unwrap(), more(), "cut at {cut}");
        is_clean(&repo).await;
        fixture::publish(&repo, "next", &both(), None).await.unwrap();
        book.pass(LONG);
        collect(&repo).await;
        assert_eq!(packs(&book.store()).await, 3, "cut at {cut}: those of base, later and next");
        assert_eq!(fixture::restore(&repo, "later").await.unwrap(), more(), "cut at {cut}");
        assert_eq!(fixture::restore(&repo, "next").await.unwrap(), both(), "cut at {cut}");
        is_clean(&repo).await;
        let names = book.names();
        let sessions = names.iter().filter(|name| name.contains("/sessions/")).count();
        assert_eq!(sessions, 2, "cut at {cut}: {names:?}");
    }
    // The cuts went through all stages: before anything was deleted, in between, and after.
    assert!(left[0] == 4 && left.contains(&3) && left.last() == Some(&2), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_cut_off_before_any_request_goes_on() {
    crash_everywhere(Fault::Refused(StoreErrorKind::Unreachable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_cut_off_after_any_request_goes_on() {
    crash_everywhere(Fault::AnswerLost).await;
}

#[tokio::test]
async fn nothing_is_deleted_while_a_point_cannot_be_read_and_it_can_be_forgotten() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "whole", &both(), None).await.unwrap();
    fixture::publish(&repo, "hurt", &more(), None).await.unwrap();
    fixture::publish(&repo, "gone", &contents(&[("gone", "1")]), None).await.unwrap();
    repo.forget(&point_id("gone")).await.unwrap();
    let name = "domains/default/points/hurt";
    let mut bytes = book.read(name).unwrap().to_vec();
    bytes[40] ^= 1;
    book.swap(name, Some(bytes.into()));
    let before = book.names();
    for dry_run in [true, false] {
        let options = CollectOptions { dry_run, ..CollectOptions::default() };
        let error = repo.collect(&options, &NoProgress).await.unwrap_err();
        assert!(error.to_string().contains("hurt (domains/default/points/hurt is damaged"), "{error}");
        assert!(error.guidance().contains("forget it"), "{}", error.guidance());
    }
    assert_eq!(book.names(), before);
    repo.forget(&point_id("hurt")).await.unwrap();
    assert_eq!(repo.points().await.unwrap().len(), 1);
    assert_eq!(collect(&repo).await.packs, 2);
    assert_eq!(fixture::restore(&repo, "whole").await.unwrap(), both());
    assert!(!book.names().iter().any(|name| name.contains("/points/hurt")), "{:?}", book.names());
}

#[tokio::test]
async fn nothing_is_deleted_while_a_page_cannot_be_read() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let stored = fixture::publish(&repo, "hurt", &more(), None).await.unwrap();
    fixture::publish(&repo, "gone", &contents(&[("gone", "1")]), None).await.unwrap();
    repo.forget(&point_id("gone")).await.unwrap();
    let pack = book.names().into_iter().find(|name| name.ends_with(&stored.table.root.pack.to_string())).unwrap();
    let original = book.swap(&pack, None);
    let error = repo.collect(&CollectOptions::default(), &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("hurt ("), "{error}");
    assert_eq!(packs(&book.store()).await, 1);
    book.swap(&pack, original);
    assert_eq!(collect(&repo).await.packs, 1);
}

/// What a stalled process does that repeats its last request after the point was forgotten.
#[tokio::test]
async fn a_forgotten_point_that_is_put_again_does_not_count_and_is_deleted() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "kept", &both(), None).await.unwrap();
    fixture::publish(&repo, "gone", &more(), None).await.unwrap();
    let (name, point) = ("domains/default/points/gone", repo.point(&point_id("gone")).await.unwrap());
    let bytes = book.read(name).unwrap();
    repo.forget(&point_id("gone")).await.unwrap();
    book.swap(name, Some(bytes));
    assert_eq!(repo.point(&point_id("gone")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(repo.points().await.unwrap().len(), 1);
    assert_eq!(repo.publish(&point).await.unwrap_err().kind(), ErrorKind::Revoked, "it is told to who repeats it");
    // It may as well have lost its session, so it is named until a collector has taken it away.
    let found = crate::damage::findings(&repo, crate::damage::THOROUGH).await;
    assert_eq!(found.iter().map(|finding| &finding.object).collect::<Vec<_>>(), [name], "{found:?}");
    assert!(found[0].what.contains("does not count"), "{found:?}");
    let done = collect(&repo).await;
    assert_eq!((done.packs, done.void_points), (1, vec![point_id("gone")]));
    assert!(book.read(name).is_none());
    is_clean(&repo).await;
}

#[tokio::test]
async fn a_run_that_is_forgotten_before_it_has_ended_is_never_published() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let late = dead_run(&repo, "run").await.unwrap();
    repo.forget(&point_id("run")).await.unwrap();
    assert_eq!(repo.publish(&late).await.unwrap_err().kind(), ErrorKind::Revoked);
    // Nobody has to wait for it any more.
    let done = collect(&repo).await;
    assert_eq!((done.state, done.packs), (CollectState::Finished, 1));
}

#[tokio::test]
async fn a_collection_that_is_damaged_is_given_up_and_made_anew() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "kept", &both(), None).await.unwrap();
    let _running = repo.writer(&point_id("running")).await.unwrap();
    dead_run(&repo, "gone").await.unwrap();
    assert_eq!(collect(&repo).await.state, CollectState::Waiting);
    let name = "domains/default/collections/0000000000000002";
    let mut bytes = book.read(name).unwrap().to_vec();
    bytes[30] ^= 1;
    book.swap(name, Some(bytes.into()));
    book.pass(LONG);
    assert_eq!(collect(&repo).await.packs, 1);
    assert_eq!(fixture::restore(&repo, "kept").await.unwrap(), both());
}

#[tokio::test]
async fn a_store_that_refuses_nothing_has_one_run_at_a_time() {
    let book = OpenBook::overwriting();
    let repo = fixture::create(book.store()).await;
    let first = repo.writer(&point_id("first")).await.unwrap();
    let busy = repo.writer(&point_id("second")).await.unwrap_err();
    assert_eq!((busy.kind(), busy.is_retryable()), (ErrorKind::Busy, true));
    repo.writer(&point_id("first")).await.expect("another session of the same run");
    assert_eq!(collect(&repo).await.state, CollectState::Waiting);
    drop(first);
    book.pass(LONG);
    repo.writer(&point_id("second")).await.expect("the first is taken for dead");
}

#[tokio::test]
async fn a_sign_of_life_counts_for_its_run() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let written = dead_run(&repo, "run").await.unwrap();
    book.pass(LONG);
    let beat = |number: u32| format!("domains/default/beats/{}-{number:08x}", written.sessions[0]);
    repo.store().put_new(&beat(7), bytes::Bytes::new()).await.unwrap();
    let waits = collect(&repo).await;
    assert_eq!((waits.state, waits.waiting.len()), (CollectState::Waiting, 1));
    book.pass(LONG);
    assert_eq!(collect(&repo).await.revoked.len(), 1, "without one, it is taken for dead");
    assert!(!book.names().iter().any(|name| name.contains("/beats/")));
}

/// What a process leaves that is killed while it creates an object in a folder.
#[tokio::test]
async fn what_was_left_unfinished_is_cleared_away_when_it_is_old_or_nobody_has_it_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::FileSystem { path: folder.path().to_owned() };
    let repo = fixture::create(config.open(RetryPolicy::never()).unwrap()).await;
    fixture::publish(&repo, "kept", &both(), None).await.unwrap();
    let path = |name: &str| folder.path().join("unfinished").join(name);
    let (old, dead, young, foreign) =
        (path(&"a".repeat(32)), path(&"b".repeat(32)), path(&"c".repeat(32)), path("notes"));
    for file in [&old, &dead, &young, &foreign] {
        std::fs::write(file, [7; 1000]).unwrap();
    }
    let open = |path| std::fs::File::options().write(true).open(path).unwrap();
    // Of a file system that takes no part in locks, every file looks as if somebody had it.
    let held = [&old, &young].map(open);
    held.iter().for_each(|file| file.lock().unwrap());
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7 * 3600);
    for file in [&old, &foreign] {
        open(file).set_modified(long_ago).unwrap();
    }
    let planned = plan(&repo).await;
    assert_eq!((planned.unfinished, planned.unfinished_bytes, old.exists()), (2, 2000, true));
    let done = collect(&repo).await;
    assert_eq!((done.state, done.unfinished, done.unfinished_bytes), (CollectState::Finished, 2, 2000));
    assert!(!old.exists() && !dead.exists() && young.exists() && foreign.exists());
    assert_eq!(collect(&repo).await.state, CollectState::Nothing);
    is_clean(&repo).await;
}

/// Notes totals, and what was done.
#[derive(Default)]
struct Noted(std::sync::Mutex<(Counters, Vec<Counters>)>);

impl Progress for Noted {
    fn add(&self, done: Counters) {
        let sum = &mut self.0.lock().unwrap().0;
        (sum.files, sum.bytes) = (sum.files + done.files, sum.bytes + done.bytes);
    }

    fn total(&self, total: Counters) {
        self.0.lock().unwrap().1.push(total);
    }
}

#[tokio::test]
async fn how_much_will_be_deleted_is_told_before_it_is_deleted() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    for name in ["one", "two", "three"] {
        fixture::publish(&repo, name, &contents(&[("only", name)]), None).await.unwrap();
    }
    repo.forget(&point_id("one")).await.unwrap();
    repo.forget(&point_id("two")).await.unwrap();
    // A collection that was cut off after its first pack, so that two are made in one call.
    let crashing = Faulty::new(store, |number, request| match request {
        Request::Delete if number > 0 => Fault::Refused(StoreErrorKind::Unreachable),
        _ => Fault::None,
    });
    let broken = Repository::open(crashing.store(RetryPolicy::never()), &passphrase()).await.unwrap();
    broken.collect(&CollectOptions::default(), &NoProgress).await.unwrap_err();
    repo.forget(&point_id("three")).await.unwrap();
    let noted = Noted::default();
    let done = repo.collect(&CollectOptions::default(), &noted).await.unwrap();
    let (sum, totals) = noted.0.into_inner().unwrap();
    assert_eq!((sum.files, sum.bytes, done.packs), (3, done.bytes, 3));
    assert_eq!(totals.iter().map(|total| total.files).collect::<Vec<_>>(), [2, 3], "of the first, and of both");
    assert_eq!(totals[1].bytes, done.bytes);
}
