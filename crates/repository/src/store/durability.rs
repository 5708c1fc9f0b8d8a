//! What a power failure would leave of what was reported as created.
//!
//! The fault model: a name is durable when its folder was synced after it was made, and content when its file was. A sync may fail.
//! The process may be killed before any call. What it writes may be cleared away by a collector that takes it for dead. A file system may
//! not know how to move a file to a free name, and may refuse a link that it has made, as NFS does when it repeats a request whose answer was
//! lost.

use super::disk::{Disk, RealDisk};
use super::filesystem::FileSystem;
use super::{ObjectAccess, RetryPolicy, Store, StoreErrorKind};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NAME: &str = "domains/default/packs/ab/pack";

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Only links make a file visible.
    no_move: bool,
    /// A link is made and refused.
    link_is_refused: bool,
    /// The sync of this number, from zero, fails.
    failing_sync: Option<usize>,
    /// The first file that is to get its name is taken away before.
    is_cleared_once: bool,
    /// From the call of this number on, the process is gone.
    killed_at: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    calls: usize,
    syncs: usize,
    /// Names that a power failure takes away.
    loose: BTreeSet<PathBuf>,
    /// Files whose content it takes away.
    dirty: BTreeSet<PathBuf>,
}

/// A real folder, and what of it is durable.
#[derive(Debug, Clone, Default)]
struct Watched(Arc<Mutex<State>>);

impl Watched {
    /// Lets something go wrong from now on; what is durable stays known.
    fn set(&self, faults: Faults) {
        let mut state = self.0.lock().unwrap();
        (state.faults, state.calls, state.syncs) = (faults, 0, 0);
    }

    fn counts(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.calls, state.syncs)
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        let number = state.calls;
        state.calls += 1;
        if state.faults.killed_at.is_some_and(|killed| number >= killed) {
            return Err(io::Error::other("the process is gone"));
        }
        work(&mut state)
    }

    fn sync(&self, done: impl FnOnce(&mut State)) -> io::Result<()> {
        self.call(|state| {
            let number = state.syncs;
            state.syncs += 1;
            if state.faults.failing_sync == Some(number) {
                return Err(rustix::io::Errno::IO.into());
            }
            done(state);
            Ok(())
        })
    }

    fn assert_durable(&self, path: &Path, when: &str) {
        let state = self.0.lock().unwrap();
        assert!(path.exists(), "{when}");
        let lost = path.ancestors().find(|name| state.loose.contains(*name) || state.dirty.contains(*name));
        assert_eq!(lost, None, "{when}: a power failure takes it away");
    }
}

impl Disk for Watched {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.call(|state| {
            RealDisk.make_folder(path)?;
            state.loose.insert(path.to_owned());
            Ok(())
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync(|state| state.loose.retain(|name| name.parent() != Some(path)))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        self.call(|state| {
            state.loose.insert(path.to_owned());
            state.dirty.insert(path.to_owned());
            RealDisk.write_new(path, bytes)
        })
    }

    fn sync_file(&self, path: &Path, _file: &File) -> io::Result<()> {
        self.sync(|state| _ = state.dirty.remove(path))
    }

    fn move_to_free_name(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|state| {
            if state.faults.no_move {
                return Err(rustix::io::Errno::INVAL.into());
            }
            if std::mem::take(&mut state.faults.is_cleared_once) {
                RealDisk.remove(from)?;
            }
            RealDisk.move_to_free_name(from, to)?;
            state.named(from, to);
            state.loose.remove(from);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|state| {
            RealDisk.link(from, to)?;
            state.named(from, to);
            if state.faults.link_is_refused { Err(rustix::io::Errno::EXIST.into()) } else { Ok(()) }
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|state| {
            state.loose.remove(path);
            RealDisk.remove(path)
        })
    }
}

impl State {
    fn named(&mut self, from: &Path, to: &Path) {
        self.loose.insert(to.to_owned());
        if self.dirty.contains(from) {
            self.dirty.insert(to.to_owned());
        }
    }
}

/// A place for a store whose root and the folders above it are not there yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("not/yet/there");
    (home, root)
}

/// Creates the object as a process of its own does, that tries again as every store does.
async fn create(disk: &Watched, root: &Path) -> Result<(), StoreErrorKind> {
    let retry = RetryPolicy { attempts: 3, first_wait: Duration::ZERO, longest_wait: Duration::ZERO };
    let store = Store::new(FileSystem::on(disk.clone(), root.to_owned()), "a folder", retry);
    store.put_new(NAME, Bytes::from_static(b"content")).await.map_err(|error| error.kind)
}

#[tokio::test]
async fn what_is_created_survives_a_power_failure() {
    let ways = [
        Faults::default(),
        Faults { no_move: true, ..Faults::default() },
        Faults { no_move: true, link_is_refused: true, ..Faults::default() },
    ];
    for faults in ways {
        let ((_home, root), disk) = (place(), Watched::default());
        disk.set(faults);
        assert_eq!(create(&disk, &root).await, Ok(()), "{faults:?}");
        disk.assert_durable(&root.join(NAME), &format!("{faults:?}"));
        assert_eq!(std::fs::read_dir(root.join("unfinished")).unwrap().count(), 0, "{faults:?}");
        // A name that is taken stays taken, on such file systems too.
        disk.set(Faults { link_is_refused: false, ..faults });
        assert_eq!(create(&disk, &root).await, Err(StoreErrorKind::AlreadyExists), "{faults:?}");
    }
}

#[tokio::test]
async fn a_sync_that_fails_is_not_taken_back_by_a_second_attempt() {
    let ((_home, root), disk) = (place(), Watched::default());
    create(&disk, &root).await.unwrap();
    let (_, syncs) = disk.counts();
    for number in 0..syncs {
        let ((_home, root), disk) = (place(), Watched::default());
        disk.set(Faults { failing_sync: Some(number), ..Faults::default() });
        assert_eq!(create(&disk, &root).await, Err(StoreErrorKind::NotDurable), "sync {number}");
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_durable_before_the_next_one_says_that_it_is_there() {
    let ((_home, root), disk) = (place(), Watched::default());
    create(&disk, &root).await.unwrap();
    let (calls, _) = disk.counts();
    let mut taken = 0;
    for number in 0..calls {
        let ((_home, root), disk) = (place(), Watched::default());
        disk.set(Faults { killed_at: Some(number), ..Faults::default() });
        create(&disk, &root).await.unwrap_err();
        disk.set(Faults::default());
        let next = create(&disk, &root).await;
        assert!(matches!(next, Ok(()) | Err(StoreErrorKind::AlreadyExists)), "killed at {number}: {next:?}");
        taken += usize::from(next.is_err());
        disk.assert_durable(&root.join(NAME), &format!("killed at {number}"));
    }
    assert_eq!(taken, 1, "one of them was killed between the move and the sync");
}

#[tokio::test]
async fn folders_that_are_known_to_be_durable_are_not_synced_again() {
    let ((_home, root), disk) = (place(), Watched::default());
    let store = FileSystem::on(disk.clone(), root.clone());
    store.put_new(NAME, Bytes::new()).await.unwrap();
    disk.set(Faults::default());
    store.put_new("domains/default/packs/ab/other", Bytes::new()).await.unwrap();
    let (_, syncs) = disk.counts();
    assert_eq!(syncs, 2, "the file, and the folder of its name");
    disk.assert_durable(&root.join("domains/default/packs/ab/other"), "the second");
}

/// A collector that takes the process for dead clears away what it was writing, just before that gets its name.
#[tokio::test]
async fn what_was_cleared_away_while_it_was_written_is_written_again() {
    let ((_home, root), disk) = (place(), Watched::default());
    disk.set(Faults { is_cleared_once: true, ..Faults::default() });
    assert_eq!(create(&disk, &root).await, Ok(()));
    assert_eq!(std::fs::read(root.join(NAME)).unwrap(), b"content");
    disk.assert_durable(&root.join(NAME), "after it was written again");
}
