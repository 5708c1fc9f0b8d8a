//! A node of a cluster, or its control plane: its namespaces, and how it is put on and off.

mod daemons;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::process::Command;

use crate::address::NodeNumber;
use crate::cluster::Cluster;
use crate::daemon::{Daemon, Minor, Place};
use crate::error::{Error, Result};
use crate::files;
use crate::helper;
use crate::loops;
use crate::network::{Namespace, Port};
use crate::process::{self, KILL_LIMIT, ProcessId};
use crate::process_one::PROGRAMS;

/// How much of a log an error shows.
const LOG_TAIL_LINES: usize = 5;

/// A node of a cluster, or its control plane. Its name is the cluster's with a number, the control plane's the cluster's.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    number: NodeNumber,
    name: String,
    root: PathBuf,
    cgroup: String,
}

/// How a node goes off. Its disk stays either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// The daemons that keep state end first; the others have nothing to lose.
    Orderly,
    /// As when the power fails: everything at once, in the middle of whatever it did.
    Power,
}

impl<'a> Node<'a> {
    pub(crate) fn new(cluster: &'a Cluster, number: NodeNumber) -> Self {
        let name = match number {
            NodeNumber::CONTROL_PLANE => cluster.name().to_owned(),
            NodeNumber(number) => format!("{}{number}", cluster.name()),
        };
        let root = cluster.path("nodes").join(&name);
        let cgroup = format!("{}/{name}", cluster.cgroup());
        Self { cluster, number, name, root, cgroup }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub(crate) fn number(&self) -> NodeNumber {
        self.number
    }

    pub fn address(&self) -> Ipv4Addr {
        self.cluster.index().node(self.number)
    }

    /// Its root directory, as the machine sees it; what lies in its `/run`, `/dev`, `/proc` and `/sys` is not there.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn daemons(&self) -> &'static [Daemon] {
        match self.number {
            NodeNumber::CONTROL_PLANE => Daemon::OF_CONTROL_PLANE,
            _ => Daemon::OF_NODE,
        }
    }

    pub(crate) fn place(&self, minor: Minor) -> Place<'_> {
        Place { cluster: self.cluster.index(), number: self.number, name: &self.name, cgroup: &self.cgroup, minor }
    }

    fn pid_file(&self) -> PathBuf {
        self.cluster.run_path(&format!("{}.pid", self.name))
    }

    /// Its process 1, while the node is on.
    pub(crate) fn process(&self) -> Result<Option<ProcessId>> {
        ProcessId::load(&self.pid_file())
    }

    pub fn is_on(&self) -> Result<bool> {
        Ok(self.process()?.is_some())
    }

    fn running(&self) -> Result<ProcessId> {
        self.process()?.ok_or_else(|| Error::input(format!("{} is off: `sandbox start {0}` puts it on", self.name)))
    }

    pub(crate) fn namespace(&self) -> Result<Namespace> {
        Ok(Namespace(self.running()?))
    }

    /// Puts the node on, without its daemons.
    async fn boot(&self) -> Result<()> {
        let switch = self.cluster.switch()?;
        let sandbox = self.cluster.sandbox();
        files::create_dir(&self.root)?;
        if self.number != NodeNumber::CONTROL_PLANE {
            sandbox.cgroups().create(&self.cgroup)?;
        }
        let log = self.cluster.run_path(&format!("{}.log", self.name));
        let mut command = process::background("unshare", &log)?;
        command
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--propagation", "private"])
            .args(["--fork", "--kill-child", "--"])
            .arg(sandbox.program())
            .args(["process-one", "--name", &self.name, "--root"])
            .arg(&self.root)
            .arg("--distribution")
            .arg(sandbox.programs().await?.distribution.directory())
            .arg("--pid-file")
            .arg(self.pid_file());
        // Process 1 itself writes down its number, which is another than that of the command.
        helper::start(&mut command, &self.name, &log, None).await?;
        let port = Port { name: &self.name, number: self.number, namespace: self.namespace()? };
        let plugged = switch.plug(&port, self.cluster.node_count()).await;
        if plugged.is_err() {
            // A node without its network would look like one that is on.
            port.namespace.0.end(Signal::KILL, KILL_LIMIT).await?;
        }
        plugged
    }

    /// Puts the node on with all its daemons; those that run go on.
    pub async fn start(&self) -> Result<()> {
        self.power_on().await?;
        for daemon in self.daemons() {
            self.start_daemon(*daemon).await?;
        }
        Ok(())
    }

    /// Puts the node on, with what its daemons need from outside, but without them.
    pub(crate) async fn power_on(&self) -> Result<()> {
        if self.is_on()? {
            return Ok(());
        }
        self.boot().await?;
        if self.number == NodeNumber::CONTROL_PLANE {
            self.cluster.resume_forwards().await?;
        }
        Ok(())
    }

    /// Puts the node off; nothing of it runs afterwards, and it holds no loop device.
    pub async fn halt(&self, how: Halt) -> Result<()> {
        let mut orderly = Ok(());
        let mut loops = Vec::new();
        if let Some(process) = self.process()? {
            if how == Halt::Orderly {
                orderly = self.end_keepers_of_state().await;
            }
            // Afterwards nobody can tell whose they are.
            loops = loops::seen_by(process).await?;
            process.end(Signal::KILL, KILL_LIMIT).await?;
        }
        if self.number == NodeNumber::CONTROL_PLANE {
            // They would keep its network namespace.
            self.cluster.suspend_forwards().await?;
        } else {
            loops::detach(&loops).await?;
            loops::detach_below(&self.root).await?;
            self.cluster.sandbox().cgroups().remove(&self.cgroup).await?;
        }
        // A daemon that did not end when asked was killed with the rest: that is told once nothing is left.
        orderly
    }

    async fn end_keepers_of_state(&self) -> Result<()> {
        for daemon in [Daemon::Containerd, Daemon::Etcd] {
            if self.daemons().contains(&daemon) {
                self.end_daemon(daemon, Signal::TERM).await?;
            }
        }
        Ok(())
    }

    pub async fn stop(&self) -> Result<()> {
        self.halt(Halt::Orderly).await
    }

    pub async fn kill(&self) -> Result<()> {
        self.halt(Halt::Power).await
    }

    /// Cuts the node from everything: frames vanish, and no error comes back.
    pub async fn cut(&self) -> Result<()> {
        self.cluster
            .change_cuts(|cuts| {
                cuts.nodes.insert(self.name.clone());
            })
            .await
    }

    pub async fn heal(&self) -> Result<()> {
        self.cluster
            .change_cuts(|cuts| {
                cuts.nodes.remove(&self.name);
            })
            .await
    }

    /// Cuts two nodes of one cluster from each other only.
    pub async fn cut_from(&self, other: &Node<'_>) -> Result<()> {
        let pair = self.pair(other)?;
        self.cluster
            .change_cuts(|cuts| {
                cuts.pairs.insert(pair);
            })
            .await
    }

    pub async fn heal_with(&self, other: &Node<'_>) -> Result<()> {
        let pair = self.pair(other)?;
        self.cluster
            .change_cuts(|cuts| {
                cuts.pairs.remove(&pair);
            })
            .await
    }

    fn pair(&self, other: &Node<'_>) -> Result<(String, String)> {
        if self.cluster.name() != other.cluster.name() || self.number == other.number {
            return Err(Error::input(format!(
                "{} and {} are not two nodes of one cluster; for two clusters cut their link",
                self.name, other.name
            )));
        }
        let (low, high) = if self.number < other.number { (self, other) } else { (other, self) };
        Ok((low.name.clone(), high.name.clone()))
    }

    /// A command that runs on the node as root, with its root directory, network and processes.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(self.enter_arguments()?).args(line);
        Ok(command)
    }

    fn enter_arguments(&self) -> Result<Vec<String>> {
        let pid = self.running()?.pid().to_string();
        let path = format!("PATH={PROGRAMS}/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let words = ["-t", &pid, "-m", "-n", "-p", "-u", "-i", "--", "/usr/bin/env", "-i", &path, "HOME=/root"];
        let mut words: Vec<String> = words.map(String::from).into();
        if let Ok(terminal) = std::env::var("TERM") {
            words.push(format!("TERM={terminal}"));
        }
        Ok(words)
    }

    /// Runs a command on the node and returns what it printed.
    pub async fn exec(&self, line: &[&str]) -> Result<String> {
        process::run(&mut self.command(line)?, "").await
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
