//! Block devices of this node, out of devices of any kind.
//!
//! ```text
//! file system ─► /dev/loopN ─► one file of FUSE ─► kernel ═ /dev/fuse ═► threads ─► block::Device
//!                 direct I/O, blocks of 4096 bytes           │
//!                                                            └─ a second descriptor lies with the keeper
//! ```
//! A [`Host`] attaches and detaches devices; [`KeeperServer`] is the process that lets a host be replaced while file systems are mounted. The
//! protocol is spoken over `/dev/fuse` itself, without a library: it is a dozen of requests, and what matters here, one descriptor for all
//! threads and requests that are repeated, no library has.
//!
//! * **The mount is nowhere.** No folder, no namespace and no list of mounts has it; the loop device holds it alone.
//! * **A restart is no error.** What the dead server had read and not answered, the kernel sends again to the next one. Every request may
//!   so be done twice, which changes nothing, since the first server is gone with all its threads before the second begins. It needs Linux
//!   6.9; on an older kernel a device ends with its process.
//! * **A flush with nothing to make durable is free.** A loop device knows no writes that are durable by themselves, so each commit of a
//!   file system flushes twice.
//! * **A hole is zeros.** The kernel asks for a hole both to discard and to write zeros, so both write zeros here, without allocating.
//! * What the kernel sends is not trusted more than a client is: what is no request costs an error.
//!
//! A process that serves devices calls [`harden`] first.

mod attachment;
mod dirt;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host;
mod in_flight;
mod keeper;
mod loop_device;
mod mount;
mod own_files;
mod process;
mod protocol;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod threads;
mod users;

pub use host::{AttachError, DetachError, Host};
pub use keeper::{BindError, Keeper, KeeperError, KeeperServer};
pub use loop_device::LoopError;
pub use mount::MountError;
pub use process::{HardenError, harden};
pub use users::User;
