//! Which pods of a recovery point mount which claims.
//!
//! A volume is made where its mover runs, if its storage class waits for a consumer. So a mover runs where the pods that will mount the
//! volume may run, and the volumes of one pod are made one after another, each within reach of those before it.

use std::collections::BTreeSet;

use application::ObjectKey;
use serde_json::Value;

use super::volume::view::{Beside, WantedVolume};
use crate::mover_pod::Placement;

/// Where the specification of pods is in the kinds that have one: in a pod, in a template, in the template of a job.
const PLACES: [&str; 3] = ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"];

/// The workloads of a recovery point that mount claims.
#[derive(Debug, Default)]
pub(super) struct Workloads(Vec<Workload>);

#[derive(Debug)]
struct Workload {
    namespace: String,
    /// Claims that all of its pods mount.
    shared: BTreeSet<String>,
    /// What the names of claims begin with of which each of its pods has its own; the number of the pod follows.
    own: Vec<String>,
    placement: Placement,
}

/// One or all pods of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pods {
    All,
    One(u32),
}

impl Workload {
    fn of(key: &ObjectKey, object: &Value) -> Option<Self> {
        let has_containers = |spec: &&Value| spec["containers"].is_array();
        let spec = PLACES.iter().filter_map(|place| object.pointer(place)).find(has_containers)?;
        let texts = |list: &Value, path: &str| -> BTreeSet<String> {
            let items = list.as_array().into_iter().flatten();
            items.filter_map(|item| item.pointer(path)?.as_str().map(Into::into)).collect()
        };
        let shared = texts(&spec["volumes"], "/persistentVolumeClaim/claimName");
        let templates = texts(&object["spec"]["volumeClaimTemplates"], "/metadata/name");
        let own: Vec<String> = templates.iter().map(|template| format!("{template}-{}-", key.name)).collect();
        let namespace = key.namespace.clone()?;
        let mounts = !shared.is_empty() || !own.is_empty();
        mounts.then(|| Self { namespace, shared, own, placement: Placement::of_pods(spec) })
    }

    /// The pods that mount a claim.
    fn pods(&self, (namespace, claim): &(String, String)) -> Option<Pods> {
        if self.namespace != *namespace {
            return None;
        }
        if self.shared.contains(claim) {
            return Some(Pods::All);
        }
        let number = self.own.iter().find_map(|own| claim.strip_prefix(own.as_str())?.parse().ok())?;
        Some(Pods::One(number))
    }

    /// Whether one of its pods mounts both claims.
    fn joins(&self, a: &(String, String), b: &(String, String)) -> bool {
        match (self.pods(a), self.pods(b)) {
            (Some(a), Some(b)) => a == b || a == Pods::All || b == Pods::All,
            _ => false,
        }
    }
}

impl Workloads {
    /// Notes an object, if its pods mount claims.
    pub(super) fn note(&mut self, key: &ObjectKey, object: &Value) {
        self.0.extend(Workload::of(key, object));
    }

    /// Writes into each volume where its mover may run, and which other volumes its pods mount.
    pub(super) fn place(&self, volumes: &mut [WantedVolume]) {
        let names: Vec<_> = volumes.iter().map(|volume| volume.source_name.clone()).collect();
        for (index, volume) in volumes.iter_mut().enumerate() {
            let name = &names[index];
            let workload = self.0.iter().find(|workload| workload.pods(name).is_some());
            volume.placement = workload.map(|workload| workload.placement.clone()).unwrap_or_default();
            let joined = |(other, with): &(usize, &(String, String))| {
                *other != index && self.0.iter().any(|workload| workload.joins(name, with))
            };
            let beside = |(index, (_, claim)): (usize, &(String, String))| Beside { index, claim: claim.clone() };
            volume.beside = names.iter().enumerate().filter(joined).map(beside).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volumes(claims: &[&str]) -> Vec<WantedVolume> {
        let volume = |claim: &&str| WantedVolume {
            source_name: ("shop".into(), (*claim).into()),
            namespace: "shop2".into(),
            claim: (*claim).into(),
            stored: Value::Null,
            manifest: Value::Null,
            changes: Vec::new(),
            source: Err(String::new()),
            placement: Placement::default(),
            beside: Vec::new(),
        };
        claims.iter().map(volume).collect()
    }

    fn place(workload: Value, claims: &[&str]) -> Vec<WantedVolume> {
        let mut workloads = Workloads::default();
        let key = ObjectKey::of(&workload).expect("the test's workload has a name");
        workloads.note(&key, &workload);
        let mut volumes = volumes(claims);
        workloads.place(&mut volumes);
        volumes
    }

    fn beside(volumes: &[WantedVolume]) -> Vec<Vec<usize>> {
        volumes.iter().map(|volume| volume.beside.iter().map(|b| b.index).collect()).collect()
    }

    const POOL: &str = "db";

    fn pods(claims: &[&str]) -> Value {
        let mount = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        let mounts: Vec<Value> = claims.iter().map(mount).collect();
        json!({"containers": [], "volumes": mounts, "nodeSelector": {"pool": POOL}})
    }

    #[test]
    fn the_claims_of_one_template_belong_together_and_go_where_its_pods_go() {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {"spec": pods(&["data", "logs"])}},
        });
        let placed = place(deployment, &["data", "logs", "other"]);
        assert_eq!(beside(&placed), [vec![1], vec![0], vec![]]);
        let expected = Placement::of_pods(&json!({"nodeSelector": {"pool": POOL}}));
        assert_eq!((&placed[0].placement, &placed[2].placement), (&expected, &Placement::default()));
    }

    #[test]
    fn each_pod_of_a_set_has_claims_of_its_own() {
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "pg", "namespace": "shop"},
            "spec": {
                "template": {"spec": pods(&["conf"])},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}, {"metadata": {"name": "wal"}}],
            },
        });
        let claims = ["conf", "data-pg-0", "data-pg-1", "data-pg-x", "wal-pg-0"];
        let placed = place(set, &claims);
        assert_eq!(beside(&placed), [vec![1, 2, 4], vec![0, 4], vec![0], vec![], vec![0, 1]]);
        assert_eq!(placed[3].placement, Placement::default(), "no pod of the set has this claim");
    }
}
