//! How a cluster starts and ends.

use std::net::Ipv4Addr;
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::Signal;

use super::Cluster;
use crate::bootstrap;
use crate::configuration::{self, API_PORT};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::files;
use crate::forward::{Direction, Forward};
use crate::helper;
use crate::image;
use crate::network::Switch;
use crate::node::{Halt, Node};
use crate::process::{self, KILL_LIMIT, ProcessId};

/// The forward that is always there: the API server at the machine's loopback.
const API_FORWARD: &str = "api";

impl Cluster {
    pub(super) async fn start_all(&self) -> Result<()> {
        let (start, since) = (Instant::now(), Timestamp::now());
        let programs = self.sandbox.programs().await?;
        {
            let _lock = self.sandbox.lock().await?;
            image::make_basic(&self.sandbox.images(), &programs.distribution).await?;
        }
        configuration::write_all(self, programs.minor(Daemon::Kubelet))?;
        Switch::start(&self.path("run"), self.record.index, self.record.nodes).await?;
        let nodes: Vec<Node<'_>> = self.nodes().collect();
        let machines = futures::future::try_join_all(nodes.iter().map(async |node| {
            node.power_on().await?;
            node.start_daemon(Daemon::Containerd).await
        }));
        tokio::try_join!(self.start_api(start), machines)?;
        let nodes = futures::future::try_join_all(nodes.iter().map(Node::start));
        tokio::try_join!(self.start_control_plane(), nodes)?;
        self.join_others().await?;
        bootstrap::until_ready(self, programs.minor(Daemon::ApiServer), since).await?;
        self.note(start, "nodes are ready");
        Ok(())
    }

    async fn start_api(&self, start: Instant) -> Result<()> {
        let node = self.control_plane();
        node.power_on().await?;
        let api = Forward {
            direction: Direction::Out,
            listen: (Ipv4Addr::LOCALHOST, self.record.api_port).into(),
            dial: (Ipv4Addr::LOCALHOST, API_PORT).into(),
        };
        self.forward_as(API_FORWARD, &api).await?;
        node.start_daemon(Daemon::Etcd).await?;
        node.start_daemon(Daemon::ApiServer).await?;
        self.note(start, "the API server is ready");
        bootstrap::create_nodes(self).await
    }

    /// What the nodes can start without.
    async fn start_control_plane(&self) -> Result<()> {
        self.control_plane().start().await?;
        self.start_provisioner().await
    }

    fn note(&self, start: Instant, what: &str) {
        tracing::info!("{:4.1} s  {}: {what}", start.elapsed().as_secs_f32(), self.name);
    }

    async fn join_others(&self) -> Result<()> {
        let _lock = self.sandbox.lock().await?;
        let own = self.switch()?;
        // Of two clusters that start at once, the second to come here finds the mark of the first.
        files::write(&self.run_path("linkable"), "", files::PUBLIC)?;
        for other in self.sandbox.clusters()? {
            if other.name != self.name && other.is_up()? && other.run_path("linkable").exists() {
                own.link(&self.name, &other.switch()?, &other.name).await?;
            }
        }
        Ok(())
    }

    /// Ends all that runs; the state stays, for a later start.
    pub async fn down(&self) -> Result<()> {
        self.halt(Halt::Orderly).await
    }

    /// Ends all that runs and removes the state.
    pub async fn destroy(&self) -> Result<()> {
        self.halt(Halt::Power).await?;
        files::remove_dir(&self.path(""))
    }

    async fn halt(&self, how: Halt) -> Result<()> {
        if let Some(provisioner) = ProcessId::load(&self.run_path("provisioner.pid"))? {
            provisioner.end(Signal::KILL, KILL_LIMIT).await?;
        }
        let nodes: Vec<Node<'_>> = self.nodes().chain([self.control_plane()]).collect();
        // All are ended before anything is made of an error: what one could not do is no reason to leave the others.
        let halted = futures::future::join_all(nodes.iter().map(|node| node.halt(how))).await;
        if let Some(switch) = ProcessId::load(&self.run_path("switch.pid"))? {
            switch.end(Signal::KILL, KILL_LIMIT).await?;
        }
        halted.into_iter().collect::<Result<()>>()?;
        self.sandbox.cgroups().remove(&self.cgroup()).await?;
        files::remove_dir(&self.path("run"))
    }

    async fn start_provisioner(&self) -> Result<()> {
        let log = self.path("provisioner.log");
        let mut command = process::background(self.sandbox.program(), &log)?;
        command.args(["provisioner", "--kubeconfig"]).arg(self.kubeconfig_path());
        command.arg("--nodes").arg(self.path("nodes"));
        helper::start(&mut command, "the provisioner", &log, Some(&self.run_path("provisioner.pid"))).await
    }
}
