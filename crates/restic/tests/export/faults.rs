//! What may go wrong with an export.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use repository::{Counters, NoProgress, Progress};
use restic::{Error, format};
use tokio_util::sync::CancellationToken;

use super::support::{Place, noise, require_restic};

/// Ends the work when so many bytes were read.
struct Stop {
    after: AtomicU64,
    cancel: CancellationToken,
}

impl Progress for Stop {
    fn add(&self, done: Counters) {
        let left = self.after.load(Ordering::Relaxed).saturating_sub(done.bytes);
        self.after.store(left, Ordering::Relaxed);
        if left == 0 {
            self.cancel.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_ended_leaves_a_good_repository_and_goes_on_where_it_was() {
    require_restic!();
    let place = Place::new().await;
    for number in 0..10 {
        fs::write(place.path("data").join(number.to_string()), noise(8 << 20, number)).unwrap();
    }
    let point = place.backup("first").await;
    let options = place.options();
    let stop = Stop { after: AtomicU64::new(45 << 20), cancel: options.cancel.clone() };
    let ended = place.try_export(std::slice::from_ref(&point), options, Arc::new(stop)).await;
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert!(place.snapshots().is_empty());
    place.check();
    let exported = place.export(&[point]).await;
    assert!(exported[0].new_bytes < 40 << 20 && exported[0].bytes == 80 << 20, "{exported:?}");
    place.check();
}

/// All files of a repository, in the order in which they were written.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    // The clock of a file system ticks every few milliseconds: of files of one tick the order is the one that is right.
    let kinds = ["keys", "config", "data", "index", "snapshots"];
    let kind = |path: &PathBuf| kinds.iter().position(|kind| path.iter().any(|part| part == *kind));
    files.sort_by_key(|path| (fs::metadata(path).unwrap().modified().unwrap(), kind(path)));
    files
}

/// Files are written whole and in one order, so a crash leaves a number of the first of them: each number is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_file_leaves_what_restic_accepts_and_the_next_export_ends_well() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), noise(40 << 20, 1)).unwrap();
    let point = place.backup("first").await;
    place.export(std::slice::from_ref(&point)).await;
    let whole = place.path("whole");
    fs::rename(place.path("restic"), &whole).unwrap();
    let written = files(&whole);
    let kinds: Vec<_> = written.iter().map(|path| path.strip_prefix(&whole).unwrap().iter().next().unwrap()).collect();
    assert_eq!(kinds, ["keys", "config", "data", "data", "data", "data", "index", "snapshots"], "{written:?}");
    for count in 1..=written.len() {
        fs::create_dir(place.path("restic")).unwrap();
        for folder in ["data", "index", "snapshots", "keys", "locks", "tmp"] {
            fs::create_dir(place.path("restic").join(folder)).unwrap();
        }
        fs::write(place.path("restic/tmp/orlop-unfinished"), "half").unwrap();
        for path in &written[..count] {
            let target = place.path("restic").join(path.strip_prefix(&whole).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
        if count >= 2 {
            let said = place.restic(&["check", "--read-data"]);
            assert!(said.contains("no errors were found"), "{count}: {said}");
            assert_eq!(place.snapshots().len(), usize::from(count == written.len()), "{count}");
        }
        let exported = place.export(std::slice::from_ref(&point)).await;
        assert_eq!(exported[0].existed, count == written.len());
        assert!(!place.path("restic/tmp/orlop-unfinished").exists());
        let said = place.restic(&["check", "--read-data"]);
        assert!(said.contains("no errors were found"), "{count}: {said}");
        assert_eq!(place.snapshots().len(), 1);
        fs::remove_dir_all(place.path("restic")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_source_ends_the_export_and_no_snapshot_is_written() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), noise(4 << 20, 1)).unwrap();
    let point = place.backup("first").await;
    let packs = files(&place.path("orlop/domains/default/packs"));
    let pack = packs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    bytes[2 << 20] ^= 1;
    fs::set_permissions(pack, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(pack, bytes).unwrap();
    let ended = place.try_export(&[point], place.options(), Arc::new(NoProgress)).await;
    assert!(matches!(&ended, Err(Error::Tree(error)) if error.is_damage()), "{ended:?}");
    place.check();
    assert!(place.snapshots().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_into_is_refused_and_left_alone() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), "x").unwrap();
    let point = place.backup("first").await;
    let export = async || place.try_export(std::slice::from_ref(&point), place.options(), Arc::new(NoProgress)).await;
    let target = place.path("restic");

    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine"), "mine").unwrap();
    let refused = export().await;
    assert!(matches!(refused, Err(Error::Target(format::Error::NotARepository { .. }))), "{refused:?}");
    assert_eq!(files(&target), [target.join("mine")]);
    fs::remove_dir_all(&target).unwrap();

    place.restic(&["init", "--repository-version", "1"]);
    let refused = export().await;
    assert!(matches!(refused, Err(Error::Target(format::Error::OtherVersion { found: 1, .. }))), "{refused:?}");
    fs::remove_dir_all(&target).unwrap();

    export().await.unwrap();
    let before = files(&target);
    let mut options = place.options();
    options.password = "open barley".to_owned();
    let refused = place.try_export(std::slice::from_ref(&point), options, Arc::new(NoProgress)).await;
    assert!(matches!(refused, Err(Error::Target(format::Error::WrongPassword { keys: 1, .. }))), "{refused:?}");
    assert_eq!(files(&target), before);
    // A repository whose configuration is lost is not made anew over what is in it.
    fs::remove_file(target.join("config")).unwrap();
    let refused = export().await;
    assert!(matches!(refused, Err(Error::Target(format::Error::NotARepository { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_lock_is_held_while_it_runs_and_keeps_an_exclusive_one_away() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), noise(4 << 20, 1)).unwrap();
    let point = place.backup("first").await;
    place.export(&[point]).await;
    let open = || format::Repository::open_or_create(&place.path("restic"), b"open sesame", "exporter");
    let held = open().unwrap();
    let refused = place.try_restic(&["prune"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("already locked"), "{said}");
    assert!(said.contains("exporter") && said.contains(&std::process::id().to_string()), "{said}");
    let other = open().unwrap();
    other.close().unwrap();
    held.close().unwrap();
    place.restic(&["prune"]);
}
