//! The rules that are kept, by name, so that the simulation can show for each one what is lost without it.

/// A rule of the protocol. None of them is a setting: every shipped machine keeps all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Rule 1: a replica refuses requests of a lower epoch.
    RefuseLower,
    /// Rule 1: a seal is durable before it is answered.
    SealDurably,
    /// Rule 2: a write is acknowledged when every in-sync replica has it.
    AllInSync,
    /// Rule 2: a laggard is out of the record before a write is acknowledged without it: not when the swap is merely asked for.
    RecordFirst,
    /// Rule 2: a laggard is taken out of the record at all.
    RecordLaggards,
    /// Rule 3: below the minimum, nothing is served.
    Minimum,
    /// Rule 4: what is read is answered under leases of all in-sync replicas alone.
    Lease,
    /// Rule 4: an attachment by force waits until the leases of the one before have ended.
    AwaitLease,
    /// Rule 5: after an unclean detach, replicas are made equal before anything is served.
    MakeEqual,
    /// Rule 5: what replicas are called equal in is durable on all of them.
    SettleDurably,
    /// Rule 5: the source is one that has lost nothing since.
    WholeSource,
    /// Rule 6: what the returning replica wrote itself is copied too.
    CopyOwn,
    /// Rule 6: a returning replica counts after its copied ranges have compared equal.
    Compare,
    /// Rules 6 and 7: how far a replica is complete is what the record says, not what the replica counts.
    CompleteFromRecord,
    /// Rule 7: a replica that has lost its power is not in sync any more, whatever it says.
    DistrustReturner,
    /// Rule 9: an attachment that goes on for the users of one before it ends when no in-sync replica has kept its power since.
    TellUsers,
    /// What was copied is durable before the replica counts.
    ConfirmCopies,
    /// A swap of which nobody knows whether it was done is taken as if it may have been.
    HeedUnresolved,
    /// A request that a replica has executed is not executed again.
    ExecuteOnce,
    /// A request to an earlier run of a replica's process is refused.
    RefuseEarlierSession,
    /// Operations that overlap follow each other.
    OneAtATime,
    /// A flush is answered when every in-sync replica has flushed.
    FlushAll,
    /// What was under way at a change of epoch is written again by all, with the new birth.
    ResendAll,
    /// Rule 10: a snapshot is taken when every in-sync replica has the changes that were asked for before it.
    AwaitEarlier,
    /// Rule 10: changes that were asked for after it wait until every in-sync replica has taken it.
    HoldLater,
    /// Rule 10: a snapshot is in the record when every in-sync replica has it.
    TakenByAll,
    /// Rule 10: it is durable before a replica says that it has it.
    TakeDurably,
    /// Rule 10: in another epoch it is taken anew by all.
    TakeAnew,
    /// Rule 10: what is not in the record yet, and may come into it, is no garbage.
    KeepUnderWay,
    /// Rule 11: the record is larger when every in-sync replica is.
    GrowAll,
    /// Rule 11: a replica that is brought back grows before it counts.
    GrowReturner,
}

/// Whether a rule is kept: always, except in a test that shows what becomes of a volume without it.
#[inline]
pub(crate) fn keeps(rule: Rule) -> bool {
    #[cfg(test)]
    return crate::simulation::keeps(rule);
    #[cfg(not(test))]
    {
        let _ = rule;
        true
    }
}
