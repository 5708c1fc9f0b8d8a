//! The programs that are measured, and how each is told what to do.

use crate::measure::{Cost, run};
use crate::place::{ACCESS_KEY, Place, SECRET_KEY};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that makes backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Orlop,
    Restic,
    Rustic,
    Borg,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orlop => "orlop",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
        }
    }
}

/// What `orlop` is told of an image besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since<'a> {
    pub(crate) parent: &'a str,
    pub(crate) ranges: Option<&'a Path>,
}

/// The programs that are there, and what they need to run.
#[derive(Debug)]
pub(crate) struct Tools {
    orlop: PathBuf,
    folder: PathBuf,
    password: PathBuf,
    /// Cores that the programs may use, as `taskset` takes them.
    pub(crate) cores: Option<&'static str>,
}

impl Tools {
    pub(crate) fn find(orlop: &Path, folder: &Path) -> Result<Self> {
        let password = folder.join("password");
        std::fs::write(&password, "a passphrase for the benchmark\n").context("write the passphrase")?;
        if version(Peer::Restic).is_none() {
            bail!("restic is not installed: apt-get install restic");
        }
        Ok(Self { orlop: orlop.to_owned(), folder: folder.to_owned(), password, cores: None })
    }

    /// Peers that are measured beside restic, where they are installed.
    pub(crate) fn others() -> Vec<Peer> {
        [Peer::Rustic, Peer::Borg].into_iter().filter(|peer| version(*peer).is_some()).collect()
    }

    fn command(&self, peer: Peer, place: &Place) -> Command {
        let program = if peer == Peer::Orlop { self.orlop.as_os_str() } else { peer.name().as_ref() };
        let mut command = match self.cores {
            None => Command::new(program),
            Some(cores) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", cores]).arg(program);
                pinned
            }
        };
        command
            .env("RESTIC_PASSWORD_FILE", &self.password)
            .env("RESTIC_CACHE_DIR", self.folder.join("cache"))
            .env("RUSTIC_PASSWORD_FILE", &self.password)
            .env("RUSTIC_CACHE_DIR", self.folder.join("cache-rustic"))
            .env("BORG_PASSPHRASE", "a passphrase for the benchmark")
            .env("BORG_BASE_DIR", self.folder.join("borg"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        if let Some(endpoint) = place.endpoint() {
            command.env("AWS_ENDPOINT_URL", endpoint);
        }
        command
    }

    pub(crate) fn orlop(&self, place: &Place, repository: &str) -> Command {
        let mut command = self.command(Peer::Orlop, place);
        command.args(["repo", "--location", &place.orlop_url(repository), "--password-file"]).arg(&self.password);
        command
    }

    /// The file with the passphrase of every repository.
    pub(crate) fn password(&self) -> &Path {
        &self.password
    }

    pub(crate) fn run(&self, command: &mut Command) -> Result<Cost> {
        run(command, &self.folder.join("log"))
    }

    /// Makes a repository of this name.
    pub(crate) fn init(&self, peer: Peer, place: &Place, repository: &str) -> Result<Cost> {
        let url = place.restic_url(repository);
        let mut command = match peer {
            Peer::Orlop => self.orlop(place, repository),
            _ => self.command(peer, place),
        };
        match peer {
            Peer::Orlop => command.arg("init"),
            Peer::Restic | Peer::Rustic => command.args(["-r", &url, "init"]),
            Peer::Borg => command.args(["init", "-e", "repokey-blake2", &url]),
        };
        self.run(&mut command)
    }

    /// Stores an image, in whatever way suits the program.
    pub(crate) fn backup_image(
        &self,
        peer: Peer,
        place: &Place,
        repository: &str,
        (id, image): (&str, &Path),
        since: Option<Since<'_>>,
    ) -> Result<Cost> {
        if peer != Peer::Orlop {
            return self.backup_path(peer, place, repository, (id, image));
        }
        let mut command = self.orlop(place, repository);
        command.args(["backup", "--name", "image", "--id", id, "--image"]).arg(image);
        match since {
            None => command.arg("--no-parent"),
            Some(since) => command.args(["--parent", since.parent]),
        };
        if let Some(ranges) = since.and_then(|since| since.ranges) {
            command.arg("--changed-ranges").arg(ranges);
        }
        self.run(&mut command)
    }

    /// Stores a folder, or a file as a file.
    pub(crate) fn backup_path(
        &self,
        peer: Peer,
        place: &Place,
        repository: &str,
        (id, path): (&str, &Path),
    ) -> Result<Cost> {
        let url = place.restic_url(repository);
        let mut command = match peer {
            Peer::Orlop => self.orlop(place, repository),
            _ => self.command(peer, place),
        };
        match peer {
            Peer::Orlop => command.args(["backup", "--id", id]).arg(path),
            Peer::Restic | Peer::Rustic => command.args(["-r", &url, "backup", "--tag", id]).arg(path),
            Peer::Borg => command.args(["create", "-C", "zstd,3", &format!("{url}::{id}")]).arg(path),
        };
        self.run(&mut command)
    }

    /// Opens a repository of `orlop` and lists what is in it.
    pub(crate) fn list(&self, place: &Place, repository: &str) -> Result<Cost> {
        self.run(self.orlop(place, repository).arg("list"))
    }

    /// Restores what has this id; an image of `orlop` into a file, all else below a folder. `target` must not exist.
    pub(crate) fn restore(&self, peer: Peer, place: &Place, repository: &str, id: &str, target: &Path) -> Result<Cost> {
        let url = place.restic_url(repository);
        let mut command = match peer {
            Peer::Orlop => self.orlop(place, repository),
            _ => self.command(peer, place),
        };
        match peer {
            Peer::Orlop => command.args(["restore", id]).arg(target),
            Peer::Restic => command.args(["-r", &url, "restore", "latest", "--tag", id, "--target"]).arg(target),
            Peer::Rustic => command.args(["-r", &url, "restore", "latest", "--filter-tags", id]).arg(target),
            Peer::Borg => {
                std::fs::create_dir(target).context("make the target")?;
                command.current_dir(target).args(["extract", &format!("{url}::{id}")])
            }
        };
        self.run(&mut command)
    }
}

/// What a program says that it is; nothing if it is not installed.
pub(crate) fn version(peer: Peer) -> Option<String> {
    let word = if peer == Peer::Restic { "version" } else { "--version" };
    let output = Command::new(peer.name()).arg(word).output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
