//! That a node lives: a Lease for each, renewed by its daemon.
//!
//! Clocks of two machines are never compared: a node has lived when its Lease was seen to change, on the clock of who looks.

use crate::error::{Result, ask, code};
use crate::times::Times;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// On the leases of nodes, so that they are told from others in their namespace.
pub(crate) const LABEL: &str = "orlop.io/storage-node";

/// The name of a node's Lease.
pub(crate) fn name(node: &str) -> String {
    format!("storage-node-{node}")
}

/// The leases of all nodes.
#[must_use]
pub fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), api::STORAGE_NAMESPACE)
}

/// Says that a node lives.
pub(crate) async fn beat(client: &Client, node: &str, times: &Times) -> Result<()> {
    let (api, name) = (leases(client), name(node));
    let what = || format!("renew the Lease {}/{name}", api::STORAGE_NAMESPACE);
    let now = MicroTime(Timestamp::now());
    // One that is not answered must leave time for the next, before the node is taken for dead.
    let limit = times.dead_after / 2;
    let renewed = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match ask(limit, what, api.patch(&name, &PatchParams::default(), &renewed)).await {
        Err(error) if code(&error) == Some(404) => {}
        renewed => return renewed.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some([(LABEL.to_owned(), node.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: i32::try_from(times.dead_after.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    ask(limit, what, api.create(&PostParams::default(), &lease)).await.map(drop)
}

/// When each node was last seen to live, by who has looked all the time.
#[derive(Debug, Default)]
pub struct Pulse(BTreeMap<String, (Option<String>, Instant)>);

impl Pulse {
    /// Looks at the leases that there are.
    pub fn look(&mut self, leases: &[Arc<Lease>], now: Instant) {
        for lease in leases {
            let Some(node) = lease.meta().labels.as_ref().and_then(|labels| labels.get(LABEL)) else { continue };
            let version = lease.meta().resource_version.clone();
            match self.0.get_mut(node) {
                Some((seen, _)) if *seen == version => {}
                _ => drop(self.0.insert(node.clone(), (version, now))),
            }
        }
    }

    /// The version of a node's Lease when it was last seen to change.
    pub(crate) fn version(&self, node: &str) -> Option<&String> {
        self.0.get(node)?.0.as_ref()
    }

    /// For how long a node has been silent. One that was never seen has been since it was first asked for.
    pub fn silent_for(&mut self, node: &str, now: Instant) -> Duration {
        let (_, since) = self.0.entry(node.to_owned()).or_insert((None, now));
        now.saturating_duration_since(*since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(node: &str, version: &str) -> Arc<Lease> {
        let metadata = ObjectMeta {
            labels: Some([(LABEL.to_owned(), node.to_owned())].into()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Arc::new(Lease { metadata, spec: None })
    }

    #[test]
    fn a_node_is_silent_since_its_lease_was_seen_to_change() {
        let (mut pulse, begin) = (Pulse::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        pulse.look(&[lease("a", "1"), lease("b", "1")], at(0));
        pulse.look(&[lease("a", "2"), lease("b", "1")], at(7));
        assert_eq!(pulse.silent_for("a", at(9)), Duration::from_secs(2));
        assert_eq!(pulse.silent_for("b", at(9)), Duration::from_secs(9));
        assert_eq!(pulse.silent_for("never seen", at(9)), Duration::ZERO);
        assert_eq!(pulse.silent_for("never seen", at(12)), Duration::from_secs(3));
        // A lease that is gone does not make its node live.
        pulse.look(&[], at(20));
        assert_eq!(pulse.silent_for("a", at(20)), Duration::from_secs(13));
    }
}
