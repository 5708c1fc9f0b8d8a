//! What the engine is used with, and the rules that it keeps.

use crate::memory::Memory;

/// Who asks the engine, and the rules that make it safe.
///
/// Every rule holds in every shipped engine: none of them is a setting. They have names so that the simulation can show, for each one, that
/// a pool is lost without it; see `docs/formats/volume-store.md` for what they demand.
pub(crate) trait World: 'static {
    /// How an answer finds the one who asked.
    type Tag: Send;
    /// What data travels in.
    type Memory: Memory;

    /// A flush is answered after the device has flushed.
    const FLUSH_LOG: bool = true;
    /// The pages of a checkpoint are flushed before its superblock is written.
    const FLUSH_PAGES: bool = true;
    /// A checkpoint counts as durable when its superblock has been flushed.
    const FLUSH_SUPERBLOCK: bool = true;
    /// A write is put into the map and the log when its data has been written.
    const DATA_FIRST: bool = true;
    /// A freed block is given out again when a checkpoint without it is durable.
    const HOLD_FREED: bool = true;
    /// A freed block is given out again when nobody reads it any more.
    const HOLD_READ: bool = true;
    /// A snapshot ends the epoch of its volume.
    const BUMP_EPOCH: bool = true;
    /// What is read is compared with its checksum.
    const CHECK_SUMS: bool = true;
    /// At replay, the data of what may not be durable is compared with its checksums.
    const CHECK_REPLAYED: bool = true;
    /// Each opening has a generation of its own, and replays the records of the one before it only.
    const NEW_GENERATION: bool = true;
    /// The log is written over only as far as a durable checkpoint has taken it in.
    const KEEP_LOG: bool = true;
    /// Discards are logged.
    const LOG_DISCARDS: bool = true;
    /// Superblocks take turns between two places.
    const ALTERNATE_SUPERBLOCKS: bool = true;
    /// Pages of the space map take turns between two places.
    const ALTERNATE_PAGES: bool = true;
    /// A deletion leaves what the next state of the line shares.
    const KEEP_SHARED: bool = true;
    /// A deletion leaves what the state before shares.
    const KEEP_OLDER: bool = true;
    /// What was cloned stays until its clones are gone.
    const KEEP_CLONED: bool = true;
}

/// The engine as it is shipped.
pub(crate) struct Shipped<M>(std::marker::PhantomData<M>);

/// Whom an answer goes to.
pub(crate) type Callback<M> = Box<dyn FnOnce(Result<super::Answer<M>, crate::error::Error>) + Send>;

impl<M: Memory> World for Shipped<M> {
    type Tag = Callback<M>;
    type Memory = M;
}
