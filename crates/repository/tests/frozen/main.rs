//! Repositories of version 1 of the format, made once and never again: what is in them must come back from every later program.
//!
//! Each folder below `tests/fixtures/v1/` has a `repository` and an `expected.json` that says what opens it and what is in it. They are as the
//! program of their day wrote them; when the format gets something new, another fixture is made beside them, by [`make`], which leaves alone
//! those that are there. The independent reader is tried on them too, see `tools/reader/test_reader.py`.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod facts;
#[path = "../shared/literals.rs"]
mod literals;
mod make;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use facts::{Content, Expected, Point};
use repository::check::{CheckOptions, check};
use repository::tree::{self, RestoreOptions};
use repository::volume::{self, Map};
use repository::{NoProgress, Passphrase, PointId, Repository, RetryPolicy, Root, RootKind, StoreConfig};

/// The fixtures, by their folders.
const KINDS: [&str; 7] = ["application", "collected", "keys", "repaired", "streams", "tags-and-pins", "tree"];
const VOLUMES: &str = "volumes";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn config(path: &Path) -> StoreConfig {
    StoreConfig::FileSystem { path: path.to_owned() }
}

async fn open(path: &Path, passphrase: &str) -> Repository {
    let store = config(path).open(RetryPolicy::never()).unwrap();
    Repository::open(store, &Passphrase::new(passphrase)).await.unwrap()
}

/// Restores one content into a target that is not there yet.
async fn restore(repo: &Repository, root: &Root, target: &Path) {
    let progress = Arc::new(NoProgress);
    let map = match root.kind {
        RootKind::Tree => {
            let options = RestoreOptions::default();
            let restored = tree::restore(repo, &root.table, target, &options, progress).await.unwrap();
            assert!(restored.failed.is_empty(), "{restored:?}");
            return;
        }
        RootKind::Volume => Map::volume(repo, root.table, root.bytes),
        RootKind::Stream => Map::stream(repo, root.table, root.bytes),
    };
    volume::restore(&map, target, &volume::RestoreOptions::default(), progress).await.unwrap();
}

/// What a repository has now, in the words of `expected.json`.
async fn found(repo: &Repository, passphrases: &[String], home: &Path) -> Expected {
    let mut points = std::collections::BTreeMap::new();
    for entry in repo.points().await.unwrap() {
        let point = entry.point.unwrap();
        let mut contents = std::collections::BTreeMap::new();
        for (number, root) in point.roots.iter().enumerate() {
            let target = home.join(format!("{}-{number}", point.id));
            restore(repo, root, &target).await;
            contents.insert(root.name.clone(), Content::of(root.kind, &target));
        }
        let mut tables = std::collections::BTreeMap::new();
        for (name, table) in [("objects", point.objects), ("ledger", point.ledger)] {
            if let Some(table) = table {
                tables.insert(name.to_owned(), facts::entries(repo, table).await);
            }
        }
        let pinned = repo.read_pin(&point.id).await.unwrap().map(|pin| pin.reason);
        let tags = point.tags.iter().map(ToString::to_string).collect();
        points.insert(point.id.to_string(), Point { tags, pinned, contents, tables });
    }
    Expected { passphrases: passphrases.to_vec(), points }
}

/// Nothing of a fixture is written to: a copy is looked at.
fn copied(kind: &str, home: &Path) -> (PathBuf, Expected) {
    let fixture = fixtures().join(kind);
    let copy = home.join("repository");
    let status = std::process::Command::new("cp").arg("-r").arg(fixture.join("repository")).arg(&copy).status();
    assert!(status.unwrap().success());
    (copy, Expected::read(&fixture.join("expected.json")))
}

async fn is_as_it_was(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (path, expected) = copied(kind, home.path());
    for (number, passphrase) in expected.passphrases.iter().enumerate() {
        let repo = open(&path, passphrase).await;
        let mut findings = Vec::new();
        let options = CheckOptions { read_data: true };
        check(&repo, options, &NoProgress, &mut |finding| findings.push(finding)).await.unwrap();
        assert_eq!(findings, [], "{kind}");
        let home = home.path().join(number.to_string());
        fs::create_dir(&home).unwrap();
        assert_eq!(found(&repo, &expected.passphrases, &home).await, expected, "{kind}");
    }
    goes_on(&path, &expected).await;
}

/// What is new goes into an old repository, and what is old can be forgotten in it.
async fn goes_on(path: &Path, expected: &Expected) {
    let repo = open(path, &expected.passphrases[0]).await;
    let id: PointId = "next".parse().unwrap();
    make::stream(&repo, &id, b"what is new").await;
    for (name, point) in &expected.points {
        if point.pinned.is_none() {
            repo.forget(&name.parse().unwrap()).await.unwrap();
        }
    }
    let at_once = jiff::SignedDuration::ZERO;
    let options = repository::CollectOptions { dead_after: at_once, dry_run: false };
    repo.collect(&options, &NoProgress).await.unwrap();
    let pinned = expected.points.values().filter(|point| point.pinned.is_some()).count();
    assert_eq!(repo.points().await.unwrap().len(), 1 + pinned);
    check(&repo, CheckOptions { read_data: true }, &NoProgress, &mut |finding| panic!("{finding:?}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_of_version_1_are_read_for_ever() {
    // Only root can give files away as they were.
    sandbox::require_root!();
    for kind in KINDS {
        is_as_it_was(kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_version_1_are_read_for_ever() {
    is_as_it_was(VOLUMES).await;
}

#[test]
fn no_fixture_is_passed_over() {
    let mut there: Vec<_> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, [&KINDS[..], &[VOLUMES]].concat());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "fixtures are made once; UPDATE_FILES=1 and --run-ignored make those that are not there yet"]
async fn make() {
    assert!(std::env::var_os("UPDATE_FILES").is_some_and(|value| value == "1"), "set UPDATE_FILES=1");
    sandbox::require_root!();
    for kind in KINDS.into_iter().chain([VOLUMES]) {
        let fixture = fixtures().join(kind);
        if fixture.exists() {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("repository");
        let passphrases = make::make(kind, &path, home.path()).await;
        let repo = open(&path, &passphrases[0]).await;
        let expected = found(&repo, &passphrases, home.path()).await;
        fs::create_dir_all(&fixture).unwrap();
        let status = std::process::Command::new("cp").arg("-r").args([&path, &fixture.join("repository")]).status();
        assert!(status.unwrap().success());
        // Folders that stay empty are none of the repository's.
        let empty = std::process::Command::new("find").arg(&fixture).args(["-type", "d", "-empty", "-delete"]).status();
        assert!(empty.unwrap().success());
        expected.write(&fixture.join("expected.json"));
    }
}
