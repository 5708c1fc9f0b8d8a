//! The networks of clusters: a switch for each, links between, and what is cut.
//!
//! A cluster's switch is a network namespace with a bridge. The control plane and the nodes are its ports, by virtual
//! Ethernet pairs whose end at the switch has the node's name. Two clusters are joined by a pair between their switches,
//! which route. On the machine itself nothing of it is visible.
//!
//! What is cut loses its frames without a word, as with a pulled cable far away: no error comes back, peers find out
//! by their own time-outs. The cuts of a cluster are a file, and the switch's filter is always written whole from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::address::{ClusterIndex, NodeNumber};
use crate::distribution::Distribution;
use crate::error::{Error, Result};
use crate::files;
use crate::process::{self, ProcessId};
use crate::wait;

const BRIDGE: &str = "br0";
const NAMESPACE_LIMIT: Duration = Duration::from_secs(5);
const NAMESPACE_LOOK: Duration = Duration::from_millis(5);

/// What is cut at one switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    /// Nodes that nothing reaches, and that reach nothing.
    pub nodes: BTreeSet<String>,
    /// Pairs of nodes, in order, that do not reach each other.
    pub pairs: BTreeSet<(String, String)>,
    /// Clusters that are not reached.
    pub links: BTreeSet<String>,
}

impl Cuts {
    fn frames(&self) -> String {
        let mut rules = String::from("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n");
        for node in &self.nodes {
            for (chain, way) in [("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o")] {
                rules += &format!("-A {chain} {way} {node} -j DROP\n");
            }
        }
        for (a, b) in &self.pairs {
            rules += &format!("-A FORWARD -i {a} -o {b} -j DROP\n-A FORWARD -i {b} -o {a} -j DROP\n");
        }
        rules
    }

    fn packets(&self) -> String {
        let mut rules = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for cluster in &self.links {
            let link = link_name(cluster);
            rules += &format!("-A FORWARD -i {link} -j DROP\n-A FORWARD -o {link} -j DROP\n");
        }
        rules + "COMMIT\n"
    }
}

/// A network namespace, by a process that is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespace(pub(crate) ProcessId);

impl Namespace {
    pub(crate) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.pid().to_string(), "-n", "--"]).arg(program.as_ref());
        command
    }

    async fn ip(self, lines: &[String]) -> Result<()> {
        let input = lines.join("\n") + "\n";
        process::run(self.command("ip").args(["-batch", "-"]), &input).await?;
        Ok(())
    }

    pub(crate) fn path(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.pid()))
    }
}

/// The switch of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Switch {
    pub(crate) namespace: Namespace,
    pub(crate) index: ClusterIndex,
    run: PathBuf,
}

/// What a node is to the switch.
pub(crate) struct Port<'a> {
    pub(crate) name: &'a str,
    pub(crate) number: NodeNumber,
    pub(crate) namespace: Namespace,
}

impl Switch {
    /// The switch that runs with this directory for its state, if one does.
    pub(crate) fn running(run: &Path, index: ClusterIndex) -> Result<Option<Self>> {
        let process = ProcessId::load(&run.join("switch.pid"))?;
        Ok(process.map(|process| Self { namespace: Namespace(process), index, run: run.to_owned() }))
    }

    pub(crate) async fn start(run: &Path, index: ClusterIndex, nodes: u8) -> Result<Self> {
        let log = run.join("switch.log");
        let mut command = process::background("unshare", &log)?;
        command.args(["--net", "--", "sleep", "infinity"]);
        let child = process::spawn(&mut command)?;
        let gone = || Error::input(format!("the switch ended at once: see {}", log.display()));
        let process = child.id().and_then(ProcessId::of).ok_or_else(gone)?;
        process.save(&run.join("switch.pid"))?;
        let switch = Self { namespace: Namespace(process), index, run: run.to_owned() };
        let machine = Path::new("/proc/self/ns/net");
        let machine = std::fs::read_link(machine).map_err(Error::file("read", machine))?;
        wait::until("the switch's network namespace", NAMESPACE_LIMIT, NAMESPACE_LOOK, async || {
            if !process.runs() {
                return Err(gone());
            }
            let own = std::fs::read_link(switch.namespace.path());
            Ok(own.is_ok_and(|own| own != machine).then_some(()))
        })
        .await?;
        switch.lay_out(nodes).await?;
        Ok(switch)
    }

    async fn lay_out(&self, nodes: u8) -> Result<()> {
        let index = self.index;
        let mut lines = vec![
            "link set dev lo up".to_owned(),
            format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0"),
            format!("addr add {}/24 dev {BRIDGE}", index.switch()),
            format!("link set dev {BRIDGE} up"),
            // The control plane's proxy answers for services to those who come from another cluster.
            format!("route add {} via {}", index.services(), index.node(NodeNumber::CONTROL_PLANE)),
        ];
        lines.extend(routes_to_pods(index, nodes, None));
        self.namespace.ip(&lines).await?;
        // These settings are each network namespace's own. The second is there only when its module is: without it frames
        // on bridges are not shown to iptables, which is what is wanted.
        let settings = "cd /proc/sys/net && echo 1 > ipv4/ip_forward && if [ -e bridge ]; then echo 0 > bridge/bridge-nf-call-iptables; fi";
        process::run(self.namespace.command("sh").args(["-c", settings]), "").await?;
        Ok(())
    }

    /// Plugs a node in, in place of an earlier one of its name.
    pub(crate) async fn plug(&self, port: &Port<'_>, nodes: u8) -> Result<()> {
        let name = port.name;
        let present =
            process::run(self.namespace.command("ip").args(["-o", "link", "show", "type", "veth"]), "").await?;
        let mut lines = Vec::new();
        if present.lines().any(|line| line.split(['@', ':']).nth(1).is_some_and(|n| n.trim() == name)) {
            lines.push(format!("link del dev {name}"));
        }
        let peer = port.namespace.0.pid();
        lines.push(format!("link add name {name} type veth peer name eth0 netns {peer}"));
        lines.push(format!("link set dev {name} master {BRIDGE} up"));
        self.namespace.ip(&lines).await?;
        let mut lines = vec![
            "link set dev lo up".to_owned(),
            format!("addr add {}/24 dev eth0", self.index.node(port.number)),
            "link set dev eth0 up".to_owned(),
            format!("route add default via {}", self.index.switch()),
        ];
        lines.extend(routes_to_pods(self.index, nodes, Some(port.number)));
        port.namespace.ip(&lines).await
    }

    /// Joins two clusters.
    pub(crate) async fn link(&self, name: &str, other: &Self, other_name: &str) -> Result<()> {
        let (here, there) = (link_name(other_name), link_name(name));
        let peer = other.namespace.0.pid();
        self.namespace.ip(&[format!("link add name {here} type veth peer name {there} netns {peer}")]).await?;
        for (switch, link, far) in [(self, &here, other.index), (other, &there, self.index)] {
            let (own, peer) = switch.index.link(far);
            let mut lines = vec![format!("addr add {own}/30 dev {link}"), format!("link set dev {link} up")];
            for range in [far.nodes(), far.pods(), far.services()] {
                lines.push(format!("route add {range} via {peer}"));
            }
            switch.namespace.ip(&lines).await?;
        }
        Ok(())
    }

    pub(crate) fn cuts(&self) -> Result<Cuts> {
        Ok(files::read_json(&self.run.join("cuts.json"))?.unwrap_or_default())
    }

    /// Cuts and heals: writes what is cut now, and the filter with it.
    pub(crate) async fn change_cuts(&self, programs: &Distribution, change: impl FnOnce(&mut Cuts)) -> Result<()> {
        let mut cuts = self.cuts()?;
        change(&mut cuts);
        for (program, rules) in [("ebtables-restore", cuts.frames()), ("iptables-restore", cuts.packets())] {
            process::run(&mut self.namespace.command(programs.program(program)), &rules).await?;
        }
        files::write_json(&self.run.join("cuts.json"), &cuts, files::PUBLIC)
    }
}

fn link_name(cluster: &str) -> String {
    format!("link-{cluster}")
}

fn routes_to_pods(index: ClusterIndex, nodes: u8, except: Option<NodeNumber>) -> impl Iterator<Item = String> {
    (1..=nodes)
        .map(NodeNumber)
        .filter(move |number| Some(*number) != except)
        .map(move |number| format!("route add {} via {}", index.pods_of(number), index.node(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_node_is_cut_in_all_four_ways() {
        let cuts = Cuts { nodes: ["east1".to_owned()].into(), ..Cuts::default() };
        assert_eq!(cuts.frames().matches("east1 -j DROP").count(), 4);
        assert_eq!(cuts.packets().matches("DROP").count(), 0);
    }

    #[test]
    fn a_cut_pair_leaves_other_ways_open() {
        let cuts = Cuts { pairs: [("a1".to_owned(), "a2".to_owned())].into(), ..Cuts::default() };
        assert!(cuts.frames().ends_with("-A FORWARD -i a1 -o a2 -j DROP\n-A FORWARD -i a2 -o a1 -j DROP\n"));
        assert_eq!(cuts.frames().matches("DROP").count(), 2);
    }

    #[test]
    fn a_cut_link_drops_both_ways() {
        let cuts = Cuts { links: ["west".to_owned()].into(), ..Cuts::default() };
        assert_eq!(cuts.packets().matches("link-west -j DROP").count(), 2);
    }
}
