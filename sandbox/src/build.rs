//! Building the programs once, out of Debian's own packages.
//!
//! A script does it, as it is all calls of other programs: see `build/kubernetes.sh`, which says at its head what it
//! needs. What it makes is kept in the user's cache for every sandbox.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::assets;
use crate::error::{Error, Result};
use crate::files;
use crate::wait;

const SCRIPT: &str = include_str!("../build/kubernetes.sh");
/// The one source file that is ours: all daemons in one program.
const MAIN: &str = include_str!("../build/kube.go");

/// Begins the names of directories in which builds work.
const WORK: &str = ".building-";
/// How long to wait for another build: three minutes on two idle cores, and much more on busy ones.
const LOCK_LIMIT: Duration = Duration::from_secs(3600);
const LOCK_LOOK: Duration = Duration::from_millis(500);

/// Builds into the cache, showing the script's output, and returns the directory. What another build has made meanwhile is taken.
pub async fn build() -> Result<PathBuf> {
    let target = assets::cache_directory().ok_or_else(|| {
        Error::machine("there is no home directory", "set XDG_CACHE_HOME to a directory to keep programs in")
    })?;
    files::create_dir(&target)?;
    let before = stamp(&target);
    let _lock = lock(&target).await?;
    if stamp(&target) != before {
        return Ok(target);
    }
    remove_stale(&target)?;
    let work = tempfile::Builder::new()
        .prefix(WORK)
        .tempdir_in(&target)
        .map_err(Error::file("make a directory in", &target))?;
    let script = work.path().join("kubernetes.sh");
    files::write(&script, SCRIPT, files::PROGRAM)?;
    files::write(&work.path().join("kube.go"), MAIN, files::PUBLIC)?;
    let status = Command::new(&script)
        .arg(work.path())
        .arg(&target)
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(Error::file("run", &script))?;
    if status.success() {
        return Ok(target);
    }
    Err(Error::Command {
        command: "build/kubernetes.sh".into(),
        status: status.to_string(),
        output: "its last lines above say why".into(),
    })
}

/// Tells one build's result from another's.
fn stamp(target: &Path) -> Option<(u64, i64)> {
    let meta = target.join("bin").metadata().ok()?;
    Some((meta.ino(), meta.ctime()))
}

/// One build at a time: its work is large, and who has the lock knows that what else lies there is of builds that were killed.
async fn lock(target: &Path) -> Result<File> {
    let path = target.join(".lock");
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    wait::until("another build", LOCK_LIMIT, LOCK_LOOK, async || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::file("lock", &path)(error)),
    })
    .await?;
    Ok(file)
}

fn remove_stale(target: &Path) -> Result<()> {
    for name in files::list(target)?.iter().filter(|name| name.starts_with(WORK)) {
        let path = target.join(name);
        fs::remove_dir_all(&path).map_err(Error::file("remove what a killed build has left in", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_build_has_left_is_removed_under_the_lock() {
        let target = tempfile::tempdir().expect("a temporary directory");
        for name in [".building-abc/work", "bin"] {
            files::create_dir(&target.path().join(name)).expect("made");
        }
        let held = lock(target.path()).await.expect("nobody else has it");
        remove_stale(target.path()).expect("removed");
        assert_eq!(files::list(target.path()).expect("listed"), [".lock", "bin"]);
        let second = tokio::time::timeout(Duration::from_millis(50), lock(target.path())).await;
        assert!(second.is_err(), "a second build waits");
        drop(held);
        lock(target.path()).await.expect("it is free");
    }
}
