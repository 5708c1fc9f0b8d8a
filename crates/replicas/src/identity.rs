//! Which process this is, and since when the machine has had its power.

use replication::units::{Incarnation, Session};
use std::io;
use std::path::Path;

/// Where Linux tells since when it runs.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the incarnation is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error("read the boot id of this machine from {path}")]
    Read {
        /// Where it should be.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} has {found:?}, which is no boot id")]
    NoId {
        /// Where it is.
        path: String,
        /// What is there.
        found: String,
    },
}

/// The incarnation of every store on this machine: what was answered is there as long as its kernel runs.
///
/// # Errors
/// The kernel does not tell.
pub fn incarnation() -> Result<Incarnation, IdentityError> {
    incarnation_in(Path::new(BOOT_ID))
}

fn incarnation_in(path: &Path) -> Result<Incarnation, IdentityError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| IdentityError::Read { path: path.display().to_string(), source })?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let id = if digits.len() == 32 { u128::from_str_radix(&digits, 16).ok() } else { None };
    id.map(Incarnation).ok_or_else(|| IdentityError::NoId { path: path.display().to_string(), found: text })
}

/// A session that no process had before.
#[must_use]
pub fn session() -> Session {
    Session(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_incarnation_is_that_of_the_kernel() {
        assert_eq!(incarnation().unwrap(), incarnation().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot_id");
        assert!(matches!(incarnation_in(&path), Err(IdentityError::Read { .. })));
        std::fs::write(&path, "0f0e\n").unwrap();
        assert!(matches!(incarnation_in(&path), Err(IdentityError::NoId { .. })));
        std::fs::write(&path, "00000000-0000-0000-0000-0000000000ff\n").unwrap();
        assert_eq!(incarnation_in(&path).unwrap(), Incarnation(255));
        assert_ne!(session(), session());
    }
}
