//! Where repositories are made: a folder, or a bucket of an S3 server that is a process of its own.

use crate::measure::size_of;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// The keys of the server: it listens on this machine only, and lives as long as the benchmark.
pub(crate) const ACCESS_KEY: &str = "bench";
pub(crate) const SECRET_KEY: &str = "a key for the benchmark";
const BUCKET: &str = "bench";

/// The kind of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A folder of the file system that the data is on
    Folder,
    /// A bucket of an S3 server on this machine
    S3,
}

/// A running store.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    process: Child,
    endpoint: String,
}

impl Place {
    /// Starts a store below `folder`.
    pub(crate) fn start(kind: Kind, folder: &Path) -> Result<Self> {
        let root = folder.join("store");
        std::fs::create_dir_all(&root).context("make the folder of the store")?;
        let server = match kind {
            Kind::Folder => None,
            Kind::S3 => Some(Server::start(&root)?),
        };
        Ok(Self { root, server })
    }

    /// The endpoint, if it is a server.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.server.as_ref().map(|server| server.endpoint.as_str())
    }

    /// The URL of a repository as `orlop` takes it.
    pub(crate) fn orlop_url(&self, name: &str) -> String {
        match &self.server {
            None => format!("file://{}", self.root.join(name).display()),
            Some(_) => format!("s3://{BUCKET}/{name}"),
        }
    }

    /// The URL of a repository as restic takes it; other peers get a folder.
    pub(crate) fn restic_url(&self, name: &str) -> String {
        match &self.server {
            None => self.root.join(name).display().to_string(),
            Some(server) => format!("s3:{}/{BUCKET}/{name}", server.endpoint),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if self.server.is_some() { self.root.join(BUCKET).join(name) } else { self.root.join(name) }
    }

    /// How many bytes a repository has.
    pub(crate) fn size(&self, name: &str) -> Result<u64> {
        size_of(&self.path(name))
    }

    /// Takes a repository away.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::remove_dir_all(&path).with_context(|| format!("take {} away", path.display()))
    }
}

impl Server {
    /// The server is this program again, so that what it costs is not counted to whoever uses it.
    fn start(root: &Path) -> Result<Self> {
        let mut process = crate::again()?
            .args(["s3", "--listen", "127.0.0.1:0", "--bucket", BUCKET, "--root"])
            .arg(root)
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the S3 server")?;
        let output = process.stdout.take().context("read what the S3 server says")?;
        let mut endpoint = String::new();
        BufReader::new(output).read_line(&mut endpoint).context("read the address of the S3 server")?;
        Ok(Self { process, endpoint: endpoint.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
