//! What the second run costs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use repository::NoProgress;
use repository::tree::{self, BackupOptions};

use super::support::*;

async fn world_with_files() -> World {
    let world = World::new().await;
    for directory in 0..10 {
        let path = world.source().join(format!("directory-{directory}"));
        fs::create_dir(&path).unwrap();
        for file in 0..100 {
            fs::write(path.join(format!("file-{file}")), noise(2000, directory * 100 + file)).unwrap();
        }
    }
    fs::write(world.source().join("large"), noise(24 << 20, 1)).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_second_run_stores_nothing_and_reads_nothing() {
    let world = world_with_files().await;
    let first = world.backup(None).await;
    assert!(first.new_bytes > 26 << 20);
    let second = world.backup(Some(&first.root)).await;
    assert_eq!(second.unchanged_files, 1001);
    assert_eq!((second.root, second.new_bytes), (first.root, 0));
    assert_eq!((second.files, second.directories, second.bytes), (first.files, first.directories, first.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_give_the_same_bundles_and_pages_without_a_parent() {
    let world = world_with_files().await;
    let writer = world.repository.writer(&"scratch".parse().unwrap()).await.unwrap();
    let mut roots = Vec::new();
    for _ in 0..2 {
        let (source, progress) = (world.source(), Arc::new(NoProgress));
        let stored = tree::backup(&writer, &world.repository, &source, None, &settled(), progress).await.unwrap();
        assert_eq!(stored.unchanged_files, 0);
        roots.push((stored.root, stored.new_bytes > 0));
    }
    writer.finish().await.unwrap();
    assert_eq!(roots[1], (roots[0].0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_costs_about_what_was_changed() {
    let world = world_with_files().await;
    let first = world.backup(None).await;
    let large = File::options().write(true).open(world.source().join("large")).unwrap();
    large.write_all_at(b"changed", 10 << 20).unwrap();
    fs::write(world.source().join("directory-5/file-7"), "new content").unwrap();
    fs::remove_file(world.source().join("directory-6/file-8")).unwrap();
    fs::write(world.source().join("directory-6/new"), "new file").unwrap();
    let second = world.backup(Some(&first.root)).await;
    assert_eq!((second.files, second.unchanged_files), (1001, 998));
    // One or two chunks of the large file, a bundle of two small ones, a page or two.
    assert!((1..10 << 20).contains(&second.new_bytes), "{}", second.new_bytes);
    world.restore(&second.root, "target").await;
    assert_same(&world.source(), &world.path("target"));
    world.restore(&first.root, "first").await;
    assert!(world.path("first/directory-6/file-8").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_attributes_alone_is_seen() {
    let world = World::new().await;
    fs::write(world.source().join("file"), noise(2 << 20, 1)).unwrap();
    let first = world.backup(None).await;
    let mut permissions = fs::metadata(world.source().join("file")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(world.source().join("file"), permissions).unwrap();
    let second = world.backup(Some(&first.root)).await;
    assert_eq!(second.unchanged_files, 0);
    assert!(second.new_bytes < 4096, "{}: its chunks are known", second.new_bytes);
    world.restore(&second.root, "target").await;
    assert_same(&world.source(), &world.path("target"));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_a_file_changed_shortly_before_the_run_prove_nothing() {
    let world = World::new().await;
    fs::write(world.source().join("file"), "content").unwrap();
    let changed = jiff::Timestamp::now();
    // What is written through a memory mapping has its old times until the kernel has written the page: 35 s by default.
    let check = async |seconds, unchanged, why| {
        let options = BackupOptions::new(changed + jiff::SignedDuration::from_secs(seconds));
        let first = world.backup_with(None, &options, Arc::new(NoProgress)).await.unwrap();
        let second = world.backup(Some(&first.root)).await;
        assert_eq!(second.unchanged_files, unchanged, "{seconds} s: {why}");
    };
    for seconds in [0, 3, 35, 59] {
        check(seconds, 0, "it is read again").await;
    }
    check(61, 1, "it is taken over").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_all_the_time_is_named_and_read_again_next_time() {
    let world = World::new().await;
    fs::write(world.source().join("quiet"), "content").unwrap();
    let path = world.source().join("busy");
    fs::write(&path, noise(16 << 20, 1)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (path, stop) = (path.clone(), stop.clone());
        move || {
            let file = File::options().write(true).open(path).unwrap();
            let mut round = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                file.write_all_at(&round.to_le_bytes(), round % (16 << 20)).unwrap();
                round += 1;
            }
        }
    });
    let first = world.backup(None).await;
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    assert_eq!(first.changed_while_read.count, 1);
    assert_eq!(first.changed_while_read.first[0].path, "busy");
    assert!(first.is_complete());
    let second = world.backup(Some(&first.root)).await;
    assert_eq!((second.unchanged_files, second.changed_while_read.count), (1, 0));
    world.restore(&second.root, "target").await;
    assert_same(&world.source(), &world.path("target"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_cannot_be_read_costs_space_and_nothing_else() {
    let world = world_with_files().await;
    let first = world.backup(None).await;
    let mut lost = first.root;
    lost.root.pack.sequence = 77;
    lost.root.id.0[0] ^= 1;
    let second = world.backup(Some(&lost)).await;
    assert_eq!((second.files, second.unchanged_files, second.is_complete()), (1001, 0, true));
    assert!(second.parent_lost.is_some());
    world.restore(&second.root, "target").await;
    assert_same(&world.source(), &world.path("target"));
}
