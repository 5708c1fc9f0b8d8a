//! Damage is found, named, and told with exactly the recovery points that it hits.

use crate::faults::{Fault, Faulty, OpenBook, memory};
use crate::fixture::{self, Stored, contents, point_id};
use bytes::Bytes;
use repository::check::{CheckOptions, Finding, Sample, check, check_sample};
use repository::tree::entry::{Attributes, Entry, Kind};
use repository::tree::{self, RestoreOptions};
use repository::{
    BlobKind, BlobRef, ErrorKind, NoProgress, Repository, RetryPolicy, StoreConfig, StoreErrorKind, TableRef, Writer,
};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) const THOROUGH: CheckOptions = CheckOptions { read_data: true };
pub(crate) const STRUCTURE: CheckOptions = CheckOptions { read_data: false };

pub(crate) async fn findings(repo: &Repository, options: CheckOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let report = check(repo, options, &NoProgress, &mut |finding| findings.push(finding)).await.unwrap();
    assert_eq!(report.findings, findings.len() as u64);
    findings
}

/// Three recovery points: `base`, `later` which shares some of it, and `other` which shares nothing.
struct Fleet {
    repo: Repository,
    stored: Vec<(&'static str, Stored)>,
}

async fn fleet(store: repository::Store) -> Fleet {
    let repo = fixture::create(store).await;
    let both = contents(&[("both", "in base and later"), ("base", "only in base")]);
    let base = fixture::publish(&repo, "base", &both, None).await.unwrap();
    let more = contents(&[("both", "in base and later"), ("later", "only in later")]);
    let later = fixture::publish(&repo, "later", &more, Some(&base)).await.unwrap();
    let other =
        fixture::publish(&repo, "other", &contents(&[("else", "only in other"), ("spread", "in a table")]), None)
            .await
            .unwrap();
    assert_eq!(base.blobs["both"], later.blobs["both"]);
    Fleet { repo, stored: vec![("base", base), ("later", later), ("other", other)] }
}

impl Fleet {
    fn blobs(&self, point: usize) -> impl Iterator<Item = &BlobRef> {
        let stored = &self.stored[point].1;
        // So small a table has one page.
        assert_eq!(stored.table.height, 0);
        stored.blobs.values().chain(&stored.extent_pages).chain([&stored.table.root])
    }

    /// The recovery points that a changed byte of an object hits, by what the test knows of the format.
    fn hit_by(&self, object: &str, position: usize) -> BTreeSet<String> {
        let all = || self.stored.iter().map(|(name, _)| (*name).to_owned());
        if object == "orlop-repository" || object.contains("/keys/") {
            return all().collect();
        }
        if let Some(point) = object.strip_prefix("domains/default/points/") {
            return BTreeSet::from([point.to_owned()]);
        }
        let in_pack = |blob: &&BlobRef| object.ends_with(&blob.pack.to_string());
        let covers =
            |blob: &&BlobRef| (blob.offset as usize..(blob.offset + blob.stored_len) as usize).contains(&position);
        let in_a_blob = (0..3).flat_map(|point| self.blobs(point)).filter(in_pack).any(|blob| covers(&blob));
        let hit = |point: &usize| self.blobs(*point).filter(in_pack).any(|blob| !in_a_blob || covers(&blob));
        all().enumerate().filter(|(point, _)| hit(point)).map(|(_, name)| name).collect()
    }
}

async fn a_flipped_byte_is_found(fleet: &Fleet, book: &OpenBook, name: &str, position: usize, mask: u8) {
    let original = book.read(name).unwrap();
    let mut flipped = original.to_vec();
    flipped[position] ^= mask;
    book.swap(name, Some(Bytes::from(flipped)));
    let found = findings(&fleet.repo, THOROUGH).await;
    book.swap(name, Some(original));
    assert!(!found.is_empty(), "{name} byte {position} mask {mask:#x} was not found");
    assert!(found.iter().all(|finding| finding.object == name), "{name} byte {position}: {found:?}");
    let points: BTreeSet<_> = found.iter().flat_map(|finding| &finding.points).map(ToString::to_string).collect();
    assert_eq!(points, fleet.hit_by(name, position), "{name} byte {position}: {found:?}");
}

#[tokio::test]
async fn every_flipped_byte_of_every_object_is_found_and_named() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    assert_eq!(findings(&fleet.repo, THOROUGH).await, []);
    let names = book.names();
    let kinds = ["orlop-repository", "epochs/", "/keys/", "/packs/", "/index/", "/points/", "/sessions/"];
    assert!(kinds.iter().all(|kind| names.iter().any(|name| name.contains(kind))), "{names:?}");
    for name in names {
        for position in 0..book.read(&name).unwrap().len() {
            a_flipped_byte_is_found(&fleet, &book, &name, position, 1 << (position % 8)).await;
        }
    }
    assert_eq!(findings(&fleet.repo, THOROUGH).await, []);
}

#[tokio::test]
async fn every_missing_object_is_found() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    for name in book.names() {
        let original = book.swap(&name, None);
        let found = findings(&fleet.repo, THOROUGH).await;
        let quiet = ["/points/", "/index/"].iter().any(|folder| name.contains(folder));
        // A recovery point or an index run that is gone leaves no trace that misses it.
        assert_eq!(found.is_empty(), quiet, "{name}: {found:?}");
        book.swap(&name, original);
    }
}

#[tokio::test]
async fn every_truncated_or_extended_object_is_found() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    for name in book.names() {
        let original = book.read(&name).unwrap();
        let extended = [&original[..], b"\n"].concat();
        for changed in [original.slice(..original.len() - 1), Bytes::new(), Bytes::from(extended)] {
            book.swap(&name, Some(changed));
            let found = findings(&fleet.repo, THOROUGH).await;
            assert!(found.iter().any(|finding| finding.object == name), "{name}: {found:?}");
        }
        book.swap(&name, Some(original));
    }
}

#[tokio::test]
async fn a_missing_pack_names_the_points_it_hits_and_the_others_restore() {
    for options in [STRUCTURE, THOROUGH] {
        let book = OpenBook::default();
        let fleet = fleet(book.store()).await;
        let pack = fleet.stored[0].1.table.root.pack.to_string();
        let name = book.names().into_iter().find(|name| name.ends_with(&pack)).unwrap();
        book.swap(&name, None);
        let found = findings(&fleet.repo, options).await;
        let expected = Finding {
            object: name.clone(),
            what: "it is missing".to_owned(),
            points: vec![point_id("base"), point_id("later")],
        };
        assert_eq!(found, [expected]);
        assert_eq!(fixture::restore(&fleet.repo, "base").await.unwrap_err().kind(), ErrorKind::Damaged);
        let restored = fixture::restore(&fleet.repo, "other").await.unwrap();
        assert_eq!(restored, contents(&[("else", "only in other"), ("spread", "in a table")]));
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named_and_does_not_end_the_check() {
    for kind in [StoreErrorKind::Unreadable, StoreErrorKind::Unreachable] {
        for options in [STRUCTURE, THOROUGH] {
            let book = OpenBook::default();
            let fleet = fleet(book.store()).await;
            let pack = fleet.stored[0].1.table.root.pack.to_string();
            let name = book.names().into_iter().find(|name| name.ends_with(&pack)).unwrap();
            book.withhold(&name, kind);
            let found = findings(&fleet.repo, options).await;
            assert!(!found.is_empty() && found.iter().all(|finding| finding.object == name), "{found:?}");
            let points: BTreeSet<_> = found.iter().flat_map(|finding| &finding.points).cloned().collect();
            assert_eq!(points, BTreeSet::from([point_id("base"), point_id("later")]), "{kind:?}: {found:?}");
        }
    }
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    book.withhold("", StoreErrorKind::Unreachable);
    let error = check(&fleet.repo, THOROUGH, &NoProgress, &mut |finding| panic!("{finding:?}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "a store that gives nothing is no damage");
}

/// A page as the format has it.
fn page(level: u8, entries: &[(&[u8], Vec<u8>)]) -> Bytes {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut bytes = vec![level, 0, 0, 0];
    bytes.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    for (key, value) in entries {
        bytes.extend([len(key), len(value)].concat());
        bytes.extend([key, value.as_slice()].concat());
    }
    Bytes::from(bytes)
}

fn directory() -> Vec<u8> {
    Entry { attributes: Attributes::default(), kind: Kind::Directory }.encode()
}

fn fifo() -> Vec<u8> {
    Entry { attributes: Attributes::default(), kind: Kind::Fifo }.encode()
}

/// Publishes a tree of pages that no builder makes, and gives what a check says of it. A restore refuses all of them.
async fn check_of_tree(pages: impl AsyncFn(&Writer) -> repository::Result<TableRef>) -> Vec<Finding> {
    let repo = fixture::create(OpenBook::default().store()).await;
    let writer = repo.writer(&point_id("made")).await.unwrap();
    let table = pages(&writer).await.unwrap();
    let written = writer.finish().await.unwrap();
    repo.publish(&fixture::point("made", table, &written)).await.unwrap();
    let found = findings(&repo, STRUCTURE).await;
    let folder = tempfile::tempdir().unwrap();
    let (options, progress) = (RestoreOptions::default(), Arc::new(NoProgress));
    let restored = tree::restore(&repo, &table, &folder.path().join("target"), &options, progress).await;
    assert!(restored.as_ref().is_err_and(tree::Error::is_damage), "{restored:?}");
    assert!(found.iter().all(|finding| finding.points == [point_id("made")]), "{found:?}");
    found
}

#[tokio::test]
async fn a_page_that_holds_other_keys_than_the_page_above_says_is_found() {
    let found = check_of_tree(async |writer| {
        let one = writer.put_blob(BlobKind::Page, page(0, &[(b"", directory()), (b"c", fifo())])).await?;
        let two = writer.put_blob(BlobKind::Page, page(0, &[(b"b", fifo())])).await?;
        let children = [(&b""[..], one.encode().to_vec()), (b"b", two.encode().to_vec())];
        let root = writer.put_blob(BlobKind::Page, page(1, &children)).await?;
        Ok(TableRef { root, height: 1, entries: 3 })
    });
    let found = found.await;
    assert!(found[0].what.contains("does not hold the keys that the page above says"), "{found:?}");
}

#[tokio::test]
async fn a_tree_that_a_restore_refuses_is_found() {
    let found = check_of_tree(async |writer| {
        let root = writer.put_blob(BlobKind::Page, page(0, &[(b"", directory()), (b"a", fifo()), (b"a\0b", fifo())]));
        Ok(TableRef { root: root.await?, height: 0, entries: 3 })
    });
    let found = found.await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.starts_with("/srv: ") && found[0].what.contains("its directory is missing"), "{found:?}");
}

/// Each page has the one below twice: followed blindly, these are 2 to the 24th visits.
#[tokio::test]
async fn a_check_of_pages_that_come_again_and_again_ends() {
    let found = check_of_tree(async |writer| {
        let mut below = writer.put_blob(BlobKind::Page, page(0, &[(b"", directory())])).await?;
        for level in 1..=24 {
            let children = [(&b""[..], below.encode().to_vec()), (b"a", below.encode().to_vec())];
            below = writer.put_blob(BlobKind::Page, page(level, &children)).await?;
        }
        Ok(TableRef { root: below, height: 24, entries: u64::MAX })
    });
    assert!(!found.await.is_empty());
}

/// A check of the structure reads pages but no content: it finds what hits pages and directories.
#[tokio::test]
async fn a_check_of_the_structure_finds_damaged_pages() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    let root = fleet.stored[1].1.table.root;
    let name = book.names().into_iter().find(|name| name.ends_with(&root.pack.to_string())).unwrap();
    let mut flipped = book.read(&name).unwrap().to_vec();
    flipped[root.offset as usize + 3] ^= 1;
    book.swap(&name, Some(Bytes::from(flipped)));
    let found = findings(&fleet.repo, STRUCTURE).await;
    assert_eq!((found.len(), found[0].object.as_str()), (1, name.as_str()));
    assert_eq!(found[0].points, [point_id("later")]);
}

/// Larger objects on a real file system, with positions drawn from a seed that is printed and can be given.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_on_a_file_system_are_found() {
    let seed = std::env::var("ORLOP_SEED").map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("ORLOP_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::FileSystem { path: folder.path().to_owned() };
    let repo = fixture::create(config.open(RetryPolicy::never()).unwrap()).await;
    let text = |n: u32| (format!("{n:06}"), blake3::hash(&n.to_le_bytes()).as_bytes().repeat(20));
    fixture::publish(&repo, "large", &(0..5000).map(text).collect(), None).await.unwrap();
    let objects = repo.store().list("").await.unwrap();
    for draw in 0..60u64 {
        let hash = blake3::hash(&[seed.to_le_bytes(), draw.to_le_bytes()].concat());
        let number = |at: usize| u64::from_le_bytes(hash.as_bytes()[at..at + 8].try_into().unwrap());
        let object = &objects[usize::try_from(draw).unwrap() % objects.len()];
        let path = folder.path().join(&object.name);
        let mut bytes = std::fs::read(&path).unwrap();
        let position = usize::try_from(number(0) % object.size).unwrap();
        bytes[position] ^= 1 << (number(8) % 8);
        std::fs::write(&path, &bytes).unwrap();
        let found = findings(&repo, THOROUGH).await;
        assert!(found.iter().any(|finding| finding.object == object.name), "{object:?} byte {position}: {found:?}");
        bytes[position] ^= 1 << (number(8) % 8);
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(findings(&repo, THOROUGH).await, []);
}

#[tokio::test]
async fn foreign_objects_are_told_and_left_alone() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    let foreign = ["README", "domains/default/packs/ab/notes", "domains/other/points/x", "epochs/1", "lost+found/#1"];
    for name in foreign {
        book.swap(name, Some(Bytes::from_static(b"mine")));
    }
    let report = check(&fleet.repo, THOROUGH, &NoProgress, &mut |finding| panic!("{finding:?}")).await.unwrap();
    assert_eq!(report.foreign, foreign.len() as u64);
    let told: BTreeSet<_> = report.foreign_examples.iter().map(String::as_str).collect();
    assert_eq!(told, BTreeSet::from(foreign));
    fixture::publish(&fleet.repo, "next", &contents(&[("a", "1")]), None).await.unwrap();
    assert!(foreign.iter().all(|name| book.read(name).unwrap() == "mine"));
}

#[tokio::test]
async fn reading_back_notices_what_the_store_lost() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "a", &contents(&[("x", "1")]), None).await.unwrap();
    let packs = repo.point(&point_id("a")).await.unwrap().packs;
    repo.verify_packs(&packs).await.unwrap();
    let name = book.names().into_iter().find(|name| name.contains("/packs/")).unwrap();
    let original = book.read(&name).unwrap();
    let mut flipped = original.to_vec();
    flipped[45] ^= 1;
    for changed in [Some(Bytes::from(flipped)), Some(original.slice(1..)), None] {
        book.swap(&name, changed);
        let error = repo.verify_packs(&packs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(&name), "{error}");
    }
}

/// A restore meets each blob of a pack that is gone, and each must not cost a walk over the whole index.
#[tokio::test]
async fn a_pack_that_is_gone_costs_a_few_requests_for_each_of_its_blobs() {
    const OTHER_RUNS: u64 = 10;
    let inner = memory();
    let repo = fixture::create(inner.clone()).await;
    let lost = fixture::publish(&repo, "lost", &contents(&[("x", "1"), ("y", "2")]), None).await.unwrap();
    for run in 0..OTHER_RUNS {
        let text = format!("run {run}");
        fixture::publish(&repo, &format!("other-{run}"), &contents(&[("x", &text)]), None).await.unwrap();
    }
    let pack = lost.table.root.pack.to_string();
    let names = inner.list("").await.unwrap();
    let name = names.into_iter().map(|object| object.name).find(|name| name.ends_with(&pack)).unwrap();
    inner.delete(&name).await.unwrap();
    let counted = Faulty::new(inner, |_, _| Fault::None);
    let repo = Repository::open(counted.store(RetryPolicy::never()), &fixture::passphrase()).await.unwrap();
    let cost = async |blob: &str| {
        let before = counted.requests();
        assert_eq!(repo.read_blob(&lost.blobs[blob]).await.unwrap_err().kind(), ErrorKind::Damaged);
        counted.requests() - before
    };
    cost("x").await;
    assert_eq!(cost("x").await, 1, "it was looked for before");
    assert!(cost("y").await <= 1 + 1 + OTHER_RUNS, "of each run one block at most");
}

/// What recovery points share is read once, and the pages of a tree not twice.
#[tokio::test]
async fn a_check_reads_each_page_once_for_all_recovery_points() {
    let inner = memory();
    let repo = fixture::create(inner.clone()).await;
    let text = |n: u32| (format!("{n:06}"), blake3::hash(&n.to_le_bytes()).as_bytes().to_vec());
    let mut all: fixture::Contents = (0..8000).map(text).collect();
    let mut parent = None;
    let (mut distinct, mut requests) = (0, Vec::new());
    for generation in 0..4 {
        all.insert("000123".to_owned(), format!("generation {generation}").into_bytes());
        parent = Some(fixture::publish(&repo, &format!("point-{generation}"), &all, parent.as_ref()).await.unwrap());
        let counted = Faulty::new(inner.clone(), |_, _| Fault::None);
        let repo = Repository::open(counted.store(RetryPolicy::never()), &fixture::passphrase()).await.unwrap();
        let before = counted.requests();
        let report = check(&repo, STRUCTURE, &NoProgress, &mut |finding| panic!("{finding:?}")).await.unwrap();
        requests.push(counted.requests() - before);
        assert_eq!(report.points, generation + 1);
        distinct = if generation == 0 { report.pages } else { distinct };
        // Of each further recovery point: the way from the root to the changed leaf.
        assert_eq!(report.pages, distinct + generation * 2, "{report:?}");
    }
    println!("requests for 1 to 4 recovery points: {requests:?}, pages of the first: {distinct}");
    assert!(distinct > 10 && requests[3] < requests[0] + 40, "{requests:?}");
}

/// A sample says what it covered, and finds what is wrong there with the recovery points that it hits.
#[tokio::test]
async fn a_sample_reads_a_part_and_names_the_points_hit() {
    let book = OpenBook::default();
    let fleet = fleet(book.store()).await;
    let name =
        book.names().into_iter().find(|name| name.ends_with(&fleet.stored[0].1.table.root.pack.to_string())).unwrap();
    let mut flipped = book.read(&name).unwrap().to_vec();
    flipped[fleet.stored[0].1.blobs["both"].offset as usize] ^= 1;
    book.swap(&name, Some(Bytes::from(flipped)));
    let (mut hit, mut missed) = (0, 0);
    for seed in 0..40 {
        let mut found = Vec::new();
        let sample = Sample { percent: 1.0, seed };
        let report = check_sample(&fleet.repo, sample, &NoProgress, &mut |finding| found.push(finding)).await.unwrap();
        assert_eq!((report.packs, report.packs_read), (3, 1));
        assert!(report.bytes_read < report.pack_bytes && report.bytes_read > 0);
        match found.as_slice() {
            [] => missed += 1,
            [one] => {
                assert_eq!((&one.object, &one.points), (&name, &vec![point_id("base"), point_id("later")]));
                hit += 1;
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(hit > 3 && missed > 3, "{hit} {missed}");
    let sample = Sample { percent: 100.0, seed: 1 };
    let report = check_sample(&fleet.repo, sample, &NoProgress, &mut |_| {}).await.unwrap();
    assert_eq!((report.packs_read, report.bytes_read, report.findings), (3, report.pack_bytes, 1));
}
