//! Each rule of the engine left out, which the simulation must notice.

use super::number;
use super::run::Run;
use super::{Tested, without};
use crate::engine::Rule;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds among which a broken rule is noticed.
const SEEDS: u64 = 600;

fn is_noticed(rule: Rule) {
    let limit = number("ORLOP_SIM_SEEDS").unwrap_or(SEEDS);
    let run = |seed| catch_unwind(AssertUnwindSafe(|| without(rule, || Run::<Tested>::all(seed))));
    let noticed = (0..limit).find_map(|seed| match run(seed) {
        Ok(Ok(_)) => None,
        Ok(Err(what)) => Some((seed, what)),
        Err(panic) => Some((seed, panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panics".into()))),
    });
    match noticed {
        Some((seed, what)) => println!("without {rule:?}, seed {seed}: {what}"),
        None => panic!("{rule:?} can be broken without anybody noticing it, in {limit} seeds"),
    }
}

macro_rules! broken {
    ($($name:ident: $rule:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_noticed(Rule::$rule);
            }
        )*
    };
}

broken! {
    a_flush_that_does_not_flush_is_noticed: FlushLog,
    a_superblock_before_its_pages_is_noticed: FlushPages,
    a_superblock_that_is_not_flushed_is_noticed: FlushSuperblock,
    an_answer_before_the_log_has_it_is_noticed: LogFirst,
    a_map_before_its_data_is_noticed: DataFirst,
    a_freed_block_that_is_used_at_once_is_noticed: HoldFreed,
    a_freed_block_that_is_used_while_it_is_read_is_noticed: HoldRead,
    a_snapshot_in_the_same_epoch_is_noticed: BumpEpoch,
    a_replay_of_data_that_is_not_there_is_noticed: CheckReplayed,
    a_log_of_an_earlier_opening_is_noticed: NewGeneration,
    a_log_that_is_written_over_too_early_is_noticed: KeepLog,
    a_discard_that_is_not_logged_is_noticed: LogDiscards,
    a_superblock_written_over_the_last_one_is_noticed: AlternateSuperblocks,
    a_space_map_written_over_the_last_one_is_noticed: AlternatePages,
    a_grown_pool_that_is_used_too_early_is_noticed: HoldGrown,
    records_that_share_a_sector_are_noticed: WholeSectors,
    a_deletion_of_what_the_next_state_shares_is_noticed: KeepShared,
    a_deletion_of_what_the_state_before_shares_is_noticed: KeepOlder,
    a_deletion_of_what_was_cloned_is_noticed: KeepCloned,
}
