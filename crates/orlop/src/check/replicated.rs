//! How volumes with replicas are: whether all are in sync and in reach, and whether they are apart.

use std::collections::{BTreeMap, BTreeSet};

use api::{Volume, VolumePhase};
use kube::ResourceExt;

use super::availability::zone;
use super::daemons::is_at_work;
use super::facts::Facts;
use super::finding::Finding;
use super::installed::operator_is_ready;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let phase = |volume: &Volume| volume.status.as_ref().map_or(VolumePhase::Pending, |status| status.phase);
    // What is being deleted loses its replicas, as it should.
    let volumes: Vec<&Volume> = match &facts.volumes {
        Ok(volumes) => volumes.iter().flatten().filter(|volume| phase(volume) != VolumePhase::Deleting).collect(),
        Err(why) => return vec![Finding::unknown("replicated volumes", format!("they cannot be listed: {why}"))],
    };
    if volumes.is_empty() {
        return Vec::new();
    }
    let unwell: Vec<_> = volumes
        .iter()
        .filter(|volume| matches!(phase(volume), VolumePhase::Degraded | VolumePhase::Pending))
        .map(|volume| format!("{} ({:?})", volume.name_any(), phase(volume)))
        .collect();
    let mut findings = vec![match unwell.is_empty() {
        true => in_sync(facts, volumes.len()),
        false => Finding::warning("replicated volumes", format!("{} of {} lack replicas", unwell.len(), volumes.len()))
            .names(unwell)
            .next("kubectl get volumes.orlop.io -o wide"),
    }];
    findings.push(out_of_reach(facts, &volumes));
    let zones = zones_of_nodes(facts);
    if zones.values().collect::<BTreeSet<_>>().len() > 1 {
        let together: Vec<_> =
            volumes.iter().filter(|one| is_in_one_zone(one, &zones)).map(|one| one.name_any()).collect();
        if !together.is_empty() {
            let says = "volumes with all replicas in one zone, though there are several";
            findings.push(Finding::warning("replicated volumes", says).names(together));
        }
    }
    findings
}

/// What statuses say is what the operator last wrote.
fn in_sync(facts: &Facts, volumes: usize) -> Finding {
    let good = Finding::good("replicated volumes", format!("all {volumes} have all of their replicas in sync"));
    match operator_is_ready(facts) {
        Ok(true) => good,
        Ok(false) => good.doubt("no replica of the operator, which tells how they are, is ready"),
        Err(why) => {
            good.doubt(&format!("whether the operator, which tells how they are, is ready is not known: {why}"))
        }
    }
}

/// The replicas that count as in sync, and that nobody serves now: a volume learns of it only with its next write.
fn out_of_reach(facts: &Facts, volumes: &[&Volume]) -> Finding {
    if let Err(why) = facts.nodes.as_ref().map(drop).and(facts.daemons.as_ref().map(drop)) {
        return Finding::unknown("replicas in reach", format!("nodes and daemons cannot be listed: {why}"));
    }
    let away = |volume: &Volume| -> Vec<String> {
        let replicas = volume.status.iter().flat_map(|status| &status.replicas);
        let why = replicas.filter_map(|replica| Some((&replica.node, is_at_work(facts, &replica.node).err()?)));
        why.map(|(node, why)| format!("{} on {node} ({why})", volume.name_any())).collect()
    };
    let away: Vec<_> = volumes.iter().flat_map(|volume| away(volume)).collect();
    match away.is_empty() {
        true => Finding::good("replicas in reach", "the nodes of all replicas are ready, and so are their daemons"),
        false => Finding::warning("replicas in reach", "replicas that cannot be reached now, whatever volumes say")
            .names(away)
            .next("bring the nodes or their daemons back: kubectl -n orlop-storage get pods -o wide"),
    }
}

fn zones_of_nodes(facts: &Facts) -> BTreeMap<String, String> {
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    nodes.iter().filter_map(|node| Some((node.name_any(), zone(node)?.to_owned()))).collect()
}

fn is_in_one_zone(volume: &Volume, zones: &BTreeMap<String, String>) -> bool {
    let replicas = volume.status.iter().flat_map(|status| &status.replicas);
    let of_replicas: Vec<_> = replicas.map(|replica| zones.get(&replica.node)).collect();
    of_replicas.len() > 1 && of_replicas[0].is_some() && of_replicas.iter().all(|zone| *zone == of_replicas[0])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::super::availability::ZONES;
    use super::super::daemons::tests::pod_of;
    use super::super::facts::Known;
    use super::super::finding::Verdict;
    use super::super::tests::{facts, found, node};
    use super::*;

    fn made<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    /// A volume with a replica on each of two nodes.
    fn volume(phase: &str, nodes: [&str; 2]) -> Volume {
        let replica = |node: &str| json!({"replica": node, "node": node, "inSync": true});
        let status = json!({"phase": phase, "replicas": nodes.map(replica)});
        let spec = json!({"bytes": 4096, "replicas": 2, "minimumInSync": 1});
        made(json!({"metadata": {"name": "v"}, "spec": spec, "status": status}))
    }

    fn operator(ready: i32) -> Deployment {
        let metadata = json!({"name": "orlop-operator", "namespace": api::ADMIN_NAMESPACE});
        let spec = json!({"replicas": 2, "selector": {}, "template": {}});
        made(json!({"metadata": metadata, "spec": spec, "status": {"readyReplicas": ready}}))
    }

    #[test]
    fn replicas_of_a_volume_are_in_zones_of_their_own_where_there_are_several() {
        let mut facts = facts();
        facts.nodes =
            Ok([("n0", "a"), ("n1", "a"), ("n2", "b")].map(|(name, zone)| node(name, json!({ZONES[0]: zone}))).into());
        let verdicts = |facts: &Facts| {
            let all = judge(facts);
            all.iter().filter(|one| one.check == "replicated volumes").map(|one| one.verdict).collect::<Vec<_>>()
        };
        facts.deployments = Ok(vec![operator(2)]);
        facts.volumes = Ok(Some(vec![volume("Healthy", ["n0", "n2"])]));
        assert_eq!(verdicts(&facts), [Verdict::Good]);
        facts.volumes = Ok(Some(vec![volume("Degraded", ["n0", "n1"])]));
        assert_eq!(verdicts(&facts), [Verdict::Warning, Verdict::Warning]);
        facts.volumes = Ok(None);
        assert_eq!(verdicts(&facts), []);
    }

    #[test]
    fn what_a_volume_says_of_its_replicas_counts_while_somebody_tells_it() {
        let check = |phase: &str, known: Known<i32>, expected: Verdict| {
            let mut facts = facts();
            facts.volumes = Ok(Some(vec![volume(phase, ["a", "b"])]));
            facts.deployments = known.map(|ready| vec![operator(ready)]);
            let all = judge(&facts);
            assert_eq!(found(&all, "replicated volumes").verdict, expected, "{phase}: {all:?}");
        };
        check("Healthy", Ok(1), Verdict::Good);
        check("Healthy", Ok(0), Verdict::Unknown);
        check("Healthy", Err("it is forbidden".into()), Verdict::Unknown);
        check("Degraded", Ok(0), Verdict::Warning);
    }

    #[test]
    fn a_volume_that_is_being_deleted_is_not_said_to_be_in_sync() {
        let mut facts = facts();
        facts.deployments = Ok(vec![operator(1)]);
        facts.volumes = Ok(Some(vec![volume("Deleting", ["a", "b"]), volume("Healthy", ["a", "b"])]));
        let says = found(&judge(&facts), "replicated volumes").says.clone();
        assert!(says.contains("all 1 have"), "{says}");
        facts.volumes = Ok(Some(vec![volume("Deleting", ["a", "b"])]));
        assert!(judge(&facts).is_empty(), "nothing is to be said of it");
    }

    #[test]
    fn replicas_on_nodes_that_are_silent_are_named_whatever_the_volume_says() {
        let check = |nodes: Known<&[&str]>, is_ready: bool, expected: Verdict, says: &str| {
            let mut facts = facts();
            facts.volumes = Ok(Some(vec![volume("Healthy", ["a", "a"])]));
            facts.nodes = nodes.map(|all| all.iter().map(|name| node(name, json!({}))).collect());
            facts.daemons = Ok(vec![pod_of("orlop-node", is_ready)]);
            let all = judge(&facts);
            let finding = found(&all, "replicas in reach");
            assert_eq!((finding.verdict, finding.says.contains(says)), (expected, true), "{finding:?}");
        };
        check(Ok(&["a"]), true, Verdict::Good, "");
        check(Ok(&["a"]), false, Verdict::Warning, "v on a (its daemon is not ready)");
        check(Ok(&["b"]), true, Verdict::Warning, "v on a (the node is not ready)");
        check(Err("it is forbidden".into()), true, Verdict::Unknown, "it is forbidden");
    }
}
