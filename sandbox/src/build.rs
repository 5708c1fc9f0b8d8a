//! Building the programs once, out of Debian's own packages.
//!
//! A script does it, as it is all calls of other programs: see `build/kubernetes.sh`, which says at its head what it
//! needs. What it makes is kept in the user's cache for every sandbox.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::assets;
use crate::error::{Error, Result};
use crate::files;

const SCRIPT: &str = include_str!("../build/kubernetes.sh");
/// The one source file that is ours: all daemons in one program.
const MAIN: &str = include_str!("../build/kube.go");

/// Builds into the cache, showing the script's output, and returns the directory.
pub async fn build() -> Result<PathBuf> {
    let target = assets::cache_directory().ok_or_else(|| {
        Error::machine("there is no home directory", "set XDG_CACHE_HOME to a directory to keep programs in")
    })?;
    files::create_dir(&target)?;
    let work = tempfile::Builder::new()
        .prefix(".building-")
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
