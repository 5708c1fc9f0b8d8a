//! The daemons of nodes, and the pools that they have.

use api::StorageNode;
use csi::DRIVER;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use super::control_plane;
use super::facts::{Facts, Known};
use super::finding::Finding;
use super::nodes::is_ready;

/// A pool is short of room below this part of it.
const SHORT_OF_ROOM: u64 = 10;

pub(super) fn has_daemons(facts: &Facts) -> Known<bool> {
    let sets = facts.daemon_sets.as_ref().map_err(Clone::clone)?;
    Ok(sets.iter().any(|set| set.name_any() == "orlop-node"))
}

/// Whether the daemon of a node is at work, so that what the node tells is so now; else why not.
pub(super) fn is_at_work(facts: &Facts, node: &str) -> Result<(), String> {
    let cannot = |why: &String| format!("whether its daemon is at work is not known: {why}");
    let nodes = facts.nodes.as_ref().map_err(cannot)?;
    let pods = facts.daemons.as_ref().map_err(cannot)?;
    if !nodes.iter().any(|one| one.name_any() == node && is_ready(one)) {
        return Err("the node is not ready".to_owned());
    }
    match pod(pods, node, "orlop-node") {
        Some(pod) if control_plane::is_ready(pod) => Ok(()),
        _ => Err("its daemon is not ready".to_owned()),
    }
}

fn pod<'a>(pods: &'a [Pod], node: &str, daemon: &str) -> Option<&'a Pod> {
    let is_it = |pod: &&Pod| {
        pod.labels().get("app.kubernetes.io/name").is_some_and(|of| of == daemon)
            && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
    };
    // While one is replaced there are two.
    let mut all: Vec<_> = pods.iter().filter(is_it).collect();
    all.sort_by_key(|pod| !control_plane::is_ready(pod));
    all.first().copied()
}

pub(super) fn daemon(facts: &Facts, node: &Node) -> Finding {
    let (pods, registered) = match (&facts.daemons, &facts.csi_nodes) {
        (Ok(pods), Ok(registered)) => (pods, registered),
        (Err(why), _) | (_, Err(why)) => return Finding::unknown("daemon", format!("it cannot be looked for: {why}")),
    };
    let name = node.name_any();
    let look = format!("kubectl -n {} get pods --field-selector spec.nodeName={name}", api::STORAGE_NAMESPACE);
    let is_there = |daemon: &str| pod(pods, &name, daemon).map(control_plane::is_ready);
    let knows = registered.iter().find(|one| one.name_any() == name);
    let knows = knows.is_some_and(|one| one.spec.drivers.iter().any(|driver| driver.name == DRIVER));
    match (is_there("orlop-node"), is_there("orlop-keeper"), knows) {
        (None, ..) => Finding::warning("daemon", "none runs here: pods with Orlop's volumes cannot"),
        (Some(false), ..) => Finding::problem("daemon", "it is not ready").next(look),
        (_, None | Some(false), _) => {
            Finding::problem("daemon", "its keeper is not ready: block devices end with the daemon").next(look)
        }
        (.., false) => Finding::problem("daemon", format!("the kubelet does not know the driver {DRIVER}")).next(look),
        _ => Finding::good("daemon", "it is ready, its keeper is, and the kubelet knows the driver"),
    }
}

pub(super) fn version(node: &StorageNode) -> Option<Finding> {
    let version = node.status.as_ref()?.version.as_ref()?;
    Some(match version == env!("CARGO_PKG_VERSION") {
        true => Finding::good("daemon version", version.clone()),
        false => {
            Finding::warning("daemon version", format!("{version}, and this program is {}", env!("CARGO_PKG_VERSION")))
        }
    })
}

pub(super) fn pools(node: &StorageNode) -> Finding {
    let pools = node.status.as_ref().map(|status| status.pools.as_slice()).unwrap_or_default();
    let is_short = |pool: &&api::StoragePool| pool.free_bytes < pool.bytes / 100 * SHORT_OF_ROOM;
    let failed: Vec<_> = pools.iter().filter(|pool| pool.failed).map(|pool| pool.name.clone()).collect();
    let short: Vec<_> = pools.iter().filter(is_short).map(|pool| pool.name.clone()).collect();
    if pools.is_empty() {
        return Finding::unknown("pools", "the node tells of none");
    }
    if !failed.is_empty() {
        return Finding::problem("pools", "pools have failed, and take no changes")
            .names(failed)
            .next("orlop store check POOL, on the node");
    }
    if !short.is_empty() {
        return Finding::warning("pools", format!("less than {SHORT_OF_ROOM} % is free")).names(short);
    }
    let sum = |of: fn(&api::StoragePool) -> u64| crate::human::bytes(pools.iter().map(of).sum());
    Finding::good("pools", format!("{} of {} are free", sum(|pool| pool.free_bytes), sum(|pool| pool.bytes)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Verdict;
    use super::super::tests::{facts, node};
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn told(status: Value) -> StorageNode {
        let node = json!({"metadata": {"name": "a"}, "spec": {"drain": false}, "status": status});
        serde_json::from_value(node).expect("a StorageNode")
    }

    #[test]
    fn pools_that_fail_or_run_full_are_told() {
        let pool =
            |free: u64, failed: bool| json!({"name": "pool", "bytes": 1000, "freeBytes": free, "failed": failed});
        let verdict = |all: Value| pools(&told(json!({"pools": all}))).verdict;
        assert_eq!(verdict(json!([pool(500, false)])), Verdict::Good);
        assert_eq!(verdict(json!([pool(500, false), pool(99, false)])), Verdict::Warning);
        assert_eq!(verdict(json!([pool(500, true)])), Verdict::Problem);
        assert_eq!(verdict(json!([])), Verdict::Unknown);
    }

    /// A pod of a daemon on the node `a`.
    pub(crate) fn pod_of(name: &str, ready: bool) -> Pod {
        let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
        let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": name}});
        let pod = json!({"metadata": metadata, "spec": {"nodeName": "a", "containers": []}, "status": {"conditions": conditions}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_daemon_is_at_work_where_its_node_and_its_pod_are_ready() {
        let check = |nodes: Known<Vec<Node>>, pods: Known<Vec<Pod>>, expected: bool| {
            let facts = Facts { nodes, daemons: pods, ..facts() };
            assert_eq!(is_at_work(&facts, "a").is_ok(), expected, "{:?} {:?}", facts.nodes, facts.daemons);
        };
        let ready = || Ok(vec![node("a", json!({}))]);
        let silent = || {
            let mut node = node("a", json!({}));
            node.status.as_mut().expect("a node tells of itself").conditions = None;
            Ok(vec![node])
        };
        let of = |all: &[(&str, bool)]| Ok(all.iter().map(|(name, ready)| pod_of(name, *ready)).collect());
        check(ready(), of(&[("orlop-node", true)]), true);
        check(ready(), of(&[("orlop-node", false), ("orlop-node", true)]), true);
        check(ready(), of(&[("orlop-node", false)]), false);
        check(ready(), of(&[("orlop-keeper", true)]), false);
        check(silent(), of(&[("orlop-node", true)]), false);
        check(Ok(Vec::new()), of(&[("orlop-node", true)]), false);
        check(Err("it is forbidden".into()), of(&[("orlop-node", true)]), false);
        check(ready(), Err("it is forbidden".into()), false);
    }

    #[test]
    fn a_daemon_is_well_with_its_keeper_and_a_kubelet_that_knows_it() {
        let check = |daemon: Option<bool>, keeper: Option<bool>, known: bool, expected: Verdict| {
            let mut facts = facts();
            let daemon = daemon.map(|ready| pod_of("orlop-node", ready));
            facts.daemons = Ok(daemon.into_iter().chain(keeper.map(|ready| pod_of("orlop-keeper", ready))).collect());
            let drivers = if known { json!([{"name": DRIVER, "nodeID": "a"}]) } else { json!([]) };
            let csi_node = json!({"metadata": {"name": "a"}, "spec": {"drivers": drivers}});
            facts.csi_nodes = Ok(vec![serde_json::from_value(csi_node).expect("a CSINode")]);
            let finding = super::daemon(&facts, &node("a", json!({})));
            assert_eq!(finding.verdict, expected, "{daemon:?} {keeper:?} {known}", daemon = facts.daemons);
        };
        check(Some(true), Some(true), true, Verdict::Good);
        check(Some(true), Some(true), false, Verdict::Problem);
        check(Some(true), None, true, Verdict::Problem);
        check(Some(false), Some(true), true, Verdict::Problem);
        check(None, None, false, Verdict::Warning);
    }
}
