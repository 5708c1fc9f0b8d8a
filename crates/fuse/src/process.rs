//! What a process must be that writes memory back.

use rustix::io::Errno;
use rustix::mm::MlockAllFlags;

/// Why the process is not ready.
#[derive(Debug, thiserror::Error)]
#[error("{step}; run as root, or with the capabilities {needed}")]
pub struct HardenError {
    step: &'static str,
    needed: &'static str,
    source: Errno,
}

/// Keeps the process from waiting for itself. Call it first in `main`, before there are threads, which inherit it.
///
/// When memory is short, the kernel writes pages of file systems back, also of those that lie on devices of this process. If this process
/// waited for memory, or for a page of itself that was given up, it would wait for a write that it has to do. So its allocations do not
/// write pages back (`PR_SET_IO_FLUSHER`), and what it has once touched stays in memory (`mlockall`, on fault: what is only reserved costs
/// nothing).
///
/// What can be had is had, also when it fails: a process without the right to the one is better off with the other.
pub fn harden() -> Result<(), HardenError> {
    let at = |step, needed| move |source| HardenError { step, needed, source };
    let flusher = rustix::process::configure_io_flusher_behavior(true)
        .map_err(at("allocate without writing pages back (PR_SET_IO_FLUSHER)", "SYS_RESOURCE"));
    let locked = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(at("keep its memory (mlockall)", "IPC_LOCK"));
    flusher.and(locked)
}
