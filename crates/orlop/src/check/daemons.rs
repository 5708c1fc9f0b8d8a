//! The daemons of nodes, and the pools that they have.

use api::StorageNode;
use csi::DRIVER;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use super::control_plane;
use super::facts::Facts;
use super::finding::Finding;

/// A pool is short of room below this part of it.
const SHORT_OF_ROOM: u64 = 10;

pub(super) fn has_daemons(facts: &Facts) -> bool {
    facts.daemon_sets.as_deref().unwrap_or_default().iter().any(|set| set.name_any() == "orlop-node")
}

pub(super) fn daemon(facts: &Facts, node: &Node) -> Finding {
    let (pods, registered) = match (&facts.daemons, &facts.csi_nodes) {
        (Ok(pods), Ok(registered)) => (pods, registered),
        (Err(why), _) | (_, Err(why)) => return Finding::unknown("daemon", format!("it cannot be looked for: {why}")),
    };
    let name = node.name_any();
    let look = format!("kubectl -n {} get pods --field-selector spec.nodeName={name}", api::STORAGE_NAMESPACE);
    let is_there = |daemon: &str| {
        let is_it = |pod: &&Pod| {
            pod.labels().get("app.kubernetes.io/name").is_some_and(|of| of == daemon)
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&name)
        };
        pods.iter().find(is_it).map(control_plane::is_ready)
    };
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

    #[test]
    fn a_daemon_is_well_with_its_keeper_and_a_kubelet_that_knows_it() {
        let check = |daemon: Option<bool>, keeper: Option<bool>, known: bool, expected: Verdict| {
            let mut facts = facts();
            let pod = |name: &str, ready: bool| {
                let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
                let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": name}});
                let pod = json!({"metadata": metadata, "spec": {"nodeName": "a", "containers": []}, "status": {"conditions": conditions}});
                serde_json::from_value(pod).expect("a pod")
            };
            let daemon = daemon.map(|ready| pod("orlop-node", ready));
            facts.daemons = Ok(daemon.into_iter().chain(keeper.map(|ready| pod("orlop-keeper", ready))).collect());
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
