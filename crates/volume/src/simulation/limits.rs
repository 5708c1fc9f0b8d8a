//! What must end, and what must be left, however little room there is.

use super::inline::Inline;
use crate::engine::{Answer, Request};
use crate::error::Error;

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
        match pool.ask(Request::Snapshot { volumes }) {
            Some(Err(error @ Error::Failed { .. })) => assert!(error.to_string().contains("room"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(pool.holds(volume, 0, 10, 1), "reading goes on");
    pool.reopen().unwrap();
    assert!(pool.holds(volume, 0, 10, 1));
    assert!(matches!(pool.ask(Request::Checkpoint { clean: false }), Some(Ok(Answer::Done))));
}
