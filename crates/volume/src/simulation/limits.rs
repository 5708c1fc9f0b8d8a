//! What must end, and what must be left, however little room there is.

use super::inline::Inline;
use crate::engine::{Admin, Answer, Request};
use crate::error::Error;
use crate::memory::Buffer;
use crate::units::{BLOCK, MOST_REQUEST};

#[test]
fn a_device_that_refuses_data_leaves_room_for_checkpoints() {
    let mut pool = Inline::new(2048);
    let volume = pool.volume("v", 4096);
    assert_eq!(pool.write(volume, 0, 250, 1), Some(Ok(())));
    pool.checkpoint();
    let free = pool.engine.usage().free;
    for round in 0..3 {
        pool.disk.set_unwritable(0..u64::MAX);
        let refused = pool.write(volume, 300, 10, 2);
        assert!(matches!(refused, Some(Err(Error::Unwritable { .. }))), "{refused:?} in round {round}");
        pool.disk.heal();
        let again = pool.write(volume, 0, 1, 1);
        assert_eq!(again, Some(Ok(())), "nothing is avoided for ever");
        pool.checkpoint();
    }
    assert!(pool.engine.usage().free + 20 > free, "{:?} of {free}", pool.engine.usage());
    pool.reopen().unwrap();
    assert!(pool.holds(volume, 0, 250, 1));
    assert_eq!(pool.problems(), []);
}

#[test]
fn what_a_refused_write_had_is_free_again() {
    let mut pool = Inline::new(8192);
    let volume = pool.volume("v", 4096);
    let free = pool.engine.usage().free;
    // One place only: the write goes elsewhere at the second try, and four places around are avoided.
    pool.disk.set_unwritable(800 * 4096..801 * 4096);
    let mut at = 0;
    while pool.notices.is_empty() {
        assert_eq!(pool.write(volume, at, 100, 1), Some(Ok(())));
        at += 100;
    }
    let nodes = 64;
    assert!(pool.engine.usage().free + at + 4 + nodes >= free, "{:?} of {free}, {at} written", pool.engine.usage());
    assert!(pool.holds(volume, 0, usize::try_from(at).unwrap(), 1));
}

#[test]
fn a_checkpoint_without_room_is_an_error() {
    let mut pool = Inline::new(2048);
    let volume = pool.volume("v", 4096);
    assert_eq!(pool.write(volume, 0, 10, 1), Some(Ok(())));
    assert_eq!(pool.flush(), Ok(()));
    pool.engine.use_up();
    for volumes in [vec![(volume, "s".to_owned())], vec![]] {
        match pool.ask(Request::Admin(Admin::Snapshot { volumes })) {
            Some(Err(error @ Error::Failed { .. })) => assert!(error.to_string().contains("room"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(pool.holds(volume, 0, 10, 1), "reading goes on");
    pool.reopen().unwrap();
    assert!(pool.holds(volume, 0, 10, 1));
    assert!(matches!(pool.ask(Request::Admin(Admin::Checkpoint { clean: false })), Some(Ok(Answer::Done))));
}

#[test]
fn what_no_pool_of_this_size_can_take_is_refused_and_holds_nobody_up() {
    let mut pool = Inline::new(2048);
    let volume = pool.volume("v", 100_000);
    let refused = |pool: &mut Inline, count| match pool.write(volume, 0, count, 1) {
        Some(Err(Error::TooLong { bytes, most })) => (bytes, most),
        other => panic!("{other:?}"),
    };
    let too_long = MOST_REQUEST / BLOCK + 1;
    assert_eq!(refused(&mut pool, too_long), (too_long * BLOCK, MOST_REQUEST));
    let (_, most) = refused(&mut pool, 2048);
    assert_eq!(pool.write(volume, 0, 1, 1), Some(Ok(())), "others go on");
    // The longest that can be admitted to an empty pool is.
    pool.discard(volume, 0, 1);
    (0..2).for_each(|_| pool.checkpoint());
    let count = most / BLOCK - 8;
    assert_eq!(pool.write(volume, 0, count, 2), Some(Ok(())));
    let into = Buffer::zeroed(too_long * BLOCK);
    let read = pool.ask(Request::Read { of: volume.into(), start: 0, into });
    assert!(matches!(read, Some(Err(Error::TooLong { most: MOST_REQUEST, .. }))), "{read:?}");
}

#[test]
fn a_read_ends_however_few_nodes_are_kept() {
    let mut pool =
        Inline::shaped(32_768, crate::engine::Shape { id: [3; 16], log_blocks: None, most_changed_nodes: None });
    let volume = pool.volume("v", 20_000);
    let count = MOST_REQUEST / BLOCK;
    for start in (0..12_000).step_by(1000) {
        assert_eq!(pool.write(volume, start, 1000, 7), Some(Ok(())));
    }
    pool.checkpoint();
    pool.reopen_with(16).unwrap();
    let read = pool.disk.counts().1;
    assert!(pool.holds(volume, 100, count, 7));
    // Each node is read about once, not again and again.
    let read = (pool.disk.counts().1 - read) / BLOCK as u64;
    assert!(read < count as u64 + 200, "{read} blocks");
}
