//! A thread with a table of open files of its own.
//!
//! Whoever asks a file system of FUSE for something waits for its answer, even when he is killed. If the process that serves it is his own, it should end with that
//! process. But its connection is closed by the last thread that shares the open files, and that is the one that waits: the process stays for ever, and so does every lock that the
//! thread has in the kernel. While a loop device is bound that is one that all others run into who want a loop device. So whoever binds one does not have the connection among
//! his files.

#![allow(unsafe_code, reason = "a table of open files is left, and numbers in it are closed")]

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;
use std::panic::resume_unwind;
use std::thread;

/// Bytes of names that are read at once.
const NAMES: usize = 4096;

/// Does something in a thread that has open what it opens itself, this file, and the three of every process. Nothing that it opens may be given to others.
pub(crate) fn with_only<T: Send>(file: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|threads| {
        let thread = thread::Builder::new().name("bind".into()).spawn_scoped(threads, move || {
            keep_only(file.as_raw_fd())?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Leaves the table that this thread shares with the others, and closes all but one in the copy.
fn keep_only(kept: RawFd) -> io::Result<()> {
    // SAFETY: this thread has just begun, and owns no open file. The one that it was lent has the same number in the copy. What it opens from here on, it closes
    // itself: no number of its table comes to others.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open("/proc/thread-self/fd", flags, Mode::empty())?;
    let (mut names, mut open) = (Vec::with_capacity(NAMES), Vec::new());
    let mut entries = RawDir::new(folder.as_fd(), names.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let number = entry?.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok());
        open.extend(number.filter(|number| *number > 2 && *number != kept && *number != folder.as_raw_fd()));
    }
    for number in open {
        // SAFETY: it is open in this thread's own table, and nobody in this thread has it.
        unsafe { rustix::io::close(number) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// What this thread has open, without the three of every process.
    fn open() -> Vec<PathBuf> {
        let names = fs::read_dir("/proc/thread-self/fd").unwrap().map(|entry| entry.unwrap().path());
        let others = names.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<RawFd>().unwrap() > 2);
        others.filter_map(|path| fs::read_link(path).ok()).filter(|path| !path.ends_with("fd")).collect()
    }

    #[test]
    fn a_thread_has_one_file_and_the_others_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("kept"), folder.path().join("other")];
        let files = paths.clone().map(|path| fs::File::create(path).unwrap());
        let seen = with_only(files[0].as_fd(), || (thread::current().name().map(str::to_owned), open())).unwrap();
        assert_eq!(seen, (Some("bind".into()), vec![paths[0].clone()]));
        let here = open();
        assert!(paths.iter().all(|path| here.contains(path)), "{here:?}");
        files.iter().for_each(|file| file.sync_all().unwrap());
    }
}
