//! Writing sessions.

use crate::faults::{EAGER, Fault, Faulty, Request, memory};
use crate::fixture::{self, contents};
use crate::s3::S3Server;
use bytes::Bytes;
use repository::check::{CheckOptions, check};
use repository::{
    BlobKind, Counters, ErrorKind, MAX_BLOB_LEN, NoProgress, Progress, RetryPolicy, Store, StoreConfig, StoreErrorKind,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}

/// Writes 100 MB, which takes several packs, and reads it back.
async fn several_packs_survive(store: Store) {
    let repo = fixture::create(store).await;
    let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
    let puts = (0..50).map(|seed| writer.put_blob(BlobKind::Data, noise(seed, 2_000_000)));
    let blobs = futures::future::try_join_all(puts).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!(written.packs.len(), 4, "{:?}", written.packs);
    assert!(written.packs.iter().all(|pack| pack.bytes <= 32 << 20), "{:?}", written.packs);
    assert_eq!((written.stats.blobs, written.stats.new_blobs), (50, 50));
    for (seed, blob) in (0..).zip(&blobs) {
        assert_eq!(repo.read_blob(blob).await.unwrap(), noise(seed, 2_000_000));
    }
    let read = Heard::default();
    repo.verify_packs_with(&written.packs, &read).await.unwrap();
    let bytes = written.packs.iter().map(|pack| pack.bytes).sum();
    let all = Counters { files: 4, bytes, new_bytes: 0 };
    assert_eq!(read.all(), (all, all));
    let checked = Heard::default();
    check(&repo, CheckOptions { read_data: true }, &checked, &mut |finding| panic!("{finding:?}")).await.unwrap();
    assert_eq!(checked.all(), (all, all));
}

/// What was told of how far work is: the total, and the sum of what was done.
#[derive(Default)]
struct Heard(Mutex<(Counters, Counters)>);

impl Heard {
    fn all(&self) -> (Counters, Counters) {
        *self.0.lock().unwrap()
    }
}

impl Progress for Heard {
    fn add(&self, done: Counters) {
        let mut heard = self.0.lock().unwrap();
        heard.1.files += done.files;
        heard.1.bytes += done.bytes;
    }

    fn total(&self, total: Counters) {
        self.0.lock().unwrap().0 = total;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_packs_survive_on_a_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::FileSystem { path: folder.path().to_owned() };
    several_packs_survive(config.open(RetryPolicy::never()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_packs_survive_on_s3() {
    let server = S3Server::start().await;
    several_packs_survive(server.config("p").open(RetryPolicy::never()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_packs_survive_lost_answers() {
    // Drawn, not every third: of reads beside each other that take turns, one would meet all the faults.
    let drawn = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let faulty = Faulty::new(memory(), move |number, request| match request {
        Request::Create if drawn(number).is_multiple_of(2) => Fault::AnswerLost,
        Request::Read if drawn(number).is_multiple_of(3) => Fault::CutShort,
        _ => Fault::None,
    });
    several_packs_survive(faulty.store(RetryPolicy { attempts: 24, ..EAGER })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_blobs_of_a_session_are_stored_once() {
    let repo = fixture::create(memory()).await;
    let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
    let puts = (0..20).map(|n| writer.put_blob(BlobKind::Data, noise(n % 2, 100_000)));
    let blobs = futures::future::try_join_all(puts).await.unwrap();
    assert!(blobs.iter().step_by(2).all(|blob| blob == &blobs[0]));
    let written = writer.finish().await.unwrap();
    assert_eq!((written.stats.blobs, written.stats.new_blobs, written.stats.new_bytes), (20, 2, 200_000));
    assert!(written.packs[0].bytes < 201_000);
}

#[tokio::test]
async fn blobs_of_every_length_survive_and_longer_ones_are_refused() {
    let repo = fixture::create(memory()).await;
    let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
    let mut blobs = Vec::new();
    for len in [0, 1, 4096, MAX_BLOB_LEN] {
        blobs.push((len, writer.put_blob(BlobKind::Data, noise(len as u64, len)).await.unwrap()));
    }
    let error = writer.put_blob(BlobKind::Data, Bytes::from(vec![0; MAX_BLOB_LEN + 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    writer.finish().await.unwrap();
    for (len, blob) in blobs {
        assert_eq!(repo.read_blob(&blob).await.unwrap(), noise(len as u64, len));
    }
}

#[tokio::test]
async fn a_session_that_wrote_nothing_stores_nothing() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    let before = store.list("").await.unwrap().len();
    assert_eq!(repo.writer(&fixture::point_id("scratch")).await.unwrap().finish().await.unwrap().packs, []);
    // Its own object is all that there is of it.
    assert_eq!(store.list("").await.unwrap().len(), before + 1);
}

#[tokio::test]
async fn a_finished_session_takes_nothing_more() {
    let repo = fixture::create(memory()).await;
    let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
    writer.clone().finish().await.unwrap();
    assert_eq!(writer.put_blob(BlobKind::Data, Bytes::new()).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A failure in the background reaches whoever writes next, and whoever finishes, with its kind.
#[tokio::test]
async fn a_failed_upload_fails_the_session() {
    let inner = memory();
    fixture::create(inner.clone()).await;
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let faulty = Faulty::new(inner.clone(), move |_, request| {
        if request == Request::Create && is_full.load(Ordering::SeqCst) {
            Fault::Refused(StoreErrorKind::NoSpace)
        } else {
            Fault::None
        }
    });
    let store = faulty.store(EAGER);
    let repo = repository::Repository::open(store, &fixture::passphrase()).await.unwrap();
    let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
    full.store(true, Ordering::SeqCst);
    let mut refused = None;
    for seed in 0..40 {
        if let Err(error) = writer.put_blob(BlobKind::Data, noise(seed, 8 << 20)).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.expect("writing went on without an end").kind(), ErrorKind::NoSpace);
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(inner.list("domains/default/packs/").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_do_not_disturb_each_other() {
    let store = memory();
    fixture::create(store.clone()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let repo = repository::Repository::open(store, &fixture::passphrase()).await.unwrap();
            let mine = contents(&[("shared", "the same for all"), ("own", &format!("of {number}"))]);
            fixture::publish(&repo, &format!("point-{number}"), &mine, None).await.unwrap();
        });
    }
    tasks.join_all().await;
    let repo = repository::Repository::open(store, &fixture::passphrase()).await.unwrap();
    assert_eq!(repo.points().await.unwrap().len(), 8);
    for number in 0..8 {
        let restored = fixture::restore(&repo, &format!("point-{number}")).await.unwrap();
        assert_eq!(restored["own"], format!("of {number}").into_bytes());
    }
    let mut on_finding = |finding| panic!("{finding:?}");
    check(&repo, CheckOptions { read_data: true }, &NoProgress, &mut on_finding).await.unwrap();
}

/// A blob whose pack is gone is found where the index says it is: the seam for compaction.
#[tokio::test]
async fn a_blob_is_found_by_the_index_when_its_pack_is_gone() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    let mut blobs = Vec::new();
    for _ in 0..2 {
        let writer = repo.writer(&fixture::point_id("scratch")).await.unwrap();
        blobs.push(writer.put_blob(BlobKind::Data, noise(1, 1000)).await.unwrap());
        writer.put_blob(BlobKind::Data, noise(2, 1000)).await.unwrap();
        writer.finish().await.unwrap();
    }
    let packs = store.list("domains/default/packs/").await.unwrap();
    let first = packs.iter().find(|object| object.name.ends_with(&blobs[0].pack.to_string())).unwrap();
    store.delete(&first.name).await.unwrap();
    assert_eq!(repo.read_blob(&blobs[0]).await.unwrap(), noise(1, 1000));
}
