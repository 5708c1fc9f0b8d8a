//! Whether the control plane survives the loss of one of its machines: members of etcd, API servers, schedulers, controller managers.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::facts::Facts;
use super::finding::Finding;

/// What is said of a control plane that is not in pods.
const ELSEWHERE: &str = "it runs in no pod that is seen here; ask who runs the control plane";

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => return vec![Finding::unknown("control plane", format!("its pods cannot be listed: {why}"))],
    };
    vec![
        etcd(&running(pods, "etcd")),
        api_servers(facts, &running(pods, "kube-apiserver")),
        leading("scheduler replicas", &running(pods, "kube-scheduler")),
        leading("controller managers", &running(pods, "kube-controller-manager")),
    ]
}

/// Whether a pod is one of this part of the control plane: kubeadm labels them so, and those who make clusters like it.
pub(crate) fn is_of(pod: &Pod, component: &str) -> bool {
    let labels = pod.labels();
    ["component", "k8s-app"].iter().any(|label| labels.get(*label).is_some_and(|value| value == component))
}

/// For each pod of a part, whether it is ready.
fn running(pods: &[Pod], component: &str) -> Vec<bool> {
    pods.iter().filter(|pod| is_of(pod, component)).map(is_ready).collect()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ready(pods: &[bool]) -> usize {
    pods.iter().filter(|ready| **ready).count()
}

fn etcd(members: &[bool]) -> Finding {
    let (all, ready) = (members.len(), ready(members));
    if all == 0 {
        return Finding::unknown("etcd", ELSEWHERE);
    }
    // More than half must work, so an even number survives no more than the odd one below it.
    let may_fail = (all - 1) / 2;
    let says = format!("{ready} of {all} members are ready; {may_fail} may fail");
    match all - ready {
        failed if failed > may_fail => Finding::problem("etcd", says).next("bring the members back that are not ready"),
        0 if may_fail > 0 => Finding::good("etcd", says),
        0 => Finding::warning("etcd", format!("{says}: with a machine of it the cluster stands still, or is lost"))
            .next("have three members, on three machines"),
        _ => Finding::warning("etcd", says).next("bring the members back that are not ready"),
    }
}

fn api_servers(facts: &Facts, pods: &[bool]) -> Finding {
    let addresses = match &facts.api_servers {
        Err(why) => return Finding::unknown("api servers", format!("where they are cannot be read: {why}")),
        Ok(found) => {
            found.iter().flat_map(|one| one.subsets.iter().flatten()).flat_map(|s| s.addresses.iter().flatten())
        }
    };
    match (addresses.count(), pods.len()) {
        (0 | 1, 0) => Finding::unknown("api servers", "one address, which may be that of several behind it"),
        (known, 0) => Finding::good("api servers", format!("{known} addresses")),
        (_, 1) => Finding::warning("api servers", "one: without its machine nothing in the cluster can be changed")
            .next("have two or more, on machines of their own"),
        (_, all) if ready(pods) < all => Finding::warning("api servers", format!("{} of {all} are ready", ready(pods))),
        (_, all) => Finding::good("api servers", format!("{all} are ready")),
    }
}

/// Of these one leads, and others stand by.
fn leading(check: &'static str, pods: &[bool]) -> Finding {
    match (pods.len(), ready(pods)) {
        (0, _) => Finding::unknown(check, ELSEWHERE),
        (_, 0) => Finding::problem(check, "none is ready"),
        (1, 1) => Finding::warning(check, "one: none stands by, should its machine end"),
        (all, ready) if ready < all => Finding::warning(check, format!("{ready} of {all} are ready")),
        (all, _) => Finding::good(check, format!("{all} are ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn members_of_etcd_are_counted_by_how_many_may_fail() {
        let check = |members: &[bool], expected: Verdict| assert_eq!(etcd(members).verdict, expected, "{members:?}");
        check(&[], Verdict::Unknown);
        check(&[true], Verdict::Warning);
        check(&[true, true], Verdict::Warning);
        check(&[true, false], Verdict::Problem);
        check(&[true, true, true], Verdict::Good);
        check(&[true, true, false], Verdict::Warning);
        check(&[true, false, false], Verdict::Problem);
    }

    #[test]
    fn one_address_of_an_api_server_may_be_that_of_several() {
        let check = |addresses: usize, pods: &[bool], expected: Verdict| {
            let address = serde_json::json!({"ip": "10.0.0.1"});
            let subsets = serde_json::json!({"subsets": [{"addresses": vec![address; addresses]}]});
            let mut facts = facts();
            facts.api_servers = Ok(Some(serde_json::from_value(subsets).expect("Endpoints")));
            assert_eq!(api_servers(&facts, pods).verdict, expected, "{addresses} {pods:?}");
        };
        check(1, &[], Verdict::Unknown);
        check(2, &[], Verdict::Good);
        check(1, &[true], Verdict::Warning);
        // Behind one address, which is a load balancer's.
        check(1, &[true, true], Verdict::Good);
        check(3, &[true, true, false], Verdict::Warning);
    }

    #[test]
    fn what_leads_has_somebody_standing_by() {
        let check = |pods: &[bool], expected: Verdict| assert_eq!(leading("x", pods).verdict, expected, "{pods:?}");
        check(&[], Verdict::Unknown);
        check(&[false], Verdict::Problem);
        check(&[true], Verdict::Warning);
        check(&[true, false], Verdict::Warning);
        check(&[true, true], Verdict::Good);
    }
}
