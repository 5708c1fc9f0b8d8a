//! Files that vanish, cannot be read or cannot be made; work that is cut off; packs that are damaged.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use repository::store::{ObjectAccess, ObjectInfo};
use repository::tree::{self, RestoreOptions, VerifyOptions, WalkOptions};
use repository::{
    Counters, NoProgress, Passphrase, Progress, Repository, RetryPolicy, Store, StoreError, StoreErrorKind,
};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::CapabilitySet;
use tokio_util::sync::CancellationToken;

use super::support::*;

/// Does something once, when so many files are done.
struct At<F> {
    files: u64,
    done: AtomicU64,
    action: F,
}

impl<F: Fn() + Send + Sync> Progress for At<F> {
    fn add(&self, done: Counters) {
        let before = self.done.fetch_add(done.files, Ordering::SeqCst);
        if (before..before + done.files).contains(&self.files) {
            (self.action)();
        }
    }
}

fn at(files: u64, action: impl Fn() + Send + Sync + 'static) -> Arc<dyn Progress> {
    Arc::new(At { files, done: AtomicU64::new(0), action })
}

fn runtime_without(capabilities: CapabilitySet) -> tokio::runtime::Runtime {
    runtime_with(CapabilitySet::all().difference(capabilities))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_are_counted_and_other_names_of_them_are_read() {
    let world = World::roomy().await;
    let source = world.source();
    // So many that the walk cannot be at the last ones when the first is done.
    for index in 0..3000 {
        fs::write(source.join(format!("a-{index}")), "").unwrap();
    }
    fs::write(source.join("x-first"), "content").unwrap();
    for name in ["y-second", "z-third"] {
        fs::hard_link(source.join("x-first"), source.join(name)).unwrap();
    }
    fs::write(source.join("x-alone"), "content").unwrap();
    let remove = {
        let source = source.clone();
        move || ["x-first", "x-alone"].iter().for_each(|name| fs::remove_file(source.join(name)).unwrap())
    };
    let stored = world.backup_with(None, &settled(), at(1, remove)).await.unwrap();
    assert_eq!((stored.vanished.count, stored.missed.count), (2, 0), "{stored:?}");
    assert_eq!((stored.files, stored.others), (3001, 1));
    world.restore(&stored.root, "target").await;
    assert!(!world.path("target/x-first").exists());
    assert_eq!(fs::read_to_string(world.path("target/y-second")).unwrap(), "content");
    let inode = |name: &str| fs::metadata(world.path("target").join(name)).unwrap().ino();
    assert_eq!(inode("y-second"), inode("z-third"));
}

/// Many programs replace a file by giving its name to a new one; the other names stay with the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_given_to_another_file_takes_the_other_names_not_along() {
    let world = World::roomy().await;
    let source = world.source();
    for index in 0..3000 {
        fs::write(source.join(format!("a-{index}")), "").unwrap();
    }
    fs::write(source.join("x-first"), "old").unwrap();
    for name in ["y-second", "z-third"] {
        fs::hard_link(source.join("x-first"), source.join(name)).unwrap();
    }
    fs::write(world.path("new"), "new content").unwrap();
    let replace = {
        let (new, name) = (world.path("new"), source.join("x-first"));
        move || fs::rename(&new, &name).unwrap()
    };
    // The walk has come to every name before the first file is done.
    let stored = world.backup_with(None, &settled(), at(1, replace)).await.unwrap();
    assert!(stored.is_complete() && stored.vanished.is_empty(), "{stored:?}");
    assert_eq!((stored.files, stored.others), (3002, 1));
    world.restore(&stored.root, "target").await;
    let read = |name: &str| fs::read_to_string(world.path("target").join(name)).unwrap();
    assert_eq!(
        (read("x-first"), read("y-second"), read("z-third")),
        ("new content".into(), "old".into(), "old".into())
    );
    let inode = |name: &str| fs::metadata(world.path("target").join(name)).unwrap().ino();
    assert_eq!(inode("y-second"), inode("z-third"));
}

#[test]
fn files_that_cannot_be_read_are_missed_and_named() {
    runtime_without(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH).block_on(async {
        let world = World::new().await;
        let source = world.source();
        let forbid = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        fs::write(source.join("fine"), "content").unwrap();
        for name in ["small", "small-too"] {
            fs::write(source.join(name), "secret").unwrap();
            forbid(&source.join(name));
        }
        fs::write(source.join("large"), noise(1 << 20, 1)).unwrap();
        forbid(&source.join("large"));
        fs::create_dir(source.join("directory")).unwrap();
        fs::write(source.join("directory/inside"), "").unwrap();
        forbid(&source.join("directory"));
        let stored = world.backup(None).await;
        assert!(!stored.is_complete());
        let missed: Vec<_> = stored.missed.first.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(missed, ["directory", "large", "small", "small-too"]);
        assert!(stored.missed.first[0].what.contains("Permission denied"), "{:?}", stored.missed);
        assert_eq!((stored.files, stored.missed.count), (1, 4));
        fs::set_permissions(source.join("directory"), Permissions::from_mode(0o700)).unwrap();
    });
}

#[test]
fn a_device_that_may_not_be_made_is_an_error_of_its_own() {
    if !is_root() {
        return skip("devices: not root");
    }
    runtime_without(CapabilitySet::MKNOD).block_on(async {
        let world = World::new().await;
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
        let device = rustix::fs::makedev(1, 3);
        if let Err(error) = rustix::fs::mknodat(rustix::fs::CWD, world.source().join("null"), kind, mode, device) {
            return skip(&format!("devices: {error}"));
        }
        fs::write(world.source().join("file"), "content").unwrap();
        let stored = world.backup(None).await;
        let restored = world.restore(&stored.root, "target").await;
        assert_eq!((restored.files, restored.failed.count), (1, 1));
        assert!(restored.failed.first[0].what.contains("MKNOD"), "{:?}", restored.failed);
        assert_eq!(world.differences(&stored.root, "target").await, ["null: it is missing"]);
    });
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_file_systems_are_left_out_unless_asked_for() {
    let world = World::new().await;
    let inner = world.source().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(world.source().join("file"), "content").unwrap();
    if let Err(error) = rustix::mount::mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None) {
        return skip(&format!("mount a file system: {error}"));
    }
    let _mounted = Mounted(inner.clone());
    fs::write(inner.join("file"), "content").unwrap();
    let stored = world.backup(None).await;
    assert_eq!((stored.files, stored.directories), (1, 1));
    assert_eq!((stored.skipped.count, stored.skipped.first[0].path.as_str()), (1, "inner"));
    let mut options = settled();
    options.walk.cross_mounts = true;
    let stored = world.backup_with(None, &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!((stored.files, stored.directories, stored.skipped.count), (2, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_off_goes_on_to_the_same_result() {
    let world = World::new().await;
    let source = world.source();
    for index in 0..300 {
        fs::create_dir(source.join(format!("directory-{index}"))).unwrap();
        fs::write(source.join(format!("directory-{index}/file")), noise(20_000, index)).unwrap();
    }
    fs::write(source.join("a-large"), noise(5 << 20, 7)).unwrap();
    fs::hard_link(source.join("a-large"), source.join("z-other-name")).unwrap();
    symlink("a-large", source.join("link")).unwrap();
    fs::set_permissions(source.join("directory-3"), Permissions::from_mode(0o500)).unwrap();
    let stored = world.backup(None).await;
    for cut in [0, 10, 150, 299] {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let options = RestoreOptions { replace: true, cancel, ..RestoreOptions::default() };
        let progress = at(cut, move || stop.cancel());
        let target = world.path("target");
        let cut_off = tree::restore(&world.repository, &stored.root, &target, &options, progress).await;
        assert!(matches!(cut_off, Err(tree::Error::Cancelled)), "after {cut} files: {cut_off:?}");
    }
    let refused = world.restore_with(&stored.root, "target", &RestoreOptions::default()).await;
    assert!(matches!(refused, Err(tree::Error::TargetNotEmpty { .. })), "{refused:?}");
    let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
    for _ in 0..2 {
        let restored = world.restore_with(&stored.root, "target", &options).await.unwrap();
        assert!(restored.failed.is_empty(), "{restored:?}");
        assert_same(&source, &world.path("target"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_on_with_what_large_files_have_and_believes_nothing_of_it() {
    let world = World::new().await;
    let source = world.source();
    let large = noise(5 << 20, 7);
    for name in ["changed", "cut", "grown", "linked", "same"] {
        fs::write(source.join(name), &large).unwrap();
    }
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(&large, 15 << 20).unwrap();
    fs::write(source.join("small"), noise(20_000, 8)).unwrap();
    let stored = world.backup(None).await;

    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    let at = |name: &str| target.join(name);
    let mut changed = large.clone();
    changed[3 << 20] ^= 1;
    fs::write(at("changed"), changed).unwrap();
    fs::write(at("cut"), &large[..3 << 20]).unwrap();
    fs::write(at("grown"), [&large[..], b"and more"].concat()).unwrap();
    fs::write(world.path("elsewhere"), noise(5 << 20, 9)).unwrap();
    fs::hard_link(world.path("elsewhere"), at("linked")).unwrap();
    fs::write(at("same"), &large).unwrap();
    // Where a hole belongs, there is something.
    fs::write(at("sparse"), [noise(15 << 20, 10), large.clone()].concat()).unwrap();

    let options = RestoreOptions { replace: true, resume: true, ..RestoreOptions::default() };
    let restored = world.restore_with(&stored.root, "target", &options).await.unwrap();
    assert!(restored.failed.is_empty(), "{restored:?}");
    assert_same(&source, &target);
    assert_eq!(world.differences(&stored.root, "target").await, [""; 0]);
    assert_eq!(fs::read(world.path("elsewhere")).unwrap(), noise(5 << 20, 9), "another name of a file is left alone");
    // All of three files, and some of two; a chunk has 4 MiB at most.
    let (least, most) = (15 << 20, (15 << 20) + (5 << 20) + (3 << 20));
    assert!((least..most).contains(&restored.kept_bytes), "{} kept", restored.kept_bytes);

    let again = world.restore_with(&stored.root, "target", &options).await.unwrap();
    assert_eq!(again.kept_bytes, 6 * (5 << 20));
    assert_same(&source, &target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_can_be_cut_off() {
    let world = World::new().await;
    for index in 0..300 {
        fs::write(world.source().join(format!("{index}")), noise(20_000, index)).unwrap();
    }
    let mut options = settled();
    options.cancel = CancellationToken::new();
    let stop = options.cancel.clone();
    let cut_off = world.backup_with(None, &options, at(100, move || stop.cancel())).await;
    assert!(matches!(cut_off, Err(tree::Error::Cancelled)), "{cut_off:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_in_use_is_refused() {
    let world = World::new().await;
    let stored = world.backup(None).await;
    fs::create_dir_all(world.path("target/lost+found")).unwrap();
    fs::write(world.path("target/.marker"), "").unwrap();
    let check = async |ignored: &[&[u8]]| {
        let ignore_at_top = ignored.iter().map(|name| name.to_vec()).collect();
        let options = RestoreOptions { ignore_at_top, ..RestoreOptions::default() };
        world.restore_with(&stored.root, "target", &options).await
    };
    let error = check(&[]).await.unwrap_err();
    assert!(error.to_string().contains(".marker"), "{error}");
    check(&[b".marker"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_were_not_announced_are_an_error() {
    let world = World::new().await;
    fs::write(world.source().join("file"), "content").unwrap();
    let stored = world.backup(None).await;
    let check = async |target: &str, files, bytes, fine: bool| {
        let expected = Some(tree::ExpectedCounts { files, bytes });
        let restored =
            world.restore_with(&stored.root, target, &RestoreOptions { expected, ..Default::default() }).await;
        assert_eq!(restored.is_ok(), fine, "{files} files, {bytes} bytes: {restored:?}");
    };
    check("one", 1, 7, true).await;
    check("two", 2, 7, false).await;
    check("three", 1, 8, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_hits_the_files_whose_bytes_are_damaged_and_no_others() {
    let world = World::new().await;
    for index in 0..8 {
        fs::write(world.source().join(format!("large-{index}")), noise(2 << 20, index)).unwrap();
    }
    let stored = world.backup(None).await;
    let packs: Vec<_> = packs(&world.path("store"));
    assert_eq!(packs.len(), 1, "{packs:?}");
    let mut pack = File::options().read(true).write(true).open(&packs[0]).unwrap();
    let mut byte = [0];
    pack.seek(SeekFrom::Start(3 << 20)).unwrap();
    pack.read_exact(&mut byte).unwrap();
    pack.seek(SeekFrom::Start(3 << 20)).unwrap();
    pack.write_all(&[byte[0] ^ 1]).unwrap();
    let restored = world.restore(&stored.root, "target").await;
    assert_eq!((restored.files, restored.failed.count), (7, 1), "{restored:?}");
    let failed = restored.failed.first[0].clone();
    assert!(!world.path("target").join(&failed.path).exists(), "half a file is left");
    let differences = world.differences(&stored.root, "target").await;
    assert_eq!(differences, [format!("{}: it is missing", failed.path)]);
}

/// A store on a disk with a bad sector in its only pack.
#[derive(Debug)]
struct BadSector {
    inner: Store,
    at: u64,
}

#[async_trait::async_trait]
impl ObjectAccess for BadSector {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        if name.contains("/packs/") && range.contains(&self.at) {
            return Err(StoreError::new(StoreErrorKind::Unreadable, "read", name));
        }
        self.inner.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sector_hits_the_files_whose_bytes_are_there_and_no_others() {
    let world = World::new().await;
    for index in 0..8 {
        fs::write(world.source().join(format!("large-{index}")), noise(2 << 20, index)).unwrap();
    }
    let stored = world.backup(None).await;
    let disk = BadSector { inner: world.repository.store().clone(), at: 3 << 20 };
    let store = Store::new(disk, "a bad disk", RetryPolicy::never());
    let repository = Repository::open(store, &Passphrase::new("for tests")).await.unwrap();
    let (options, target) = (RestoreOptions::default(), world.path("target"));
    let restored = tree::restore(&repository, &stored.root, &target, &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!((restored.files, restored.failed.count), (7, 1), "{restored:?}");
}

/// What was taken over from an earlier tree is in packs that nobody has read since.
#[tokio::test(flavor = "multi_thread")]
async fn content_in_a_pack_that_is_gone_is_missed_without_reading_it() {
    let world = World::new().await;
    let content = noise(2 << 20, 1);
    fs::write(world.source().join("large"), &content).unwrap();
    let first = world.backup(None).await;
    let old = packs(&world.path("store"));
    fs::write(world.source().join("small"), "new").unwrap();
    let second = world.backup(Some(&first.root)).await;
    assert!(second.new_bytes < content.len() as u64 / 2, "{second:?}");
    let verify = async |references| {
        let options = VerifyOptions { references, ..VerifyOptions::default() };
        tree::verify(&world.repository, &second.root, None, &options, Arc::new(NoProgress)).await
    };
    verify(true).await.unwrap();
    for pack in &old {
        fs::remove_file(pack).unwrap();
    }
    verify(false).await.unwrap();
    let error = verify(true).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("missing"), "{error}");
}

fn packs(store: &Path) -> Vec<PathBuf> {
    let mut packs = Vec::new();
    let mut open = vec![store.join("domains/default/packs")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { packs.push(path) }
        }
    }
    packs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_finds_every_kind_of_difference() {
    let world = World::new().await;
    let source = world.source();
    for name in ["content", "gone", "mode", "size", "time", "kind", "xattr", "linked"] {
        fs::write(source.join(name), "content").unwrap();
    }
    fs::hard_link(source.join("linked"), source.join("name")).unwrap();
    symlink("content", source.join("symlink")).unwrap();
    let stored = world.backup(None).await;
    let keep_time = |name: &str, change: &dyn Fn(&Path)| {
        let path = source.join(name);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        change(&path);
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    };
    keep_time("content", &|path| fs::write(path, "CONTENT").unwrap());
    keep_time("size", &|path| fs::write(path, "contents").unwrap());
    keep_time("mode", &|path| fs::set_permissions(path, Permissions::from_mode(0o601)).unwrap());
    keep_time("name", &|path| {
        fs::remove_file(path).unwrap();
        fs::write(path, "content").unwrap();
    });
    File::options().write(true).open(source.join("time")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_file(source.join("gone")).unwrap();
    fs::write(source.join("extra"), "").unwrap();
    fs::remove_file(source.join("kind")).unwrap();
    fs::create_dir(source.join("kind")).unwrap();
    let xattr = rustix::fs::lsetxattr(source.join("xattr"), "user.new", b"1", rustix::fs::XattrFlags::empty());
    fs::remove_file(source.join("symlink")).unwrap();
    symlink("elsewhere", source.join("symlink")).unwrap();
    let mut expected = vec!["content", "extra", "gone", "kind", "mode", "name", "size", "symlink", "time"];
    match xattr {
        Ok(()) => expected.push("xattr"),
        Err(error) => skip(&format!("a comparison of attributes: {error}")),
    }
    let options = VerifyOptions { walk: WalkOptions::default(), ..VerifyOptions::default() };
    let progress = Arc::new(NoProgress);
    let found = tree::verify(&world.repository, &stored.root, Some(&source), &options, progress).await.unwrap();
    // The top itself has another time by now.
    let mut names: Vec<_> =
        found.differences.first.iter().map(|one| &one.path[..]).filter(|path| *path != ".").collect();
    names.sort();
    assert_eq!(names, expected, "{:?}", found.differences);
}
