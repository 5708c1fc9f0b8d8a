//! Repair: what is damaged is taken from where its bytes still are, and then nothing is wrong any more.

use crate::damage::{STRUCTURE, THOROUGH, findings};
use crate::faults::{Fault, Faulty, OpenBook, Request};
use crate::fixture::{self, Contents, contents, point_id};
use bytes::Bytes;
use repository::copy::copy;
use repository::repair::{RepairOptions, RepairReport, RepairSources, repair};
use repository::{CollectOptions, NoProgress, Repository, RetryPolicy, StoreErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Two recovery points that share some of their content, in a repository whose objects can be changed.
struct Patient {
    book: OpenBook,
    repo: Repository,
    first: Contents,
    second: Contents,
}

async fn patient() -> Patient {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let first = contents(&[("both", "in both of them"), ("first", "only in the first"), ("spread", "in a table")]);
    let stored = fixture::publish(&repo, "first", &first, None).await.unwrap();
    let second = contents(&[("both", "in both of them"), ("second", "only in the second")]);
    fixture::publish(&repo, "second", &second, Some(&stored)).await.unwrap();
    Patient { book, repo, first, second }
}

impl Patient {
    /// Another repository with copies of both.
    async fn copied(&self) -> Repository {
        let there = fixture::create(OpenBook::default().store()).await;
        for name in ["first", "second"] {
            let (progress, cancel) = (Arc::new(NoProgress), CancellationToken::new());
            copy(&self.repo, &there, &point_id(name), progress, &cancel).await.unwrap();
        }
        there
    }

    fn packs(&self) -> Vec<String> {
        self.book.names().into_iter().filter(|name| name.contains("/packs/")).collect()
    }

    fn flip(&self, name: &str, position: usize) {
        let mut bytes = self.book.read(name).unwrap().to_vec();
        bytes[position] ^= 0x10;
        self.book.swap(name, Some(Bytes::from(bytes)));
    }

    /// Nothing is wrong, and both come back, also for somebody who opens the repository anew.
    async fn is_well(&self) {
        let repo = Repository::open(self.book.store(), &fixture::passphrase()).await.unwrap();
        assert_eq!(findings(&repo, THOROUGH).await, []);
        assert_eq!(findings(&repo, STRUCTURE).await, []);
        assert_eq!(fixture::restore(&repo, "first").await.unwrap(), self.first);
        assert_eq!(fixture::restore(&repo, "second").await.unwrap(), self.second);
    }

    async fn repair(&self, from: Option<&Repository>, dry_run: bool) -> RepairReport {
        let sources = RepairSources { from: from.cloned(), living: BTreeMap::new() };
        let options = RepairOptions { dry_run, ..RepairOptions::default() };
        repair(&self.repo, &sources, &options, &NoProgress).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_well_is_left_alone() {
    let patient = patient().await;
    let before = patient.book.names();
    let report = patient.repair(None, false).await;
    assert_eq!(report, RepairReport::default());
    assert_eq!(patient.book.names(), before);
}

/// With copies elsewhere, any one byte of any pack may be changed, and any pack may be gone.
#[tokio::test]
async fn every_damage_of_a_pack_is_healed_from_copies() {
    let patient = patient().await;
    let there = patient.copied().await;
    let whole: Vec<_> = patient.book.names();
    for name in patient.packs() {
        let original = patient.book.read(&name).unwrap();
        for position in (0..original.len()).step_by(3).map(Some).chain([None]) {
            match position {
                Some(position) => patient.flip(&name, position),
                None => _ = patient.book.swap(&name, None),
            }
            let report = patient.repair(Some(&there), false).await;
            assert_eq!(report.left, [], "{name} byte {position:?}: {report:?}");
            assert!(!report.is_nothing(), "{name} byte {position:?}");
            assert!(patient.book.read(&name).is_none(), "what is damaged is gone: {name} byte {position:?}");
            patient.is_well().await;
            for added in patient.book.names().iter().filter(|name| !whole.contains(name)) {
                patient.book.swap(added, None);
            }
            patient.book.swap(&name, Some(original.clone()));
        }
    }
}

/// No recovery point names what a repair stores: its mark keeps that from a collector.
#[tokio::test]
async fn what_a_repair_stored_survives_collections() {
    let patient = patient().await;
    let there = patient.copied().await;
    patient.flip(&patient.packs()[0], 45);
    assert_eq!(patient.repair(Some(&there), false).await.left, []);
    let packs = patient.packs();
    let collect = async || patient.repo.collect(&CollectOptions::default(), &NoProgress).await.unwrap();
    collect().await;
    collect().await;
    assert_eq!(patient.packs(), packs);
    patient.is_well().await;
    // Without the mark it goes: so it is the mark that keeps it.
    let mark = patient.book.names().into_iter().find(|name| name.contains("/repairs/")).unwrap();
    patient.book.swap(&mark, None);
    assert!(collect().await.packs > 0);
}

/// A copy of the objects themselves, with the same keys, has also what no index knows of.
#[tokio::test]
async fn a_mirror_heals_even_without_an_index() {
    let patient = patient().await;
    let mirror = OpenBook::default();
    for name in patient.book.names() {
        mirror.swap(&name, patient.book.read(&name));
    }
    let mirror = Repository::open(mirror.store(), &fixture::passphrase()).await.unwrap();
    for name in patient.book.names().into_iter().filter(|name| name.contains("/index/")) {
        patient.book.swap(&name, None);
    }
    let pack = patient.packs()[0].clone();
    patient.book.swap(&pack, None);
    let report = patient.repair(Some(&mirror), false).await;
    assert_eq!(report.left, []);
    assert!(report.packs_indexed > 0 && report.copied_blobs > 0, "{report:?}");
    patient.is_well().await;
}

#[tokio::test]
async fn without_a_place_that_has_the_bytes_nothing_is_deleted_and_the_points_are_named() {
    let patient = patient().await;
    let name = patient.packs()[0].clone();
    patient.flip(&name, 45);
    let before = patient.book.names();
    let found = findings(&patient.repo, THOROUGH).await;
    for dry_run in [true, false] {
        let report = patient.repair(None, dry_run).await;
        assert_eq!(report.deleted, [""; 0], "{report:?}");
        assert_eq!(report.left.len(), 1, "{report:?}");
        assert_eq!((&report.left[0].object, &report.left[0].points), (&name, &found[0].points));
        if dry_run {
            assert_eq!(patient.book.names(), before);
        }
    }
    assert!(patient.book.read(&name).is_some());
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let patient = patient().await;
    let there = patient.copied().await;
    let name = patient.packs()[0].clone();
    patient.flip(&name, 45);
    let before: Vec<_> = patient.book.names();
    let would = patient.repair(Some(&there), true).await;
    assert_eq!(patient.book.names(), before);
    assert_eq!((would.deleted.as_slice(), would.left.as_slice()), ([name.clone()].as_slice(), [].as_slice()));
    let did = patient.repair(Some(&there), false).await;
    assert_eq!(did, would);
}

/// What is stored elsewhere is read from there, while the damaged pack stays where nobody may delete.
#[tokio::test]
async fn a_damaged_pack_that_cannot_be_deleted_stands_aside() {
    let patient = patient().await;
    let there = patient.copied().await;
    let name = patient.packs()[0].clone();
    let book = patient.book.clone();
    for position in [3, 45, book.read(&name).unwrap().len() - 1] {
        let original = book.read(&name).unwrap();
        patient.flip(&name, position);
        let guarded = Faulty::new(book.store(), |_, request| match request {
            Request::Delete => Fault::Refused(StoreErrorKind::AccessDenied),
            _ => Fault::None,
        });
        let repo = Repository::open(guarded.store(RetryPolicy::never()), &fixture::passphrase()).await.unwrap();
        let sources = RepairSources { from: Some(there.clone()), living: BTreeMap::new() };
        let report = repair(&repo, &sources, &RepairOptions::default(), &NoProgress).await.unwrap();
        assert_eq!(report.kept.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name], "{report:?}");
        let left: Vec<_> = report.left.iter().map(|finding| (&finding.object, finding.points.len())).collect();
        assert_eq!(left, [(&name, 0)], "it is damaged, and hits nobody");
        assert_eq!(fixture::restore(&repo, "first").await.unwrap(), patient.first);
        assert_eq!(fixture::restore(&repo, "second").await.unwrap(), patient.second);
        book.swap(&name, Some(original));
    }
}

#[tokio::test]
async fn lost_and_damaged_index_runs_are_made_again() {
    let patient = patient().await;
    let runs: Vec<_> = patient.book.names().into_iter().filter(|name| name.contains("/index/")).collect();
    assert_eq!(runs.len(), 2);
    patient.book.swap(&runs[0], None);
    patient.flip(&runs[1], 60);
    let would = patient.repair(None, true).await;
    assert_eq!((would.packs_indexed, would.deleted.as_slice()), (2, [runs[1].clone()].as_slice()));
    let report = patient.repair(None, false).await;
    assert_eq!((report.packs_indexed, report.deleted, report.left), (2, vec![runs[1].clone()], vec![]));
    patient.is_well().await;
    assert_eq!(patient.repair(None, false).await, RepairReport::default());
}

/// What a repair has stored may be damaged in turn.
#[tokio::test]
async fn what_was_repaired_is_repaired_again() {
    let patient = patient().await;
    let there = patient.copied().await;
    let mut known = patient.packs();
    patient.book.swap(&known[0], None);
    for _ in 0..3 {
        assert_eq!(patient.repair(Some(&there), false).await.left, []);
        let packs = patient.packs();
        let new = packs.iter().find(|name| !known.contains(name)).unwrap();
        patient.flip(new, 45);
        known.extend(packs.clone());
        assert!(!findings(&patient.repo, THOROUGH).await.is_empty());
    }
    assert_eq!(patient.repair(Some(&there), false).await.left, []);
    patient.is_well().await;
}

/// A repair that stops at some request is completed by the next one.
#[tokio::test]
async fn a_repair_that_is_cut_off_anywhere_can_be_repeated() {
    let patient = patient().await;
    let there = patient.copied().await;
    let name = patient.packs()[0].clone();
    patient.flip(&name, 45);
    // Opening takes most of the time, so only some of the requests.
    for stop in (3..).step_by(5) {
        let trial = OpenBook::default();
        for name in patient.book.names() {
            trial.swap(&name, patient.book.read(&name));
        }
        let cut = Faulty::new(trial.store(), move |number, _| match number {
            number if number < stop => Fault::None,
            _ => Fault::Refused(StoreErrorKind::Unreachable),
        });
        let sources = RepairSources { from: Some(there.clone()), living: BTreeMap::new() };
        let options = RepairOptions::default();
        let ended = match Repository::open(cut.store(RetryPolicy::never()), &fixture::passphrase()).await {
            Ok(repo) => repair(&repo, &sources, &options, &NoProgress).await.is_ok(),
            Err(_) => false,
        };
        let repo = Repository::open(trial.store(), &fixture::passphrase()).await.unwrap();
        assert_eq!(repair(&repo, &sources, &options, &NoProgress).await.unwrap().left, [], "cut off at {stop}");
        let again = Patient { book: trial, repo, first: patient.first.clone(), second: patient.second.clone() };
        again.is_well().await;
        if ended {
            break;
        }
    }
}

/// The mark that keeps a collector from what was repaired is checked as every other object is; that it is damaged hits nobody.
#[tokio::test]
async fn the_mark_of_a_repair_is_checked() {
    let patient = patient().await;
    let there = patient.copied().await;
    patient.flip(&patient.packs()[0], 45);
    assert_eq!(patient.repair(Some(&there), false).await.left, []);
    let marks: Vec<_> = patient.book.names().into_iter().filter(|name| name.contains("/repairs/")).collect();
    assert_eq!(marks.len(), 1);
    let known = |name: &String| name.contains(marks[0].rsplit('/').next().unwrap()) && name.contains("/index/");
    assert!(patient.book.names().iter().any(known), "it has the name of the session");
    for position in 0..patient.book.read(&marks[0]).unwrap().len() {
        patient.flip(&marks[0], position);
        let found = findings(&patient.repo, STRUCTURE).await;
        assert_eq!((found.len(), &found[0].object, found[0].points.len()), (1, &marks[0], 0), "byte {position}");
        patient.flip(&marks[0], position);
    }
    patient.is_well().await;
}
