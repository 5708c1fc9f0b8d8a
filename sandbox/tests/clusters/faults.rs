//! Cuts, dead daemons and power cuts.

use anyhow::{Result, ensure};
use sandbox::{Cluster, Daemon};

use crate::support::{self, eventually, kubectl, node_is, ping, succeeds};

pub(crate) async fn cuts_are_cut_and_heal(east: &Cluster, west: &Cluster) -> Result<()> {
    let (one, two, three) = (east.node(1)?, east.node(2)?, east.node(3)?);
    one.cut_from(&two).await?;
    ensure!(!succeeds(ping(&one, two.address()).await), "a cut pair does not reach each other");
    ensure!(succeeds(ping(&one, three.address()).await), "others do");
    one.heal_with(&two).await?;
    ensure!(succeeds(ping(&one, two.address()).await), "a healed pair does again");
    let far = west.node(1)?.address();
    ensure!(succeeds(ping(&one, far).await), "the clusters are linked");
    east.cut_link(west).await?;
    ensure!(!succeeds(ping(&one, far).await), "the link is cut");
    west.heal_link(east).await?;
    ensure!(succeeds(ping(&one, far).await), "it has healed");
    let error = one.cut_from(&west.node(1)?).await.expect_err("not of one cluster").to_string();
    ensure!(error.contains("cut their link"), "{error}");
    Ok(())
}

pub(crate) async fn lost_nodes_come_back(east: &Cluster) -> Result<()> {
    let (two, three) = (east.node(2)?, east.node(3)?);
    let pod = support::pod_on(east, "web", "east2").await?;
    let container = format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].containerID}}");
    let before = kubectl(east, &container).await?;
    two.kill_daemon(Daemon::Kubelet).await?;
    two.kill_daemon(Daemon::Containerd).await?;
    ensure!(!two.daemon_runs(Daemon::Kubelet)?, "the kubelet is dead");
    three.cut().await?;
    ensure!(!succeeds(ping(&east.node(1)?, three.address()).await), "a cut node is not reached");
    for node in [&two, &three] {
        eventually(&format!("{node} is not ready"), async || Ok(!node_is(east, node, "True").await?)).await?;
    }
    three.heal().await?;
    two.start().await?;
    for node in [&two, &three] {
        eventually(&format!("{node} is ready again"), async || node_is(east, node, "True").await).await?;
    }
    ensure!(kubectl(east, &container).await? == before, "the container has outlived its kubelet");
    eventually("commands run in it again", async || Ok(succeeds(kubectl(east, &format!("exec {pod} -- true")).await)))
        .await
}

pub(crate) async fn what_is_stopped_starts_again(east: &Cluster) -> Result<()> {
    let (control_plane, three) = (east.control_plane(), east.node(3)?);
    for (node, daemon) in [(&control_plane, Daemon::Scheduler), (&three, Daemon::Proxy), (&three, Daemon::Containerd)] {
        let before = node.daemon_pid(daemon)?;
        ensure!(before.is_some(), "{node}/{daemon} runs");
        node.stop_daemon(daemon).await?;
        ensure!(!node.daemon_runs(daemon)?, "{node}/{daemon} has been stopped");
        node.start_daemon(daemon).await?;
        let after = node.daemon_pid(daemon)?;
        ensure!(after.is_some() && after != before, "{node}/{daemon} runs anew: {before:?}, {after:?}");
    }
    let pod = support::pod_on(east, "web", "east3").await?;
    let restarts = format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].restartCount}}");
    ensure!(kubectl(east, &restarts).await? == "0", "containers outlive their containerd");
    three.stop().await?;
    ensure!(!three.is_on()? && !three.daemon_runs(Daemon::Kubelet)?, "the node is off with all its daemons");
    three.start().await?;
    for daemon in three.daemons() {
        ensure!(three.daemon_runs(*daemon)?, "{three}/{daemon} runs");
    }
    eventually("its pod runs again", async || Ok(succeeds(kubectl(east, &format!("exec {pod} -- true")).await))).await
}

pub(crate) async fn a_power_cut_is_survived(east: &Cluster) -> Result<()> {
    let (control_plane, one) = (east.control_plane(), east.node(1)?);
    one.kill().await?;
    ensure!(!one.is_on()?, "the node is off");
    let error = one.exec(&["true"]).await.expect_err("it is off").to_string();
    ensure!(error.contains("sandbox start east1"), "{error}");
    control_plane.kill().await?;
    control_plane.start().await?;
    one.start().await?;
    let pod = support::pod_on(east, "web", "east1").await?;
    eventually("the node's pod runs again", async || Ok(succeeds(kubectl(east, &format!("exec {pod} -- true")).await)))
        .await?;
    east.control_plane().kill_daemon(Daemon::ApiServer).await?;
    east.control_plane().start_daemon(Daemon::ApiServer).await?;
    kubectl(east, "get nodes").await.map(drop)
}
