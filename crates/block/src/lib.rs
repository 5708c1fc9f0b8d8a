//! What stands between block devices and those who serve them.
//!
//! ```text
//! NBD server ─┐                        ┌─ the store of volumes
//! FUSE + loop ┼─► Device::read(…, Done) ┼─ a volume of a recovery point
//! tests      ─┘   ◄─ Done::finish(…)    └─ memory, files
//! ```
//! A [`Device`] is given a request and a [`Done`] to call when it is finished: at once, in the thread that asked, when the bytes are in
//! memory; later, from whatever thread learns that a disk is ready, when they are not. Why not futures: a device on a disk finishes a
//! request in the thread that reaps the disk's answers. A future would have to wake a task there and be polled in another thread before
//! the answer is sent; a callback sends it from where it is.
//!
//! Bytes travel in a [`Buffer`], aligned so that disks without a cache take it, and from a [`Pool`], so that a device in the path of
//! writing memory back does not allocate for each request. A buffer belongs to one side at a time; nothing is copied on the way.

mod buffer;
mod device;
mod done;
mod patience;
#[cfg(feature = "testing")]
pub mod testing;

pub use buffer::{Buffer, PAGE, Pool};
pub use device::{
    ALLOCATION, BlockSizes, CHANGED, ContextQuery, Description, Device, Failure, FailureKind, Features, HOLE, Status,
    ZERO, ZeroMode,
};
pub use done::Done;
pub use patience::{be_patient, is_patient};
