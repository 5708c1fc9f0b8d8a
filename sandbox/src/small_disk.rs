//! A file system that is soon full, for tests of what happens then.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that are written at once to fill the disk.
const BALLAST_STEP: usize = 4 << 10;

/// A file system in memory, of a few MiB; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of so many MiB.
    ///
    /// # Errors
    ///
    /// A reason to skip the test: this process may not mount.
    pub fn mount(mib: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("make a folder to mount on: {error}"))?;
        mount(&format!("size={mib}m"), folder.path()).map_err(|error| format!("mounting a small disk: {error}"))?;
        Ok(Self { folder })
    }

    /// Gives it another size.
    ///
    /// # Errors
    ///
    /// When `mount` refuses.
    pub fn resize(&self, mib: u64) -> io::Result<()> {
        mount(&format!("remount,size={mib}m"), self.folder.path())
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left; gives the file whose removal makes room again.
    ///
    /// # Errors
    ///
    /// When anything goes wrong but that the disk is full.
    pub fn fill(&self) -> io::Result<PathBuf> {
        let path = self.path().join("ballast");
        let mut file = File::create(&path)?;
        loop {
            match file.write_all(&[7; BALLAST_STEP]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What holds a file of it open must not keep the disk from going away.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).output();
        let gone = unmounted.is_ok_and(|output| output.status.success());
        assert!(gone || std::thread::panicking(), "{} stays mounted", self.path().display());
    }
}

fn mount(options: &str, folder: &Path) -> io::Result<()> {
    let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "orlop-test"]).arg(folder).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_full_and_has_room_again() {
        let disk = match SmallDisk::mount(1) {
            Ok(disk) => disk,
            Err(reason) => crate::skip!("{reason}"),
        };
        let ballast = disk.fill().unwrap();
        let write = || fs::write(disk.path().join("file"), [1; 100_000]);
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.resize(2).unwrap();
        write().unwrap();
        disk.fill().unwrap();
        fs::remove_file(ballast).unwrap();
        write().unwrap();
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists(), "the folder goes with it");
    }
}
