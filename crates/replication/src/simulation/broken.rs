//! Each rule broken once: then the simulation fails, most within the seeds of the ordinary run. (That what is under way at a change of epoch is written again
//! matters in one world of thousands: `attachment::tests` has that one.)

use super::{run, without};
use crate::rules::Rule;

/// Seeds that are tried until one shows it; `make sim` runs many more of those that are whole.
const SEEDS: u64 = 1000;

/// The first seed whose world shows that the rule is missing.
fn caught(rule: Rule) -> Result<(u64, String), String> {
    let caught = (0..SEEDS).find_map(|seed| {
        let what = std::panic::catch_unwind(|| without(rule, || run(seed)));
        super::BROKEN.set(None);
        match what {
            Ok(Ok(_)) => None,
            Ok(Err(what)) => Some((seed, what)),
            Err(_) => Some((seed, "a panic".into())),
        }
    });
    caught.ok_or_else(|| format!("no world of {SEEDS} shows that {rule:?} is broken"))
}

macro_rules! broken {
    ($($name:ident: $rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let (seed, what) = caught(Rule::$rule).unwrap_or_else(|what| panic!("{what}"));
                println!("without {:?}, seed {seed}: {what}", Rule::$rule);
            }
        )*
    };
}

broken! {
    lower_epochs_accepted: RefuseLower,
    seals_that_are_not_durable: SealDurably,
    acknowledged_by_most: AllInSync,
    acknowledged_before_the_record: RecordFirst,
    acknowledged_around_laggards: RecordLaggards,
    the_minimum_ignored: Minimum,
    reads_without_a_lease: Lease,
    no_wait_for_the_lease: AwaitLease,
    not_made_equal: MakeEqual,
    any_source: WholeSource,
    own_writes_of_the_returner_left: CopyOwn,
    copies_not_compared: Compare,
    complete_by_own_count: CompleteFromRecord,
    the_returner_trusted: DistrustReturner,
    users_not_told: TellUsers,
    copies_not_durable: ConfirmCopies,
    unresolved_swaps_forgotten: HeedUnresolved,
    executed_twice: ExecuteOnce,
    earlier_sessions_heard: RefuseEarlierSession,
    overlapping_at_once: OneAtATime,
    flushed_by_most: FlushAll,
    a_snapshot_among_earlier_changes: AwaitEarlier,
    a_snapshot_among_later_changes: HoldLater,
    a_snapshot_of_some: TakenByAll,
    a_snapshot_that_is_not_durable: TakeDurably,
    a_snapshot_of_several_epochs: TakeAnew,
    a_snapshot_under_way_removed: KeepUnderWay,
    larger_in_the_record_first: GrowAll,
    the_returner_not_larger: GrowReturner,
}
