//! Whether snapshots can be taken: of the volumes of each driver that has storage classes, and of Orlop's own.

use std::collections::BTreeSet;

use csi::DRIVER;
use k8s_openapi::api::core::v1::PodSpec;

use super::facts::Facts;
use super::finding::Finding;
use super::installed::{ready, words};

/// By it a snapshot-controller gives each snapshot to the node of its volume.
const DISTRIBUTED: &str = "--enable-distributed-snapshotting";

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let with_classes = match &facts.snapshot_drivers {
        Err(why) => return vec![Finding::unknown("snapshots", format!("their classes cannot be listed: {why}"))],
        Ok(None) => {
            let says = "the cluster has no kinds of snapshots: volumes are read while applications run";
            let next = "install the CRDs and the controller of external-snapshotter";
            return vec![Finding::warning("snapshots", says).next(next)];
        }
        Ok(Some(drivers)) => drivers,
    };
    let mut findings = vec![snapshot_controller(facts, with_classes)];
    if let Ok(classes) = &facts.classes {
        let without: BTreeSet<_> =
            classes.iter().map(|class| class.provisioner.clone()).filter(|one| !with_classes.contains(one)).collect();
        if !without.is_empty() {
            let says = "storage classes of drivers without a class of snapshots, whose volumes are read while applications run";
            findings.push(Finding::warning("snapshots", says).names(without.into_iter().collect()));
        }
    }
    findings
}

fn snapshot_controller(facts: &Facts, drivers: &[String]) -> Finding {
    let deployments = match &facts.deployments {
        Ok(deployments) => deployments,
        Err(why) => return Finding::unknown("snapshots", format!("deployments cannot be listed: {why}")),
    };
    let pods = deployments.iter().filter_map(|one| Some((ready(one), one.spec.template.spec.as_ref()?)));
    let is_controller = |(_, spec): &(i32, &PodSpec)| {
        spec.containers.iter().any(|c| c.image.as_deref().is_some_and(|image| image.contains("snapshot-controller")))
    };
    // Of several, the one that works.
    let Some((ready, spec)) = pods.filter(is_controller).max_by_key(|(ready, _)| *ready) else {
        return Finding::unknown(
            "snapshots",
            "the kinds are there, and no deployment of a snapshot-controller is seen",
        );
    };
    let is_on = words(spec).any(|word| word == DISTRIBUTED || word == format!("{DISTRIBUTED}=true"));
    if drivers.iter().any(|driver| driver == DRIVER) && !is_on {
        let says = "the snapshot-controller gives no snapshots to nodes, so none are taken of Orlop's volumes";
        return Finding::problem("snapshots", says).next(format!("run it with {DISTRIBUTED}=true"));
    }
    if ready == 0 {
        let says = "no replica of the snapshot-controller is ready, so none are taken";
        return Finding::problem("snapshots", says).next("kubectl get deployments -A; look at its pods");
    }
    Finding::good("snapshots", "the kinds and a snapshot-controller are there")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::tests::{facts, found};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_snapshot_controller_that_gives_nothing_to_nodes_takes_no_snapshots_of_ours() {
        let controller = |args: &[&str], ready: i32| {
            let container =
                json!({"name": "c", "image": "registry.k8s.io/sig-storage/snapshot-controller:v8", "args": args});
            let template = json!({"spec": {"containers": [container]}});
            let spec = json!({"selector": {}, "template": template});
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec, "status": {"readyReplicas": ready}}))
                .expect("a Deployment")
        };
        let check_with = |drivers: Option<&[&str]>, args: Option<&[&str]>, ready: i32, expected: Verdict| {
            let mut facts = facts();
            facts.snapshot_drivers = Ok(drivers.map(|all| all.iter().map(|one| (*one).to_owned()).collect()));
            facts.deployments = Ok(args.map(|args| controller(args, ready)).into_iter().collect());
            assert_eq!(found(&judge(&facts), "snapshots").verdict, expected, "{drivers:?} {args:?}");
        };
        let check =
            |drivers: Option<&[&str]>, args: Option<&[&str]>, expected: Verdict| check_with(drivers, args, 1, expected);
        check(None, None, Verdict::Warning);
        check(Some(&[DRIVER]), None, Verdict::Unknown);
        check(Some(&[DRIVER]), Some(&["--v=2"]), Verdict::Problem);
        check(Some(&[DRIVER]), Some(&["--enable-distributed-snapshotting=false"]), Verdict::Problem);
        check(Some(&[DRIVER]), Some(&["--enable-distributed-snapshotting=true"]), Verdict::Good);
        check(Some(&["ebs.csi.aws.com"]), Some(&["--v=2"]), Verdict::Good);
        check_with(Some(&["ebs.csi.aws.com"]), Some(&["--v=2"]), 0, Verdict::Problem);
        check_with(Some(&[DRIVER]), Some(&["--enable-distributed-snapshotting=true"]), 0, Verdict::Problem);
    }
}
