//! What pools and files lie on.

use crate::RunArgs;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Memory, or a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Disk,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "in memory (files on tmpfs)",
            Self::Disk => "on the disk (files, O_DIRECT)",
        }
    }
}

/// A folder of this run, which ends with its guard.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(kind: Kind, arguments: &RunArgs, what: &str) -> Result<Self> {
        let parent = if kind == Kind::Memory { Path::new("/dev/shm") } else { &arguments.place };
        let path = parent.join(format!("bench-block-{}-{what}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a file full of bytes that are no zeros, so that all of it has its place before anything is measured.
pub(crate) fn filled(path: &Path, bytes: u64) -> Result<()> {
    use std::io::Write;
    let mut state = 1_u64;
    let piece: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0] | 1
    })
    .take(1 << 20)
    .collect();
    let mut file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    for _ in 0..bytes >> 20 {
        file.write_all(&piece).with_context(|| format!("fill {}", path.display()))?;
    }
    file.sync_all().with_context(|| format!("fill {}", path.display()))
}
