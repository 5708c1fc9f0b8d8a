//! Pools that earlier programs have written are read by this one.
//!
//! `tests/data/` has the blocks that are not zeros of a pool of each version: the number of the block in four bytes, then the block. With
//! `UPDATE_FILES=1` that of the current version is written if there is none.

use super::disk::TestDisk;
use super::inline::Inline;
use crate::disk::Disk;
use crate::engine::{self, Admin, Request, Shape};
use crate::format::superblock::VERSION;
use crate::units::{BLOCK, BLOCK_BYTES};
use std::path::PathBuf;

const BLOCKS: u64 = 1024;

/// A volume with a snapshot, a clone, a discard, something in the log, and a deletion that waits for the clone.
fn example() -> Inline {
    let mut pool =
        Inline::shaped(BLOCKS, Shape { id: *b"frozen in time..", log_blocks: Some(64), most_changed_nodes: Some(32) });
    let volume = pool.volume("database", 100_000);
    assert_eq!(pool.write(volume, 10, 3, 1), Some(Ok(())));
    assert_eq!(pool.write(volume, 70_000, 2, 2), Some(Ok(())));
    let snapshot = pool.snapshot(volume, "monday");
    pool.must(Request::Admin(Admin::Clone { snapshot, name: "copy".into() }));
    assert_eq!(pool.write(volume, 11, 1, 3), Some(Ok(())));
    pool.discard(volume, 12, 1);
    pool.must(Request::Admin(Admin::Delete { of: snapshot.into() }));
    pool.checkpoint();
    assert_eq!(pool.write(volume, 500, 1, 4), Some(Ok(())));
    assert_eq!(pool.flush(), Ok(()));
    pool
}

fn path(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/pool-v{version}"))
}

fn blocks_of(disk: &TestDisk) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = vec![0; BLOCK];
    for number in 0..u32::try_from(BLOCKS).unwrap() {
        disk.read(u64::from(number) * BLOCK_BYTES, &mut block).unwrap();
        if block.iter().any(|byte| *byte != 0) {
            bytes.extend(number.to_le_bytes());
            bytes.extend(&block);
        }
    }
    bytes
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test keeps its data in a file")]
fn pools_of_every_version_are_read() {
    let current = path(VERSION);
    if std::env::var("UPDATE_FILES").is_ok_and(|update| update == "1") && !current.exists() {
        std::fs::create_dir_all(current.parent().unwrap()).unwrap();
        std::fs::write(&current, blocks_of(&example().disk)).unwrap();
    }
    for version in 1..=VERSION {
        let bytes = std::fs::read(path(version))
            .expect("there is a pool of every version; UPDATE_FILES=1 makes that of the current one");
        let mut pool = example();
        pool.disk = TestDisk::new(usize::try_from(BLOCKS).unwrap() * BLOCK, 512);
        for block in bytes.chunks_exact(4 + BLOCK) {
            let number = u32::from_le_bytes(block[..4].try_into().unwrap());
            pool.disk.write(u64::from(number) * BLOCK_BYTES, &block[4..]).unwrap();
        }
        pool.engine = engine::open(&pool.disk, 16).unwrap();
        let (volume, size) = pool.engine.find_volume("database").unwrap();
        let (copy, _) = pool.engine.find_volume("copy").unwrap();
        assert_eq!((size, pool.engine.live_states()), (100_000, 2));
        for (start, count, value) in [(10, 1, 1), (11, 1, 3), (12, 1, 0), (70_000, 2, 2), (500, 1, 4), (99_999, 1, 0)] {
            assert!(pool.holds(volume, start, count, value), "block {start} of version {version}");
        }
        assert!(pool.holds(copy, 10, 3, 1) && pool.holds(copy, 70_000, 2, 2) && pool.holds(copy, 500, 1, 0));
        assert_eq!(pool.problems(), []);
    }
}

/// What this program writes today is what it wrote when its version was frozen: a change of the format needs a new version.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test keeps its data in a file")]
fn what_is_written_is_what_was_frozen() {
    let frozen = std::fs::read(path(VERSION)).expect("there is a pool of the current version");
    assert!(
        blocks_of(&example().disk) == frozen,
        "the bytes of a pool have changed; is it a new version of the format?"
    );
}
