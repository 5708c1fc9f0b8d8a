//! A mover from job to outcome, on volumes that are folders, and in `images` on devices.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod images;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use mover::{Direction, FailureKind, Form, Job, Lines, MARKER_NAME, MESSAGE_BYTES, Outcome, Stored, run, run_process};
use repository::tree::{ExpectedCounts, TreeSummary};
use repository::{
    PackId, Passphrase, PointId, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Source, Stats, StoreConfig,
    TableRef,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The name of the volume in recovery points.
const CONTENT: &str = "shop/data";

/// A backup without a parent.
fn first_backup() -> Direction {
    Direction::Backup { point: "run".parse().unwrap(), parents: Vec::new(), content: CONTENT.to_owned() }
}

/// A folder with a repository, and with volumes that are folders beside it.
struct World {
    home: TempDir,
    /// The recovery points that backups were made for, by what they stored.
    runs: Mutex<Vec<(Option<TableRef>, PointId)>>,
}

/// Where the lines of a mover go.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = StoreConfig::FileSystem { path: home.path().join("store") };
        let store = store.open(RetryPolicy::default()).unwrap();
        Repository::create(store, &Passphrase::new("secret")).await.unwrap();
        Self { home, runs: Mutex::default() }
    }

    /// A volume with these files, made if it is not there.
    fn volume(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let volume = self.home.path().join(name);
        fs::create_dir_all(volume.join("data")).unwrap();
        for (file, content) in files {
            fs::write(volume.join("data").join(file), content).unwrap();
        }
        volume
    }

    fn empty(&self, name: &str) -> PathBuf {
        let volume = self.home.path().join(name);
        fs::create_dir(&volume).unwrap();
        volume
    }

    fn job(&self, volume: PathBuf, direction: Direction) -> Job {
        let store = StoreConfig::FileSystem { path: self.home.path().join("store") };
        // A volume that is a folder has files, anything else is an image.
        let form = if volume.exists() && !volume.is_dir() { Form::Image } else { Form::Files };
        Job { store, passphrase: Passphrase::new("secret"), volume, form, direction }
    }

    /// Makes a backup, with an earlier one as its parent, which is published for that.
    async fn backup(&self, volume: PathBuf, parent: Option<&Outcome>) -> Outcome {
        let parents = match parent {
            Some(parent) => vec![self.publish(parent).await],
            None => Vec::new(),
        };
        let point: PointId = format!("run-{}", self.runs.lock().unwrap().len()).parse().unwrap();
        let direction = Direction::Backup { point: point.clone(), parents, content: CONTENT.to_owned() };
        let outcome = run_quietly(&self.job(volume, direction)).await;
        self.runs.lock().unwrap().push((outcome.root(), point));
        outcome
    }

    async fn publish(&self, outcome: &Outcome) -> PointId {
        let stored = outcome.backup.clone().unwrap();
        let (kind, table, files, bytes) = match &stored.stored {
            Stored::Files(tree) => (RootKind::Tree, tree.root, tree.files, tree.bytes),
            Stored::Image { volume, .. } => (RootKind::Volume, volume.root, 0, volume.bytes),
        };
        let runs = self.runs.lock().unwrap().clone();
        let (_, id) = runs.into_iter().find(|(root, _)| *root == outcome.root()).unwrap();
        let store = StoreConfig::FileSystem { path: self.home.path().join("store") };
        let store = store.open(RetryPolicy::default()).unwrap();
        let repository = Repository::open(store, &Passphrase::new("secret")).await.unwrap();
        let time = "2026-11-22T10:00:00Z".parse().unwrap();
        let root = Root {
            name: CONTENT.to_owned(),
            kind,
            table,
            files,
            bytes,
            changed_while_read: 0,
            started: time,
            finished: time,
            claim: None,
        };
        let point = RecoveryPoint {
            version: RecoveryPoint::VERSION,
            id: id.clone(),
            created: time,
            source: Source::Paths { host: "ship".to_owned() },
            tags: repository::Tags::default(),
            complete: true,
            objects: None,
            ledger: None,
            roots: vec![root],
            sessions: stored.sessions,
            packs: stored.packs.read(&repository).await.unwrap(),
            stats: Stats::default(),
        };
        repository.publish(&point).await.unwrap();
        id
    }

    async fn restore(&self, volume: PathBuf, stored: &Outcome) -> Outcome {
        run_quietly(&self.job(volume, restore_of(stored))).await
    }
}

async fn run_quietly(job: &Job) -> Outcome {
    run(job, &Lines::new(io::sink()), &CancellationToken::new()).await
}

fn restore_of(stored: &Outcome) -> Direction {
    let (files, bytes) = match &stored.backup.as_ref().unwrap().stored {
        Stored::Files(tree) => (tree.files, tree.bytes),
        Stored::Image { volume, .. } => (0, volume.bytes),
    };
    let (root, expected) = (stored.root().unwrap(), ExpectedCounts { files, bytes });
    Direction::Restore { root, expected, resumes: false }
}

fn tree_of(outcome: &Outcome) -> &TreeSummary {
    let Stored::Files(tree) = &outcome.backup.as_ref().unwrap().stored else { panic!("an image: {outcome:?}") };
    tree
}

fn kind(outcome: &Outcome) -> Option<FailureKind> {
    outcome.failure.as_ref().map(|failure| failure.kind)
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(len / 8).flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_moves_into_the_repository_and_out_again() {
    let world = World::new().await;
    let volume = world.volume("volume", &[("table", &noise(3 << 20)), ("empty", b"")]);
    let stored = world.backup(volume.clone(), None).await;
    assert!(stored.ok && stored.failure.is_none(), "{stored:?}");
    let target = world.empty("target");
    fs::create_dir(target.join("lost+found")).unwrap();
    let filled = world.restore(target.clone(), &stored).await;
    assert!(filled.ok && filled.failure.is_none(), "{filled:?}");
    assert_eq!(fs::read(target.join("data/table")).unwrap(), noise(3 << 20));
    assert!(!target.join(MARKER_NAME).exists());
    let modified = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(modified(target), modified(volume), "the top has its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_in_use_is_refused_and_left_alone() {
    let world = World::new().await;
    let stored = world.backup(world.volume("volume", &[("a", b"1")]), None).await;
    let used = world.volume("used", &[("precious", b"keep me")]);
    let refused = world.restore(used.clone(), &stored).await;
    assert_eq!((refused.ok, kind(&refused)), (false, Some(FailureKind::VolumeNotEmpty)), "{refused:?}");
    assert_eq!(fs::read(used.join("data/precious")).unwrap(), b"keep me");
    assert_eq!(fs::read_dir(&used).unwrap().count(), 1, "no marker is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_restore_is_neither_stored_nor_filled_from_another_tree_and_goes_on_from_its_own() {
    let world = World::new().await;
    let stored = world.backup(world.volume("volume", &[("a", b"first"), ("b", b"second")]), None).await;
    let other = world.backup(world.volume("other", &[("c", b"third")]), None).await;
    let target = world.empty("target");
    let job = world.job(target.clone(), restore_of(&stored));
    // Cut off before anything is filled: what stays is a marked volume.
    let cancel = CancellationToken::new();
    cancel.cancel();
    let cut_off = run(&job, &Lines::new(io::sink()), &cancel).await;
    assert_eq!(kind(&cut_off), Some(FailureKind::Stopped), "{cut_off:?}");
    assert!(cut_off.failure.unwrap().retryable);
    assert!(target.join(MARKER_NAME).exists());
    // As if it had been cut off later.
    fs::create_dir(target.join("data")).unwrap();
    fs::write(target.join("data/a"), "fi").unwrap();
    let as_source = world.backup(target.clone(), None).await;
    assert_eq!(kind(&as_source), Some(FailureKind::UnfinishedRestore));
    let from_other = world.restore(target.clone(), &other).await;
    assert_eq!(kind(&from_other), Some(FailureKind::UnfinishedRestore));
    let filled = world.restore(target.clone(), &stored).await;
    assert!(filled.ok, "{filled:?}");
    assert_eq!(fs::read(target.join("data/a")).unwrap(), b"first");
    assert!(!target.join(MARKER_NAME).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_stores_what_changed() {
    let world = World::new().await;
    let volume = world.volume("volume", &[("large", &noise(8 << 20)), ("small", b"1")]);
    let first = world.backup(volume.clone(), None).await;
    fs::write(volume.join("data/small"), "2").unwrap();
    let second = world.backup(volume, Some(&first)).await;
    let tree = tree_of(&second);
    assert!(tree.new_bytes < 10_000, "{tree:?}");
    assert_eq!(tree.files, 2);
}

/// What an increment takes over was written by others, long ago, and may be gone since.
#[tokio::test(flavor = "multi_thread")]
async fn an_increment_on_what_is_gone_is_stored_whole() {
    let world = World::new().await;
    // The first pack is full of content, the second has the rest and the tree.
    let content = noise(40 << 20);
    let volume = world.volume("volume", &[("large", &content), ("small", b"1")]);
    let first = world.backup(volume.clone(), None).await;
    let listed = first.backup.as_ref().unwrap().packs.listed.clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    fs::write(volume.join("data/small"), "2").unwrap();
    let pack = |id: &PackId| world.home.path().join(format!("store/domains/default/packs/{:02x}/{id}", id.writer.0[0]));
    fs::remove_file(pack(&listed[0].id)).unwrap();
    let second = world.backup(volume, Some(&first)).await;
    assert!(second.ok, "{second:?}");
    let tree = tree_of(&second);
    assert!(tree.parent_lost.as_ref().is_some_and(|why| why.contains("missing")), "{tree:?}");
    let filled = world.restore(world.empty("target"), &second).await;
    assert!(filled.ok, "{filled:?}");
    assert_eq!(fs::read(world.home.path().join("target/data/large")).unwrap(), content);
}

/// Pages that are equal are shared by their identity, without reading what there is of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_of_the_parent_is_not_handed_on() {
    let world = World::new().await;
    let volume = world.volume("volume", &[("small", b"1")]);
    let first = world.backup(volume.clone(), None).await;
    let root = first.root().unwrap().root;
    let name = format!("store/domains/default/packs/{:02x}/{}", root.pack.writer.0[0], root.pack);
    let path = world.home.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[root.offset as usize + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    let second = world.backup(volume, Some(&first)).await;
    assert!(second.ok, "{second:?}");
    assert_ne!(second.root().unwrap().root.pack, root.pack);
    let filled = world.restore(world.empty("target"), &second).await;
    assert!(filled.ok, "{filled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let world = World::new().await;
    let volume = world.volume("volume", &[("a", b"1")]);
    let stored = world.backup(volume.clone(), None).await;
    let check = async |change: &dyn Fn(&mut Job), direction: Direction, expected: FailureKind, retryable: bool| {
        let mut job = world.job(volume.clone(), direction);
        change(&mut job);
        let outcome = run_quietly(&job).await;
        let failure = outcome.failure.unwrap();
        assert_eq!((outcome.ok, failure.kind, failure.retryable), (false, expected, retryable), "{}", failure.error);
    };
    let backup = first_backup();
    check(&|job| job.passphrase = Passphrase::new("wrong"), backup.clone(), FailureKind::WrongPassphrase, false).await;
    let elsewhere = StoreConfig::FileSystem { path: world.empty("no-repository") };
    check(&|job| job.store = elsewhere.clone(), backup.clone(), FailureKind::NotARepository, false).await;
    check(&|job| job.volume = "/does/not/exist".into(), backup, FailureKind::Volume, false).await;
    let target = world.empty("target");
    let tree = tree_of(&stored);
    let expected = ExpectedCounts { files: tree.files + 1, bytes: tree.bytes };
    let wrong = Direction::Restore { root: tree.root, expected, resumes: false };
    check(&|job| job.volume = target.clone(), wrong, FailureKind::Different, false).await;
    assert!(target.join(MARKER_NAME).exists(), "a volume that is not right stays marked");
    let mut lost = tree.root;
    lost.root.pack.sequence = 99;
    lost.root.id.0[0] ^= 1;
    let target = world.empty("target-too");
    let missing = Direction::Restore { root: lost, expected, resumes: false };
    check(&|job| job.volume = target.clone(), missing, FailureKind::Damaged, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_leaves_its_outcome_in_the_message_and_the_last_line() {
    let world = World::new().await;
    let volume = world.volume("volume", &[("a", b"1")]);
    let job = world.job(volume, first_backup());
    let (job_file, message) = (world.home.path().join("job"), world.home.path().join("message"));
    let check = async |job: Vec<u8>, expected: ExitCode, expected_kind: Option<FailureKind>| {
        fs::write(&job_file, job).unwrap();
        fs::write(&message, "x".repeat(2 * MESSAGE_BYTES)).unwrap();
        let output = Output::default();
        let code = run_process(&job_file, &message, Lines::new(output.clone())).await;
        assert_eq!(format!("{code:?}"), format!("{expected:?}"));
        let outcome: Outcome = serde_json::from_slice(&fs::read(&message).unwrap()).unwrap();
        assert_eq!((outcome.ok, kind(&outcome)), (expected_kind.is_none(), expected_kind));
        let lines = output.lines();
        assert_eq!(serde_json::from_value::<Outcome>(lines.last().unwrap().clone()).unwrap(), outcome);
        lines
    };
    let lines = check(serde_json::to_vec(&job).unwrap(), ExitCode::SUCCESS, None).await;
    assert!(lines.iter().any(|line| line["phase"] == "store" && line["bytes"].is_u64()), "{lines:?}");
    assert!(lines.iter().any(|line| line["phase"] == "readBack" && line["totalBytes"].is_u64()), "{lines:?}");
    check(b"{\"store\": 1}".to_vec(), ExitCode::FAILURE, Some(FailureKind::Job)).await;
}

/// Sends SIGTERM to this process when the first line is written: by then the mover watches for it.
struct TerminateAtFirstLine {
    sent: bool,
}

impl Write for TerminateAtFirstLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.sent {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
            self.sent = true;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_work_with_an_outcome() {
    let world = World::new().await;
    let volume = world.volume("volume", &[]);
    let content = noise(16 << 20);
    for index in 0..6 {
        fs::write(volume.join(format!("data/{index}")), &content[index..]).unwrap();
    }
    let job = world.job(volume, first_backup());
    let (job_file, message) = (world.home.path().join("job"), world.home.path().join("message"));
    fs::write(&job_file, serde_json::to_vec(&job).unwrap()).unwrap();
    let code = run_process(&job_file, &message, Lines::new(TerminateAtFirstLine { sent: false })).await;
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    let outcome: Outcome = serde_json::from_slice(&fs::read(&message).unwrap()).unwrap();
    assert_eq!((outcome.ok, kind(&outcome)), (false, Some(FailureKind::Stopped)), "{outcome:?}");
}
