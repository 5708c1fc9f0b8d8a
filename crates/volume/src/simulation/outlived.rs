//! Whoever is answered may outlive the process.

use super::inline::Inline;
use super::random::Random;
use crate::engine::{Admin, Request, Shape};

const SMALL: Shape = Shape { id: [6; 16], log_blocks: Some(64), most_changed_nodes: Some(32) };

/// Writes, discards, snapshots and checkpoints without a single flush; each time the process ends in between, all is there.
#[test]
fn all_that_was_answered_is_there_when_the_process_ends() {
    let mut random = Random::new(11);
    let mut pool = Inline::shaped(2048, SMALL);
    let volume = pool.volume("v", 500);
    let mut expected = vec![0; 500];
    for round in 1..400_u64 {
        let start = random.below(500);
        let count = (1 + random.below(40)).min(500 - start);
        let blocks = usize::try_from(start).unwrap()..usize::try_from(start + count).unwrap();
        match random.below(20) {
            0..4 => {
                pool.discard(volume, start, count);
                expected[blocks].fill(0);
            }
            4 if round % 3 == 0 => pool.checkpoint(),
            5 => {
                let snapshot = pool.snapshot(volume, "s");
                pool.must(Request::Admin(Admin::Delete { of: snapshot.into() }));
            }
            _ => {
                assert_eq!(pool.write(volume, start, usize::try_from(count).unwrap(), round), Some(Ok(())));
                expected[blocks].fill(round);
            }
        }
        if random.chance(15) {
            // The disk goes on with what it was given: only what the process had in its memory is gone.
            pool.reopen().unwrap();
            for (block, value) in expected.iter().enumerate() {
                assert!(pool.holds(volume, block as u64, 1, *value), "block {block} in round {round}");
            }
        }
    }
    assert_eq!(pool.problems(), []);
}
