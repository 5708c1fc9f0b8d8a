//! What each node has: a kernel, a kubelet, and where Orlop's volumes are, its daemon, front ends, file systems and pools.

use api::{StorageMachine, StorageNode};
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo};
use kube::ResourceExt;

use super::daemons::{daemon, has_daemons, is_at_work, pools, version};
use super::facts::Facts;
use super::finding::Finding;
use super::installed::minor;

/// Linux from which on block devices outlive the daemon that serves them.
const OUTLIVES: (u32, u32) = (6, 9);
/// By how many minor versions a kubelet may be older than the server; it may not be newer.
const SKEW: u32 = 3;
/// The file systems that volumes are made with.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

/// The names of the nodes that can have volumes.
pub(crate) fn names(facts: &Facts) -> Vec<String> {
    linux(facts).map(ResourceExt::name_any).collect()
}

fn linux(facts: &Facts) -> impl Iterator<Item = &Node> {
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    nodes.iter().filter(|node| info(node).is_none_or(|info| info.operating_system != "windows"))
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    linux(facts).flat_map(|node| about(facts, node)).collect()
}

fn about(facts: &Facts, node: &Node) -> Vec<Finding> {
    let name = node.name_any();
    let told = storage_node(facts, &name);
    let mut findings = vec![ready(node), kernel(node), kubelet(facts, node)];
    match has_daemons(facts) {
        Ok(true) => findings.push(daemon(facts, node)),
        Ok(false) => {}
        Err(why) => findings.push(Finding::unknown("daemon", format!("daemons cannot be looked for: {why}"))),
    }
    let mut words = machine(facts, told).to_vec();
    words.extend(told.and_then(version));
    words.extend(told.map(pools));
    // What a daemon has told stays written down when it is silent.
    match is_at_work(facts, &name) {
        Ok(()) => findings.extend(words),
        Err(why) => findings.extend(words.into_iter().map(|word| word.doubt(&why))),
    }
    findings.into_iter().map(|finding| finding.of_node(&name)).collect()
}

fn info(node: &Node) -> Option<&NodeSystemInfo> {
    node.status.as_ref()?.node_info.as_ref()
}

pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ready(node: &Node) -> Finding {
    match is_ready(node) {
        true => Finding::good("ready", "its kubelet says that it is"),
        false => Finding::problem("ready", "it is not").next(format!("kubectl describe node {}", node.name_any())),
    }
}

/// The first two numbers of `6.8.0-45-generic`.
fn release(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the block devices of a node go on while the daemon that serves them is replaced. Of a kernel that is not known they may not.
pub(crate) fn devices_outlive_daemons(node: &Node) -> bool {
    info(node).and_then(|info| release(&info.kernel_version)).is_some_and(|release| release >= OUTLIVES)
}

fn kernel(node: &Node) -> Finding {
    let kernel = info(node).map(|info| info.kernel_version.as_str()).unwrap_or_default();
    match release(kernel) {
        None => Finding::unknown("kernel", format!("{kernel:?} is no version that this program understands")),
        Some(release) if release < OUTLIVES => {
            let says = format!("Linux {kernel}: block devices end with the daemon that serves them");
            let next =
                format!("drain the node before its daemon is replaced, or have Linux {}.{}", OUTLIVES.0, OUTLIVES.1);
            Finding::warning("kernel", says).next(next)
        }
        Some(_) => {
            Finding::good("kernel", format!("Linux {kernel}: block devices outlive the daemon that serves them"))
        }
    }
}

fn kubelet(facts: &Facts, node: &Node) -> Finding {
    let kubelet = info(node).map(|info| info.kubelet_version.as_str()).unwrap_or_default();
    let server = facts.version.as_deref().unwrap_or_default();
    match (minor(kubelet), minor(server)) {
        (Some(of_node), Some(of_server)) if of_node > of_server => {
            Finding::warning("kubelet", format!("{kubelet} is newer than the server, {server}"))
        }
        (Some(of_node), Some(of_server)) if of_node + SKEW < of_server => {
            Finding::warning("kubelet", format!("{kubelet} is too old for the server, {server}"))
        }
        (Some(_), Some(_)) => Finding::good("kubelet", kubelet),
        _ => Finding::unknown("kubelet", format!("{kubelet:?} cannot be compared with the server, {server:?}")),
    }
}

fn storage_node<'a>(facts: &'a Facts, name: &str) -> Option<&'a StorageNode> {
    facts.storage_nodes.as_ref().ok()?.as_ref()?.iter().find(|one| one.name_any() == name)
}

/// What can only be seen on the node itself, and is told by its daemon, where that speaks to the API server.
fn machine(facts: &Facts, told: Option<&StorageNode>) -> [Finding; 2] {
    let machine = told.and_then(|node| node.status.as_ref()?.machine.as_ref());
    let Some(machine) = machine else {
        let why = match (&facts.storage_nodes, has_daemons(facts)) {
            (Err(why), _) => format!("what nodes tell cannot be listed: {why}"),
            (_, Err(why)) => format!("whether there is a daemon of Orlop to tell cannot be looked for: {why}"),
            (_, Ok(true)) => "its daemon has not told; it does where volumes have replicas on several nodes".to_owned(),
            (_, Ok(false)) => "there is no daemon of Orlop to tell".to_owned(),
        };
        return ["front ends", "file systems"].map(|check| Finding::unknown(check, why.clone()));
    };
    [front_ends(machine), file_systems(machine)]
}

fn front_ends(machine: &StorageMachine) -> Finding {
    let wanted = [("FUSE (/dev/fuse)", machine.fuse), ("loop devices (/dev/loop-control)", machine.loop_devices)];
    let missing: Vec<_> = wanted.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    match missing.is_empty() {
        true => Finding::good("front ends", "block devices can be made: FUSE and loop devices are there"),
        false => Finding::problem(
            "front ends",
            format!("no block devices can be made: {} cannot be opened", missing.join(" and ")),
        )
        .next("load the modules on the node: modprobe fuse loop"),
    }
}

fn file_systems(machine: &StorageMachine) -> Finding {
    let missing: Vec<_> =
        FILE_SYSTEMS.iter().filter(|one| !machine.file_systems.iter().any(|has| has == *one)).collect();
    let has = machine.file_systems.join(", ");
    match missing.as_slice() {
        [] => Finding::good("file systems", has),
        [one] => Finding::warning("file systems", format!("{has}; the image lacks the programs for {one}")),
        _ => Finding::problem("file systems", "the image has the programs for none: volumes are raw devices only")
            .next("use an image with e2fsprogs and xfsprogs in it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::daemons::tests::{pod_of, told};
    use super::super::finding::Verdict;
    use super::super::tests::{facts, found, node};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn kernels_are_told_by_their_first_two_numbers() {
        for (text, expected) in
            [("6.8.0-45-generic", Some((6, 8))), ("6.12", Some((6, 12))), ("", None), ("next", None)]
        {
            assert_eq!(release(text), expected, "{text}");
        }
        let verdict = |kernel: &str| {
            let mut node = node("a", json!({}));
            let info =
                node.status.as_mut().and_then(|status| status.node_info.as_mut()).expect("a node tells of itself");
            kernel.clone_into(&mut info.kernel_version);
            super::kernel(&node).verdict
        };
        assert_eq!(
            ["6.9.0", "6.10.1", "6.8.12", "5.15.0", "x"].map(verdict),
            [Verdict::Good, Verdict::Good, Verdict::Warning, Verdict::Warning, Verdict::Unknown]
        );
    }

    #[test]
    fn kubelets_may_be_older_than_the_server_by_so_much() {
        let verdict = |server: &str| {
            let mut facts = facts();
            facts.version = Ok(server.to_owned());
            // Its kubelet is of 1.30.
            kubelet(&facts, &node("a", json!({}))).verdict
        };
        assert_eq!(
            ["v1.30.9", "v1.33.0", "v1.34.0", "v1.29.0", "?"].map(verdict),
            [Verdict::Good, Verdict::Good, Verdict::Warning, Verdict::Warning, Verdict::Unknown]
        );
    }

    #[test]
    fn what_only_the_node_can_see_is_unknown_until_it_tells() {
        let verdicts = |status: Option<Value>| {
            let mut facts = facts();
            facts.storage_nodes = Ok(Some(status.map(told).into_iter().collect()));
            machine(&facts, storage_node(&facts, "a")).map(|finding| finding.verdict)
        };
        let machine = |fuse: bool, file_systems: &[&str]| {
            Some(json!({"machine": {"fuse": fuse, "loopDevices": true, "fileSystems": file_systems}}))
        };
        assert_eq!(verdicts(None), [Verdict::Unknown, Verdict::Unknown]);
        assert_eq!(verdicts(Some(json!({"freeBytes": 1}))), [Verdict::Unknown, Verdict::Unknown]);
        assert_eq!(verdicts(machine(true, &["ext4", "xfs"])), [Verdict::Good, Verdict::Good]);
        assert_eq!(verdicts(machine(false, &["ext4"])), [Verdict::Problem, Verdict::Warning]);
        assert_eq!(verdicts(machine(true, &[])), [Verdict::Good, Verdict::Problem]);
    }

    #[test]
    fn the_last_words_of_a_silent_daemon_are_not_good() {
        let verdicts = |ready: Option<bool>, free: u64| {
            let mut facts = facts();
            facts.nodes = Ok(vec![node("a", json!({}))]);
            facts.daemons = Ok(ready.map(|ready| pod_of("orlop-node", ready)).into_iter().collect());
            let machine = json!({"fuse": true, "loopDevices": true, "fileSystems": ["ext4", "xfs"]});
            let pool = json!({"name": "p", "bytes": 1000, "freeBytes": free, "failed": false});
            let status = json!({"machine": machine, "version": env!("CARGO_PKG_VERSION"), "pools": [pool]});
            facts.storage_nodes = Ok(Some(vec![told(status)]));
            let all = judge(&facts);
            ["front ends", "file systems", "daemon version", "pools"].map(|check| found(&all, check).verdict)
        };
        use Verdict::{Good, Unknown, Warning};
        assert_eq!(verdicts(Some(true), 500), [Good, Good, Good, Good]);
        assert_eq!(verdicts(Some(false), 500), [Unknown, Unknown, Unknown, Unknown]);
        assert_eq!(verdicts(None, 500), [Unknown, Unknown, Unknown, Unknown]);
        // What was bad is not better for it.
        assert_eq!(verdicts(Some(false), 10), [Unknown, Unknown, Unknown, Warning]);
    }

    #[test]
    fn daemons_that_cannot_be_looked_for_are_not_said_to_be_absent() {
        let mut facts = facts();
        facts.nodes = Ok(vec![node("a", json!({}))]);
        facts.daemon_sets = Err("it is forbidden".into());
        let all = judge(&facts);
        assert_eq!(found(&all, "daemon").verdict, Verdict::Unknown);
        assert!(found(&all, "front ends").says.contains("it is forbidden"), "{}", found(&all, "front ends").says);
    }

    #[test]
    fn without_daemons_nothing_is_said_of_them() {
        let mut facts = facts();
        facts.nodes = Ok(vec![node("a", json!({}))]);
        let all = judge(&facts);
        assert!(all.iter().all(|finding| finding.check != "daemon" && finding.node.as_deref() == Some("a")));
        assert_eq!(found(&all, "front ends").verdict, Verdict::Unknown);
    }
}
