//! What the engine is used with, and the rules that it keeps.

use crate::memory::Memory;

/// A rule of the engine.
///
/// Every rule holds in every shipped engine: none of them is a setting. They have names so that the simulation can show, for each one, that
/// a pool is lost without it; see `docs/formats/volume-store.md` for what they demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A flush is answered after the device has flushed.
    FlushLog,
    /// The pages of a checkpoint are flushed before its superblock is written.
    FlushPages,
    /// A checkpoint counts as durable when its superblock has been flushed.
    FlushSuperblock,
    /// A write is put into the map and the log when its data has been written.
    DataFirst,
    /// A freed block is given out again when a checkpoint without it is durable.
    HoldFreed,
    /// A freed block is given out again when nobody reads it any more.
    HoldRead,
    /// A snapshot ends the epoch of its volume.
    BumpEpoch,
    /// What is read is compared with its checksum.
    CheckSums,
    /// A change is answered when the log has it, flushed or not: whoever is answered may outlive the process, as the kernel does, and goes on with what
    /// he has written.
    LogFirst,
    /// At replay, the data of what may not be durable is compared with its checksums.
    CheckReplayed,
    /// Each opening has a generation of its own, and replays the records of the one before it only.
    NewGeneration,
    /// The log is written over only as far as a durable checkpoint has taken it in.
    KeepLog,
    /// Discards are logged.
    LogDiscards,
    /// Superblocks take turns between two places.
    AlternateSuperblocks,
    /// Pages of the space map take turns between two places.
    AlternatePages,
    /// What a pool has grown by is given out when a checkpoint that says so is durable.
    HoldGrown,
    /// A sector of the log has no more than one record.
    WholeSectors,
    /// A deletion leaves what the next state of the line shares.
    KeepShared,
    /// A deletion leaves what the state before shares.
    KeepOlder,
    /// What was cloned stays until its clones are gone.
    KeepCloned,
}

/// Who asks the engine.
pub(crate) trait World: 'static {
    /// How an answer finds the one who asked.
    type Tag: Send;
    /// What data travels in.
    type Memory: Memory;

    /// A map contradicts what is told of used blocks: damage, which is not let spread. Where nothing was damaged, a test takes it as a defect.
    fn contradicts(_what: &dyn std::fmt::Display) {}

    /// Whether a rule is kept: always, except in a test that shows what becomes of a pool without it.
    #[inline]
    fn keeps(_rule: Rule) -> bool {
        true
    }
}

/// The engine as it is shipped.
pub(crate) struct Shipped<M>(std::marker::PhantomData<M>);

impl<M: Memory> World for Shipped<M> {
    /// The number of a callback that the pool keeps ([`crate::pool`]), so that it is called even if the engine does not come to it.
    type Tag = usize;
    type Memory = M;
}
