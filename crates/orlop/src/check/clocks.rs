//! Whether the clocks of nodes agree: each kubelet writes the time of its node into its Lease, every ten seconds unless it was told otherwise, and what comes is held against this
//! machine's clock the moment that it comes. So two nodes are compared by what they say of one clock, whatever that one says itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};

use super::finding::Finding;

/// Where kubelets have their leases.
const LEASES: &str = "kube-node-lease";
/// By how much clocks may differ. It is far more than a request takes, and far less than stores and certificates forgive.
const AGREE: Duration = Duration::from_secs(2);
/// From here on stores refuse what a node signs (S3 does after 15 minutes), and times in statuses and schedules mislead.
const ASTRAY: Duration = Duration::from_secs(60);

/// How far each node's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) ahead: BTreeMap<String, SignedDuration>,
    /// Why nothing was heard, where that is known.
    pub(crate) deaf: Option<String>,
}

/// Listens until every node with a lease has renewed it, or the time is over.
pub(crate) async fn listen(client: &Client, limit: Duration) -> Clocks {
    if limit.is_zero() {
        return Clocks { deaf: Some("nobody listened (--clocks 0s)".into()), ..Clocks::default() };
    }
    let mut clocks = Clocks::default();
    if let Ok(Err(error)) = tokio::time::timeout(limit, follow(client, &mut clocks)).await {
        clocks.deaf = Some(format!("the leases of nodes cannot be watched: {error}"));
    }
    clocks
}

async fn follow(client: &Client, clocks: &mut Clocks) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let now = leases.list(&Default::default()).await?;
    let expected: Vec<String> = now.items.iter().map(ResourceExt::name_any).collect();
    let version = now.metadata.resource_version.unwrap_or_default();
    let mut events = leases.watch(&WatchParams::default(), &version).await?.boxed();
    while !expected.iter().all(|name| clocks.ahead.contains_key(name)) {
        let Some(event) = events.next().await else { return Ok(()) };
        let heard = Timestamp::now();
        if let WatchEvent::Added(lease) | WatchEvent::Modified(lease) = event? {
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
            if let Some(renewed) = renewed {
                clocks.ahead.insert(lease.name_any(), renewed.0.duration_since(heard));
            }
        }
    }
    Ok(())
}

/// What is to be said of the clocks of these nodes.
pub(crate) fn judge(clocks: &Clocks, nodes: &[String]) -> Vec<Finding> {
    let middles = middles(clocks);
    let about = |node: &String| match (clocks.ahead.get(node), middles) {
        (Some(_), _) if clocks.ahead.len() < 2 => {
            Finding::unknown("clock", "no other node was heard that it could be compared with")
        }
        (Some(ahead), Some(middles)) => compare(middles.map(|middle| *ahead - middle)),
        _ => {
            let deaf = clocks.deaf.clone();
            Finding::unknown("clock", deaf.unwrap_or_else(|| "its kubelet has not renewed its lease meanwhile".into()))
        }
    };
    let mut findings: Vec<_> = nodes.iter().map(|node| about(node).of_node(node)).collect();
    let nearest = middles.and_then(|middles| middles.into_iter().min_by_key(|middle| middle.unsigned_abs()));
    if let Some(middle) = nearest.filter(|middle| middle.unsigned_abs() > AGREE) {
        let says = format!("the clocks of nodes are {} this machine's", apart(middle));
        findings.push(Finding::warning("clock", says).next("see which of them is right: timedatectl on each"));
    }
    findings
}

/// The two clocks in the middle, which are one if their number is odd.
fn middles(clocks: &Clocks) -> Option<[SignedDuration; 2]> {
    let mut all: Vec<_> = clocks.ahead.values().copied().collect();
    all.sort();
    let last = all.len().checked_sub(1)?;
    Some([all[last / 2], all[all.len() / 2]])
}

/// A clock that differs from either of those in the middle is named: of two that differ, nobody knows which is right.
fn compare(from_the_middles: [SignedDuration; 2]) -> Finding {
    let [a, b] = from_the_middles;
    let from_the_others = if a.unsigned_abs() > b.unsigned_abs() { a } else { b };
    let by = from_the_others.unsigned_abs();
    if by <= AGREE {
        return Finding::good("clock", "its clock agrees with the others'");
    }
    let says = format!("its clock is {} the others'", apart(from_the_others));
    let found = if by < ASTRAY { Finding::warning("clock", says) } else { Finding::problem("clock", says) };
    found.next("see what keeps its time: timedatectl on the node")
}

fn apart(ahead: SignedDuration) -> String {
    let by = ahead.unsigned_abs().as_secs_f64();
    format!("{by:.1} s {}", if ahead.is_negative() { "behind" } else { "ahead of" })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn judged(ahead: &[(&str, i64)]) -> Vec<(Option<String>, Verdict)> {
        let ahead = ahead.iter().map(|(node, ms)| ((*node).to_owned(), SignedDuration::from_millis(*ms))).collect();
        let clocks = Clocks { ahead, deaf: None };
        let nodes = ["a", "b", "c"].map(str::to_owned);
        judge(&clocks, &nodes).into_iter().map(|finding| (finding.node, finding.verdict)).collect()
    }

    #[test]
    fn nodes_are_compared_with_each_other_and_not_with_a_clock_that_may_be_wrong() {
        let check = |ahead: &[(&str, i64)], expected: [Verdict; 3], cluster: Option<Verdict>| {
            let found = judged(ahead);
            let nodes: Vec<_> = found.iter().filter(|(node, _)| node.is_some()).map(|(_, verdict)| *verdict).collect();
            let rest = found.iter().find(|(node, _)| node.is_none()).map(|(_, verdict)| *verdict);
            assert_eq!((nodes.as_slice(), rest), (&expected[..], cluster), "{ahead:?}");
        };
        use Verdict::{Good, Problem, Unknown, Warning};
        check(&[("a", -20), ("b", 30), ("c", 10)], [Good, Good, Good], None);
        // This machine is an hour behind, and the nodes are not to blame.
        check(&[("a", 3_600_000), ("b", 3_600_030), ("c", 3_600_010)], [Good, Good, Good], Some(Warning));
        check(&[("a", 0), ("b", 5_000), ("c", -120_000)], [Good, Warning, Problem], None);
        check(&[("a", 0), ("b", 10)], [Good, Good, Unknown], None);
        // Of two that differ, each may be the one that is wrong.
        check(&[("a", 0), ("b", 5_000)], [Warning, Warning, Unknown], None);
        check(&[("a", 90_000), ("b", 5_000)], [Problem, Problem, Unknown], Some(Warning));
        // One agrees with nobody.
        check(&[("a", 0)], [Unknown, Unknown, Unknown], None);
        check(&[("a", 3_600_000)], [Unknown, Unknown, Unknown], Some(Warning));
        check(&[], [Unknown, Unknown, Unknown], None);
    }
}
