//! The forwards of a cluster, each a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rustix::process::Signal;

use super::Cluster;
use crate::error::{Error, Result};
use crate::files;
use crate::forward::{Direction, Forward};
use crate::helper;
use crate::process::{self, KILL_LIMIT, ProcessId};

impl Cluster {
    /// What listens on this machine, or inside, for this cluster; by name, which is the port it listens on.
    pub fn forwards(&self) -> Result<Vec<(String, Forward)>> {
        let mut forwards = Vec::new();
        for file in files::list(&self.path("run"))? {
            let name = file.strip_prefix("forward-").and_then(|rest| rest.strip_suffix(".json"));
            if let Some(name) = name {
                let forward = files::read_json(&self.run_path(&file))?;
                forwards.extend(forward.map(|forward| (name.to_owned(), forward)));
            }
        }
        Ok(forwards)
    }

    /// A port of this machine's loopback becomes one of the control plane, which nodes and pods reach; returns where.
    pub async fn forward_in(&self, port: u16, dial: SocketAddr) -> Result<SocketAddr> {
        let forward = Forward { direction: Direction::In, listen: (Ipv4Addr::UNSPECIFIED, port).into(), dial };
        self.forward_as(&port.to_string(), &forward).await?;
        Ok((self.control_plane().address(), port).into())
    }

    /// An address inside becomes a port of this machine's loopback; returns where.
    pub async fn forward_out(&self, port: u16, dial: SocketAddr) -> Result<SocketAddr> {
        let listen = (Ipv4Addr::LOCALHOST, port).into();
        self.forward_as(&port.to_string(), &Forward { direction: Direction::Out, listen, dial }).await?;
        Ok(listen)
    }

    pub async fn end_forward(&self, port: u16) -> Result<()> {
        let name = port.to_string();
        let file = self.run_path(&format!("forward-{name}.json"));
        if !file.exists() {
            return Err(Error::input(format!("{} has no forward of port {port}", self.name)));
        }
        self.suspend_forward(&name).await?;
        files::remove(&file)
    }

    /// The forward is written down before its process is started, so that whoever ends the cluster knows of it from the first
    /// moment on; one that does not get ready is forgotten, unless it was there before.
    pub(super) async fn forward_as(&self, name: &str, forward: &Forward) -> Result<()> {
        self.suspend_forward(name).await?;
        let inside = self.control_plane().namespace()?.path();
        let file = self.run_path(&format!("forward-{name}.json"));
        let before: Option<Forward> = files::read_json(&file)?;
        files::write_json(&file, forward, files::PUBLIC)?;
        let started = self.start_forwarder(name, forward, inside).await;
        if started.is_err() {
            match before {
                Some(before) => files::write_json(&file, &before, files::PUBLIC)?,
                None => files::remove(&file)?,
            }
        }
        started
    }

    async fn start_forwarder(&self, name: &str, forward: &Forward, inside: PathBuf) -> Result<()> {
        let machine = PathBuf::from("/proc/self/ns/net");
        let (listen_in, dial_in) = match forward.direction {
            Direction::Out => (machine, inside),
            Direction::In => (inside, machine),
        };
        let log = self.run_path(&format!("forward-{name}.log"));
        let mut command = process::background(self.sandbox.program(), &log)?;
        command.arg("forwarder").arg("--listen-in").arg(listen_in).args(["--listen", &forward.listen.to_string()]);
        command.arg("--dial-in").arg(dial_in).args(["--dial", &forward.dial.to_string()]);
        let what = format!("the forward of {} of {}", forward.listen, self.name);
        helper::start(&mut command, &what, &log, Some(&self.run_path(&format!("forward-{name}.pid")))).await
    }

    async fn suspend_forward(&self, name: &str) -> Result<()> {
        match ProcessId::load(&self.run_path(&format!("forward-{name}.pid")))? {
            Some(process) => process.end(Signal::KILL, KILL_LIMIT).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn suspend_forwards(&self) -> Result<()> {
        for (name, _) in self.forwards()? {
            self.suspend_forward(&name).await?;
        }
        Ok(())
    }

    pub(crate) async fn resume_forwards(&self) -> Result<()> {
        for (name, forward) in self.forwards()? {
            self.forward_as(&name, &forward).await?;
        }
        Ok(())
    }
}
