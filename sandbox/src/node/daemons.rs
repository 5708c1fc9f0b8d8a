//! The daemons of a node, and the images it has.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::{Node, tail};
use crate::address::NodeNumber;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::files;
use crate::image;
use crate::process::{self, ProcessId};
use crate::wait;

/// How long a daemon may take to appear as a process: its program, up to 95 MB, may have to come from disk.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a daemon may take to end when it is asked to: an API server finishes its requests first.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// How long containerd may take until it answers.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

impl Node<'_> {
    fn daemon_file(&self, daemon: Daemon) -> PathBuf {
        self.cluster.run_path(&format!("{}.{daemon}.pid", self.name))
    }

    pub(crate) fn daemon_process(&self, daemon: Daemon) -> Result<Option<ProcessId>> {
        self.require(daemon)?;
        ProcessId::load(&self.daemon_file(daemon))
    }

    pub fn daemon_runs(&self, daemon: Daemon) -> Result<bool> {
        Ok(self.daemon_process(daemon)?.is_some())
    }

    /// Its number on the machine, while it runs.
    pub fn daemon_pid(&self, daemon: Daemon) -> Result<Option<i32>> {
        Ok(self.daemon_process(daemon)?.map(ProcessId::pid))
    }

    fn require(&self, daemon: Daemon) -> Result<()> {
        if self.daemons().contains(&daemon) {
            return Ok(());
        }
        let names: Vec<_> = self.daemons().iter().map(|daemon| daemon.name()).collect();
        Err(Error::input(format!("{} has no {daemon}; it has {}", self.name, names.join(", "))))
    }

    /// The file that a daemon's output goes to.
    pub fn log(&self, daemon: Daemon) -> PathBuf {
        self.root.join(format!("var/log/{daemon}.log"))
    }

    /// Starts a daemon, and waits for those that others cannot start without.
    pub async fn start_daemon(&self, daemon: Daemon) -> Result<()> {
        if self.daemon_runs(daemon)? {
            return Ok(());
        }
        let place = self.place(self.cluster.sandbox().programs().await?.minor(daemon));
        let log = self.log(daemon);
        let mut command = process::background("nsenter", &log)?;
        command.args(self.enter_arguments()?).args(daemon.command_line(&place));
        let child = process::spawn(&mut command)?;
        // Entering a process namespace takes a child: the program that was started stays outside as its parent.
        let process = match child.id().and_then(ProcessId::of) {
            Some(parent) => parent.child(START_LIMIT).await?,
            None => None,
        };
        let process = process.ok_or_else(|| self.ended(daemon))?;
        process.save(&self.daemon_file(daemon))?;
        match daemon {
            Daemon::Containerd => {
                self.until_containerd_answers(process).await?;
                self.load_images().await
            }
            Daemon::ApiServer => self.cluster.until_api_ready(process).await,
            _ => Ok(()),
        }
    }

    pub(crate) fn ended(&self, daemon: Daemon) -> Error {
        let log = self.log(daemon);
        Error::input(format!("{}/{daemon} ended; its log {} ends with:\n{}", self.name, log.display(), tail(&log)))
    }

    async fn until_containerd_answers(&self, process: ProcessId) -> Result<()> {
        let pid = self.running()?.pid();
        let socket = format!("/proc/{pid}/root/run/containerd/containerd.sock");
        let what = format!("the start of containerd on {}", self.name);
        wait::until(&what, CONTAINERD_LIMIT, LOOK, async || {
            if !process.runs() {
                return Err(self.ended(Daemon::Containerd));
            }
            Ok(tokio::net::UnixStream::connect(&socket).await.ok())
        })
        .await?;
        Ok(())
    }

    pub async fn stop_daemon(&self, daemon: Daemon) -> Result<()> {
        self.end_daemon(daemon, Signal::TERM).await
    }

    pub async fn kill_daemon(&self, daemon: Daemon) -> Result<()> {
        self.end_daemon(daemon, Signal::KILL).await
    }

    pub(super) async fn end_daemon(&self, daemon: Daemon, signal: Signal) -> Result<()> {
        if let Some(process) = self.daemon_process(daemon)? {
            process.end(signal, STOP_LIMIT).await?;
        }
        files::remove(&self.daemon_file(daemon))
    }

    /// Gives the node the images that it does not have yet; one that is off gets them when it starts.
    pub(crate) async fn load_images(&self) -> Result<()> {
        if self.number == NodeNumber::CONTROL_PLANE || !self.daemon_runs(Daemon::Containerd)? {
            return Ok(());
        }
        for archive in image::archives(&self.cluster.sandbox().images())? {
            let meta = archive.metadata().map_err(Error::file("look at", &archive))?;
            let version = format!("{} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec());
            let mark = self.root.join("var/lib/sandbox/images").join(archive.file_name().unwrap_or_default());
            if files::read(&mark)?.as_deref() == Some(&version) {
                continue;
            }
            let input = std::fs::File::open(&archive).map_err(Error::file("open", &archive))?;
            let mut command = self.command(["ctr", "--namespace", "k8s.io", "images", "import", "-"])?;
            let output = command
                .stdin(Stdio::from(input))
                .kill_on_drop(true)
                .output()
                .await
                .map_err(Error::file("load", &archive))?;
            if !output.status.success() {
                return Err(Error::Command {
                    command: format!("ctr images import of {} on {}", archive.display(), self.name),
                    status: output.status.to_string(),
                    output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                });
            }
            files::write(&mark, version, files::PUBLIC)?;
        }
        Ok(())
    }
}
