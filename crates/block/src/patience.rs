//! Threads that may wait.

use std::cell::Cell;

thread_local! {
    static IS_PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Lets what this thread asks of devices wait for a disk, from now on: for threads that are there for requests alone, several of them, so that the others
/// take what comes meanwhile. A device does that when nothing else is under way, since handing over a single request, and its answer, takes longer than a
/// fast disk.
pub fn be_patient() {
    IS_PATIENT.set(true);
}

/// Whether the thread that asks may wait.
#[must_use]
pub fn is_patient() -> bool {
    IS_PATIENT.get()
}
