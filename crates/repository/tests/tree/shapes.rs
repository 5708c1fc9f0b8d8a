//! Trees of unusual shape.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_in_one_directory_come_back() {
    let world = World::roomy().await;
    fs::create_dir(world.source().join("many")).unwrap();
    for index in 0..10_000_u32 {
        fs::write(world.source().join(format!("many/{index}")), index.to_le_bytes()).unwrap();
    }
    let (stored, _) = world.round_trip("target").await;
    assert_eq!(stored.files, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_deeper_than_a_path_may_be_long_come_back() {
    const LEVELS: usize = 500;
    const NAME: &str = "a-name-of-some-length";
    const { assert!(LEVELS * NAME.len() > 2 * 4096) };
    let world = World::new().await;
    let enter = |directory: &OwnedFd| {
        mkdirat(directory, NAME, Mode::RWXU).unwrap();
        openat(directory, NAME, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let mut directory = openat(CWD, world.source(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..LEVELS {
        // Files on both sides of the way down, so that the walk comes back to every level.
        for name in ["Z-before", "z-after"] {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            let file = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR).unwrap();
            rustix::io::write(&file, format!("{name} at {level}").as_bytes()).unwrap();
        }
        directory = enter(&directory);
    }
    let stored = world.backup(None).await;
    assert!(stored.is_complete(), "{:?}", stored.missed);
    assert_eq!((stored.files, stored.directories), (2 * LEVELS as u64, LEVELS as u64 + 1));
    let restored = world.restore(&stored.root, "target").await;
    assert!(restored.failed.is_empty(), "{:?}", restored.failed);
    assert_eq!((restored.files, restored.directories), (stored.files, stored.directories));
    assert_eq!(world.differences(&stored.root, "target").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_is_a_tree() {
    let world = World::new().await;
    let (stored, restored) = world.round_trip("target").await;
    assert_eq!((stored.files, stored.directories, restored.directories), (0, 1, 1));
}
