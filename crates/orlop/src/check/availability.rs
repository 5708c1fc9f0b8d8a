//! Whether what runs in the cluster survives the loss of a node or a zone: nodes, zones, single replicas, volumes and their copies.

use std::collections::{BTreeMap, BTreeSet};

use api::Volume;
use csi::DRIVER;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{Resource, ResourceExt};

use super::facts::Facts;
use super::finding::Finding;
use super::nodes::is_ready;
use super::replicated;

/// Where a node is, as its labels say; the second is what older clusters have.
pub(super) const ZONES: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = nodes_and_zones(facts);
    findings.push(single_replicas(facts));
    findings.extend(copies(facts));
    findings.extend(replicated::judge(facts));
    findings
}

fn nodes_and_zones(facts: &Facts) -> Vec<Finding> {
    let nodes: Vec<&Node> = match &facts.nodes {
        Ok(nodes) => nodes.iter().filter(|node| is_ready(node)).collect(),
        Err(why) => return vec![Finding::unknown("nodes", format!("they cannot be listed: {why}"))],
    };
    let count = match nodes.len() {
        0 => Finding::problem("nodes", "none is ready"),
        few @ 1..3 => Finding::warning("nodes", format!("{few} ready: the work of one has no two others to go to"))
            .next("have three nodes or more"),
        many => Finding::good("nodes", format!("{many} ready")),
    };
    let zones: BTreeSet<&str> = nodes.iter().filter_map(|node| zone(node)).collect();
    let unlabelled = nodes.iter().filter(|node| zone(node).is_none()).count();
    let names: Vec<String> = zones.iter().map(|zone| (*zone).to_owned()).collect();
    let spread = match (zones.len(), unlabelled) {
        (0, _) => Finding::unknown("zones", format!("no node says which it is in, by the label {}", ZONES[0])),
        (_, some @ 1..) => Finding::unknown("zones", format!("{some} nodes do not say which they are in; others"))
            .names(names)
            .next(format!("label them: kubectl label node NODE {}=ZONE", ZONES[0])),
        (1, 0) => Finding::warning("zones", "all nodes are in one, which ends all of them together").names(names),
        (_, 0) => Finding::good("zones", "nodes are in several").names(names),
    };
    vec![count, spread]
}

pub(super) fn zone(node: &Node) -> Option<&str> {
    ZONES.iter().find_map(|label| node.labels().get(*label)).map(String::as_str)
}

fn single_replicas(facts: &Facts) -> Finding {
    let (deployments, sets) = match (&facts.deployments, &facts.stateful_sets) {
        (Ok(deployments), Ok(sets)) => (deployments, sets),
        (Err(why), _) | (_, Err(why)) => {
            return Finding::unknown("replicas", format!("workloads cannot be listed: {why}"));
        }
    };
    let replicas = |given: Option<i32>| given.unwrap_or(1);
    let of_deployments = deployments.iter().map(|one| (path(one), one.spec.replicas));
    let of_sets = sets.iter().map(|one| (path(one), one.spec.replicas));
    let all: Vec<_> = of_deployments.chain(of_sets).filter(|(_, given)| replicas(*given) > 0).collect();
    let single: Vec<_> = all.iter().filter(|(_, given)| replicas(*given) == 1).map(|(name, _)| name.clone()).collect();
    if single.is_empty() {
        return Finding::good("replicas", format!("all {} workloads have more than one", all.len()));
    }
    let says = format!("{} of {} workloads have one, and stand still while it is moved", single.len(), all.len());
    Finding::warning("replicas", says).names(single)
}

fn path<K: Resource<DynamicType = ()>>(one: &K) -> String {
    format!("{}/{} {}", one.namespace().unwrap_or_default(), K::kind(&()), one.name_any())
}

/// How many copies persistent volumes have.
fn copies(facts: &Facts) -> Vec<Finding> {
    let volumes = match &facts.persistent_volumes {
        Ok(volumes) => volumes,
        Err(why) => return vec![Finding::unknown("copies", format!("persistent volumes cannot be listed: {why}"))],
    };
    let (mut one, mut several, mut unknown) = (Vec::new(), 0_usize, BTreeMap::<String, usize>::new());
    for volume in volumes {
        match copies_of(volume, facts) {
            Ok(1) => one.push(used_by(volume)),
            Ok(_) => several += 1,
            Err(kind) => *unknown.entry(kind).or_default() += 1,
        }
    }
    let mut findings = Vec::new();
    if !one.is_empty() {
        let says = format!("{} of {} volumes have one, and are lost with its disk", one.len(), volumes.len());
        let next = "back them up (orlop backup), or use classes with replicas";
        findings.push(Finding::warning("copies", says).names(one).next(next));
    }
    for (kind, count) in unknown {
        let says =
            format!("{count} of {} volumes are of {kind}, of which it is not known how many it keeps", volumes.len());
        findings.push(Finding::unknown("copies", says));
    }
    match (findings.is_empty(), several) {
        (false, _) => {}
        (true, 0) => findings.push(Finding::good("copies", "there are no volumes")),
        (true, _) => findings.push(Finding::good("copies", format!("{several} of {several} volumes have several"))),
    }
    findings
}

/// How many copies a volume has, or whose business that is.
fn copies_of(volume: &PersistentVolume, facts: &Facts) -> Result<u32, String> {
    let Some(spec) = &volume.spec else { return Err("an unknown kind".into()) };
    if spec.local.is_some() || spec.host_path.is_some() {
        return Ok(1);
    }
    let Some(csi) = &spec.csi else { return Err("a kind without a CSI driver".into()) };
    if csi.driver != DRIVER {
        return Err(format!("the driver {}", csi.driver));
    }
    let is_it = |one: &&Volume| one.name_any() == csi.volume_handle;
    match &facts.volumes {
        Ok(known) => Ok(known.iter().flatten().find(is_it).map_or(1, |one| one.spec.replicas)),
        Err(_) => Err(format!("the driver {DRIVER}, whose Volumes cannot be listed")),
    }
}

fn used_by(volume: &PersistentVolume) -> String {
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let named = claim.and_then(|claim| Some(format!("{}/{}", claim.namespace.as_ref()?, claim.name.as_ref()?)));
    named.unwrap_or_else(|| volume.name_any())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::tests::{facts, found, node};
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn made<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn zones_are_unknown_where_a_node_does_not_say_its_own() {
        let check = |zones: &[Option<&str>], nodes: Verdict, expected: Verdict| {
            let mut facts = facts();
            let labelled = |(i, zone): (usize, &Option<&str>)| {
                node(&format!("n{i}"), zone.map(|zone| json!({ZONES[0]: zone})).unwrap_or_else(|| json!({})))
            };
            facts.nodes = Ok(zones.iter().enumerate().map(labelled).collect());
            let all = nodes_and_zones(&facts);
            assert_eq!((found(&all, "nodes").verdict, found(&all, "zones").verdict), (nodes, expected), "{zones:?}");
        };
        use Verdict::{Good, Problem, Unknown, Warning};
        check(&[], Problem, Unknown);
        check(&[Some("a")], Warning, Warning);
        check(&[Some("a"), Some("b"), Some("a")], Good, Good);
        check(&[Some("a"), Some("b"), None], Good, Unknown);
        check(&[None, None, None], Good, Unknown);
    }

    #[test]
    fn workloads_with_one_replica_are_named_and_those_with_none_are_not_counted() {
        let mut facts = facts();
        let deployment = |name: &str, replicas: Option<i32>| {
            made(
                json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"replicas": replicas, "selector": {}, "template": {}}}),
            )
        };
        facts.deployments = Ok(vec![deployment("off", Some(0)), deployment("web", Some(2)), deployment("cart", None)]);
        let finding = single_replicas(&facts);
        assert_eq!(
            (finding.verdict, finding.names.as_slice()),
            (Verdict::Warning, &["shop/Deployment cart".to_owned()][..])
        );
        assert!(finding.says.starts_with("1 of 2 workloads"), "{}", finding.says);
        facts.deployments = Ok(vec![deployment("web", Some(2))]);
        assert_eq!(single_replicas(&facts).verdict, Verdict::Good);
        facts.stateful_sets = Err("it is forbidden".into());
        assert_eq!(single_replicas(&facts).verdict, Verdict::Unknown);
    }

    #[test]
    fn copies_are_counted_where_they_are_known_and_said_to_be_unknown_elsewhere() {
        let volume = |name: &str, source: Value| {
            let claim = json!({"namespace": "shop", "name": name});
            let mut spec = json!({"claimRef": claim});
            spec.as_object_mut().expect("a spec").extend(source.as_object().expect("a source").clone());
            made(json!({"metadata": {"name": name}, "spec": spec}))
        };
        let csi = |driver: &str, handle: &str| json!({"csi": {"driver": driver, "volumeHandle": handle}});
        let mut facts = facts();
        facts.volumes = Ok(Some(vec![made(
            json!({"metadata": {"name": "r2"}, "spec": {"bytes": 4096, "replicas": 2, "minimumInSync": 1}}),
        )]));
        facts.persistent_volumes = Ok(vec![volume("r2", csi(DRIVER, "r2"))]);
        assert_eq!(found(&copies(&facts), "copies").verdict, Verdict::Good);
        facts.persistent_volumes = Ok(vec![
            volume("r2", csi(DRIVER, "r2")),
            volume("r1", csi(DRIVER, "r1")),
            volume("disk", json!({"local": {"path": "/x"}})),
            volume("cloud", csi("ebs.csi.aws.com", "x")),
        ]);
        let all = copies(&facts);
        assert_eq!(all[0].names, ["shop/disk", "shop/r1"]);
        assert_eq!((all[1].verdict, all[1].says.contains("ebs.csi.aws.com")), (Verdict::Unknown, true));
        facts.volumes = Err("it is forbidden".into());
        assert!(copies(&facts).iter().any(|finding| finding.says.contains("whose Volumes cannot be listed")));
    }
}
