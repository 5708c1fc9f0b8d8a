//! What the cluster has for Orlop, and what of Orlop it has: versions, custom resources, the operator, snapshots, the scheduler, classes.

use csi::DRIVER;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use super::definitions::{Compared, compare};
use super::facts::{Facts, Known};
use super::finding::Finding;
use super::snapshots;

/// The first minor version of Kubernetes 1 that Orlop works with.
const OLDEST: u32 = 20;

/// By these a scheduler is told what to do otherwise than by its defaults; policies were until Kubernetes 1.22.
const OWN_CONFIGURATION: [&str; 3] = ["--config", "--policy-config-file", "--policy-configmap"];

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(&facts.version), crds(facts), operator(facts)];
    findings.extend(snapshots::judge(facts));
    findings.push(capacity(facts));
    findings.push(scheduler(facts));
    findings.extend(classes(&facts.classes));
    findings
}

/// The minor version in `v1.20.2`, or in what providers make of it.
pub(crate) fn minor(version: &str) -> Option<u32> {
    let minor = version.trim_start_matches('v').strip_prefix("1.")?;
    minor.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn version(known: &Known<String>) -> Finding {
    let version = match known {
        Ok(version) => version,
        Err(why) => return Finding::unknown("kubernetes", format!("the server does not tell its version: {why}")),
    };
    match minor(version) {
        Some(minor) if minor >= OLDEST => Finding::good("kubernetes", version.clone()),
        Some(_) => {
            let says = format!("{version} is older than what Orlop works with, which is 1.{OLDEST} and later");
            Finding::problem("kubernetes", says)
        }
        None => Finding::unknown("kubernetes", format!("{version} is no version that this program understands")),
    }
}

fn crds(facts: &Facts) -> Finding {
    let found = match &facts.crds {
        Ok(found) => found,
        Err(why) => return Finding::unknown("custom resources", format!("they cannot be listed: {why}")),
    };
    let (mut missing, mut other, mut newer) = (Vec::new(), Vec::new(), Vec::new());
    for wanted in api::crds::all() {
        match found.iter().find(|one| one.name_any() == wanted.name_any()) {
            None => missing.push(wanted.name_any()),
            Some(one) => match compare(one, &wanted) {
                Compared::Same => {}
                Compared::Older | Compared::Apart => other.push(wanted.name_any()),
                Compared::Newer => newer.push(wanted.name_any()),
            },
        }
    }
    let install = "orlop crds | kubectl apply --server-side -f -";
    if missing.len() == api::crds::all().len() {
        return Finding::warning("custom resources", "Orlop is not installed").next(install);
    }
    if !missing.is_empty() {
        return Finding::problem("custom resources", "some are not there").names(missing).next(install);
    }
    if !other.is_empty() {
        return Finding::problem("custom resources", "some lack fields or values that this version knows")
            .names(other)
            .next(install);
    }
    if !newer.is_empty() {
        let says = format!("some are newer than version {}", env!("CARGO_PKG_VERSION"));
        return Finding::warning("custom resources", says)
            .names(newer)
            .next("use the program of the version that the cluster has");
    }
    Finding::good("custom resources", format!("all are those of version {}", env!("CARGO_PKG_VERSION")))
}

/// The words of all containers of a pod.
pub(crate) fn words(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let words = spec.containers.iter().flat_map(|c| c.command.iter().flatten().chain(c.args.iter().flatten()));
    words.map(String::as_str)
}

fn operator(facts: &Facts) -> Finding {
    let deployment = match operator_deployment(facts) {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return Finding::warning("operator", "it is not installed").next("orlop install"),
        Err(why) => return Finding::unknown("operator", format!("deployments cannot be listed: {why}")),
    };
    let ready = ready(deployment);
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let says = format!("{ready} of {wanted} are ready");
    let look = format!("kubectl -n {} describe pods", api::ADMIN_NAMESPACE);
    match ready {
        0 => Finding::problem("operator", says).next(look),
        ready if ready < wanted => Finding::warning("operator", says).next(look),
        1 => Finding::warning("operator", format!("{says}: none stands by, should its node end"))
            .next(format!("kubectl -n {} scale deployment orlop-operator --replicas 2", api::ADMIN_NAMESPACE)),
        _ => Finding::good("operator", says),
    }
}

fn operator_deployment(facts: &Facts) -> Known<Option<&Deployment>> {
    let is_it = |one: &&Deployment| {
        one.name_any() == "orlop-operator" && one.namespace().as_deref() == Some(api::ADMIN_NAMESPACE)
    };
    Ok(facts.deployments.as_ref().map_err(Clone::clone)?.iter().find(is_it))
}

pub(super) fn operator_is_ready(facts: &Facts) -> Known<bool> {
    Ok(operator_deployment(facts)?.is_some_and(|operator| ready(operator) > 0))
}

/// How many of its pods are ready.
pub(crate) fn ready(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
}

fn capacity(facts: &Facts) -> Finding {
    match &facts.knows_capacity {
        Ok(true) => Finding::good("capacity", "the scheduler sees how much room nodes have for volumes"),
        Ok(false) => {
            let says =
                "the scheduler does not see how much room nodes have: a pod may wait on a node whose pool is full";
            Finding::warning("capacity", says).next("it does from Kubernetes 1.24 on")
        }
        Err(why) => Finding::unknown("capacity", format!("what the server knows of storage cannot be listed: {why}")),
    }
}

fn scheduler(facts: &Facts) -> Finding {
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => return Finding::unknown("scheduler", format!("pods cannot be listed: {why}")),
    };
    let of_schedulers = pods.iter().filter(|pod| super::control_plane::is_of(pod, "kube-scheduler"));
    let specs: Vec<_> = of_schedulers.filter_map(|pod| pod.spec.as_ref()).collect();
    if specs.is_empty() {
        return Finding::unknown("scheduler", "it runs in no pod that is seen here, so its configuration is not known");
    }
    let is_own = |word: &str| OWN_CONFIGURATION.contains(&word.split('=').next().unwrap_or_default());
    let has_own = |spec: &&PodSpec| words(spec).any(is_own);
    if specs.iter().any(has_own) {
        let says =
            "it has a configuration of its own, which is not seen from here: VolumeBinding must be enabled there";
        return Finding::unknown("scheduler", says);
    }
    Finding::good("scheduler", "it has its own defaults, by which pods go where their volumes can be")
}

/// Where a class of ours does not wait for the first pod, no node takes its claims.
fn classes(known: &Known<Vec<StorageClass>>) -> Option<Finding> {
    let classes = match known {
        Ok(classes) => classes,
        Err(why) => return Some(Finding::unknown("classes", format!("storage classes cannot be listed: {why}"))),
    };
    let ours = || classes.iter().filter(|class| class.provisioner == DRIVER);
    let waits = |class: &&StorageClass| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let hasty: Vec<_> = ours().filter(|class| !waits(class)).map(ResourceExt::name_any).collect();
    if !hasty.is_empty() {
        let says = "classes that do not wait for the first pod, so that claims of them get no volume";
        let next = "make them again with volumeBindingMode: WaitForFirstConsumer";
        return Some(Finding::problem("classes", says).names(hasty).next(next));
    }
    let names: Vec<_> = ours().map(ResourceExt::name_any).collect();
    (!names.is_empty()).then(|| Finding::good("classes", "classes of Orlop's volumes").names(names))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::tests::facts;
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_understood_as_providers_write_them() {
        for (text, expected) in [
            ("v1.20.2", Some(20)),
            ("v1.31.4-eks-a1b2c3", Some(31)),
            ("v1.30+", Some(30)),
            ("v2.0.0", None),
            ("", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
        let verdict = |text: &str| version(&Ok(text.to_owned())).verdict;
        assert_eq!(
            [verdict("v1.19.9"), verdict("v1.20.0"), verdict("next")],
            [Verdict::Problem, Verdict::Good, Verdict::Unknown]
        );
    }

    #[test]
    fn custom_resources_of_an_older_version_are_named() {
        let mut facts = facts();
        facts.crds = Ok(api::crds::all());
        assert_eq!(crds(&facts).verdict, Verdict::Good);
        let mut all = api::crds::all();
        let mut older = serde_json::to_value(&all[0]).expect("plain data");
        let properties = older.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
        properties.and_then(|p| p.as_object_mut()).expect("fields").remove("backupLocation").expect("a field");
        all[0] = serde_json::from_value(older).expect("a CRD");
        facts.crds = Ok(all.clone());
        let finding = crds(&facts);
        assert_eq!((finding.verdict, finding.names.len()), (Verdict::Problem, 1), "{finding:?}");
        // An older program looks at what a newer one has made.
        let mut newer = serde_json::to_value(api::crds::all().remove(0)).expect("plain data");
        newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["more"] = json!({"type": "string"});
        let mut whole = api::crds::all();
        whole[0] = serde_json::from_value(newer).expect("a CRD");
        facts.crds = Ok(whole);
        assert_eq!(crds(&facts).verdict, Verdict::Warning);
        facts.crds = Ok(all.split_off(1));
        assert!(crds(&facts).says.contains("some are not there: applicationbackups.orlop.io"));
        facts.crds = Ok(Vec::new());
        assert_eq!(crds(&facts).verdict, Verdict::Warning);
        facts.crds = Err("it is forbidden".into());
        assert_eq!(crds(&facts).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_scheduler_with_a_configuration_of_its_own_is_not_known() {
        let check = |args: &[&str], expected: Verdict| {
            let mut facts = facts();
            let pod = json!({
                "metadata": {"name": "s", "labels": {"component": "kube-scheduler"}},
                "spec": {"containers": [{"name": "s", "command": ["kube-scheduler"], "args": args}]},
            });
            facts.pods = Ok(vec![serde_json::from_value(pod).expect("a pod")]);
            assert_eq!(scheduler(&facts).verdict, expected, "{args:?}");
        };
        check(&["--kubeconfig=/x", "--leader-elect"], Verdict::Good);
        check(&["--config=/x"], Verdict::Unknown);
        check(&["--config", "/x"], Verdict::Unknown);
        check(&["--policy-config-file=/x"], Verdict::Unknown);
        check(&["--policy-config-file", "/x"], Verdict::Unknown);
        check(&["--policy-configmap=x"], Verdict::Unknown);
        check(&["--policy-configmap-namespace=kube-system"], Verdict::Good);
    }

    #[test]
    fn classes_of_ours_wait_for_the_first_pod() {
        let class = |driver: &str, mode: &str| {
            let class = json!({"metadata": {"name": mode}, "provisioner": driver, "volumeBindingMode": mode});
            serde_json::from_value(class).expect("a class")
        };
        let verdict = |all| classes(&Ok(all)).map(|finding| finding.verdict);
        assert_eq!(verdict(vec![class("other", "Immediate")]), None);
        assert_eq!(verdict(vec![class(DRIVER, "WaitForFirstConsumer")]), Some(Verdict::Good));
        assert_eq!(verdict(vec![class(DRIVER, "Immediate")]), Some(Verdict::Problem));
    }
}
