//! How freed memory is kept.
//!
//! The allocator of the C library has an arena for each thread, up to eight for each core, and each keeps what was freed in it for later. Buffers of some MiB
//! go through many threads here, so that a restore of a volume took up to twice of what was in use: 86 MiB against 51 with one arena, and more
//! processor time for page faults (`docs/benchmarks.md`). Another allocator (mimalloc) took 177.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What tells the allocator how many arenas it may have. It is read before `main`, so that it is too late to set it here.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Runs this program anew with one arena, unless somebody has said how many he wants; does not return then. Nothing has been begun yet that would be
/// lost. Where it cannot be done, the program only takes more memory.
pub(crate) fn begin_again_with_one_arena(words: &[OsString]) {
    if std::env::var_os(ARENAS).is_some() {
        // Begun again, the process has the name of the link that it was begun by, `exe`. Where it keeps that, only lists of processes are worse.
        let _failed = rustix::thread::set_name(c"orlop");
        return;
    }
    let Some((name, arguments)) = words.split_first() else { return };
    // The name is what tells a plug-in of kubectl from the program, so it stays as it was.
    let _failed = Command::new("/proc/self/exe").arg0(name).args(arguments).env(ARENAS, "1").exec();
}
