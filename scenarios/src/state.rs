//! What a run writes down in its directory before it makes anything, so that whoever ends it later knows what there is to end,
//! whatever the environment says by then.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Marks a directory as a run's: only one that has it is ever removed.
const FILE: &str = "run.json";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it is known by: the value of the label on all that it makes in clusters that it was given.
    pub run: String,
    /// The clusters that it was given; none when it has its own in the directory.
    pub given: Option<Given>,
}

/// Clusters that were there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The kubeconfig of the cluster that the application is lost in.
    pub east: PathBuf,
    /// The kubeconfig of the cluster that it comes back in.
    pub west: PathBuf,
}

impl State {
    /// Takes a directory for a run that begins. A directory that holds anything is refused: what is in it may run, or be somebody else's.
    ///
    /// # Errors
    /// There is something in the directory, or it cannot be made.
    pub fn claim(self, directory: &Path) -> anyhow::Result<Self> {
        if Self::load(directory)?.is_some() {
            bail!(
                "an earlier run has left its clusters or objects, noted in {}: `make demo-down` ends them",
                directory.display()
            );
        }
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        if fs::read_dir(directory)?.next().is_some() {
            bail!("{} holds files that are not of a demo: name another place in SANDBOX_DIR", directory.display());
        }
        let file = directory.join(FILE);
        fs::write(&file, serde_json::to_vec_pretty(&self)?).with_context(|| format!("write {}", file.display()))?;
        Ok(self)
    }

    /// The run that a directory is of, if it is of one.
    ///
    /// # Errors
    /// What is written there cannot be read.
    pub fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        let file = directory.join(FILE);
        match fs::read(&file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Removes the directory of a run that has been ended.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(directory: &Path) -> anyhow::Result<()> {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { run: "abc".into(), given: Some(Given { east: "/a".into(), west: "/b".into() }) }
    }

    #[test]
    fn a_directory_is_of_one_run_at_a_time() {
        let above = tempfile::tempdir().expect("a folder");
        let directory = above.path().join("demo");
        assert_eq!(State::load(&directory).expect("nothing is there"), None);
        state().claim(&directory).expect("it is free");
        assert_eq!(State::load(&directory).expect("readable"), Some(state()));
        let refused = state().claim(&directory).expect_err("it is taken").to_string();
        assert!(refused.contains("make demo-down"), "{refused}");
        State::forget(&directory).expect("removed");
        state().claim(&directory).expect("it is free again");
    }

    #[test]
    fn what_is_not_of_a_run_is_not_taken() {
        let directory = tempfile::tempdir().expect("a folder");
        fs::write(directory.path().join("mine"), "").expect("write");
        let refused = state().claim(directory.path()).expect_err("it is not empty").to_string();
        assert!(refused.contains("not of a demo"), "{refused}");
        assert_eq!(State::load(directory.path()).expect("readable"), None);
    }
}
