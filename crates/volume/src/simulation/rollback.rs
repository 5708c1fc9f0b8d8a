//! A volume becomes what it was, or stays what it is, wherever a crash falls.

use super::inline::Inline;
use super::random::Random;
use crate::engine::{Admin, Answer, Request, Shape};
use crate::error::Error;
use crate::units::{SnapshotId, TreeId, VolumeId};

const SMALL: Shape = Shape { id: [5; 16], log_blocks: Some(64), most_changed_nodes: Some(32) };

/// A volume with two snapshots and something newer than both.
fn example() -> (Inline, VolumeId, SnapshotId) {
    let mut pool = Inline::shaped(1024, SMALL);
    let volume = pool.volume("v", 100);
    assert_eq!(pool.write(volume, 0, 50, 1), Some(Ok(())));
    let first = pool.snapshot(volume, "first");
    assert_eq!(pool.write(volume, 10, 50, 2), Some(Ok(())));
    pool.snapshot(volume, "second");
    assert_eq!(pool.write(volume, 20, 50, 3), Some(Ok(())));
    assert_eq!(pool.flush(), Ok(()));
    (pool, volume, first)
}

fn is_first(pool: &mut Inline, of: TreeId) -> bool {
    pool.holds(of, 0, 50, 1) && pool.holds(of, 50, 50, 0)
}

fn is_second(pool: &mut Inline, of: TreeId) -> bool {
    pool.holds(of, 0, 10, 1) && pool.holds(of, 10, 50, 2) && pool.holds(of, 60, 40, 0)
}

fn is_latest(pool: &mut Inline, of: TreeId) -> bool {
    pool.holds(of, 0, 10, 1) && pool.holds(of, 10, 10, 2) && pool.holds(of, 20, 50, 3) && pool.holds(of, 70, 30, 0)
}

#[test]
fn a_volume_goes_on_from_a_snapshot_and_all_snapshots_stay() {
    let (mut pool, volume, first) = example();
    let Answer::Created(now) = pool.must(Request::Admin(Admin::Rollback { volume, snapshot: first })) else {
        panic!("it is made")
    };
    assert_eq!(pool.engine.find_volume("v"), Some((now.into(), 100)));
    assert!(is_first(&mut pool, now.into()), "it is what it was");
    assert_eq!(pool.write(now, 0, 5, 4), Some(Ok(())));
    for _ in 0..50 {
        pool.checkpoint();
    }
    let (second, ..) = pool.engine.find_snapshot("second").unwrap();
    assert!(is_first(&mut pool, first.into()) && is_second(&mut pool, second), "snapshots do not change");
    assert!(pool.holds(now, 0, 5, 4) && pool.holds(now, 5, 45, 1));
    assert_eq!(pool.read(volume, 0, 1), Err(Error::NoVolume(volume)), "the id of what it was is gone");
    assert_eq!(pool.problems(), []);
}

#[test]
fn what_is_not_there_is_refused_and_nothing_changes() {
    let (mut pool, volume, first) = example();
    let missing = SnapshotId(99);
    let refused = pool.ask(Request::Admin(Admin::Rollback { volume, snapshot: missing }));
    assert!(matches!(refused, Some(Err(Error::NoSnapshot(id))) if id == missing), "{refused:?}");
    let refused = pool.ask(Request::Admin(Admin::Rollback { volume: VolumeId(98), snapshot: first }));
    assert!(matches!(refused, Some(Err(Error::NoVolume(_)))), "{refused:?}");
    assert!(is_latest(&mut pool, volume.into()));
}

#[test]
fn a_crash_leaves_the_one_or_the_other() {
    let (mut old, mut new) = (0, 0);
    for operation in 0.. {
        let (mut pool, volume, first) = example();
        pool.disk.set_fuse(Some(operation));
        let answer = pool.ask(Request::Admin(Admin::Rollback { volume, snapshot: first }));
        let was_done = matches!(answer, Some(Ok(_)));
        pool.disk.crash(&mut Random::new(operation));
        pool.reopen().unwrap();
        let (now, blocks) = pool.engine.find_volume("v").expect("there is one of the name, always");
        assert_eq!(blocks, 100);
        if is_first(&mut pool, now) {
            new += 1;
        } else {
            assert!(!was_done && is_latest(&mut pool, now), "cut after {operation} operations");
            old += 1;
        }
        let (second, ..) = pool.engine.find_snapshot("second").unwrap();
        assert!(is_second(&mut pool, second) && is_first(&mut pool, first.into()));
        assert_eq!(pool.problems(), [], "cut after {operation} operations");
        if was_done {
            break;
        }
    }
    assert!(old > 2 && new > 0, "{old} times it stayed, {new} times it went back");
}
