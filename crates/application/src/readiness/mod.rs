//! Whether the workloads that a run made are ready, and why not.
//!
//! What is ready is what the controllers of Kubernetes say of a workload; the reason why it is not is looked for where a person would: its
//! conditions, its pods and their containers, the claims that these mount, and the events about them.
//!
//! Only workloads that bear the name of the run are looked at: so nothing has to be remembered of what was made.

mod judge;
mod pods;

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use kube::api::ListParams;
use serde_json::Value;

use crate::access::{Access, Listed};
use crate::decide::was_made_by;
use crate::failure::Failure;
use crate::json;
use crate::key::ObjectKey;
use crate::retry::Patience;

pub use judge::State;

/// Kinds that are waited for: group, kind, and the path of their version in a namespace. All servers that are supported have these.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("apps", "Deployment", "/apis/apps/v1", "deployments"),
    ("apps", "StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("apps", "DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("apps", "ReplicaSet", "/apis/apps/v1", "replicasets"),
    ("", "ReplicationController", "/api/v1", "replicationcontrollers"),
    ("batch", "Job", "/apis/batch/v1", "jobs"),
    ("", "Pod", "/api/v1", "pods"),
];
/// Objects in a page of a list.
const PAGE: u32 = 100;
/// Questions about events in one look at all workloads: each is a request, and a person mends one thing after the other anyway.
const MOST_EVENTS: usize = 10;
/// Events that are read about one object: the newest of them counts.
const EVENTS: u32 = 20;

/// How a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it is ready.
    pub state: State,
    /// How much of it runs.
    pub progress: Option<String>,
    /// Why it is not ready.
    pub reason: Option<String>,
}

/// Whether objects of a kind are waited for.
pub fn is_waited_for(key: &ObjectKey) -> bool {
    KINDS.iter().any(|(group, kind, ..)| key.is(group, kind))
}

/// Looks at the workloads with these keys that a run made or changed. Those of others, and those that are gone, are left out.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn look(
    client: Client,
    patience: Patience,
    keys: &[ObjectKey],
    run: &str,
) -> Result<Vec<(ObjectKey, Readiness)>, Failure> {
    let access = Access { client, patience };
    let mut events = Events { access: &access, left: MOST_EVENTS };
    let mut found = Vec::new();
    let wanted = keys.iter().filter(|key| is_waited_for(key) && key.namespace.is_some());
    let mut by_namespace: BTreeMap<&str, Vec<&ObjectKey>> = BTreeMap::new();
    for key in wanted {
        by_namespace.entry(key.namespace.as_deref().unwrap_or_default()).or_default().push(key);
    }
    for (namespace, keys) in by_namespace {
        let place = Place::look(&access, namespace, &keys, run).await?;
        for (key, object) in &place.workloads {
            found.push((key.clone(), place.readiness(key, object, &mut events).await?));
        }
    }
    Ok(found)
}

/// The workloads of a run in one namespace, and what may say why they are not ready.
struct Place {
    workloads: Vec<(ObjectKey, Value)>,
    pods: Vec<Value>,
    /// Names of claims that have no volume yet.
    pending_claims: BTreeSet<String>,
    namespace: String,
}

impl Place {
    async fn look(access: &Access, namespace: &str, keys: &[&ObjectKey], run: &str) -> Result<Self, Failure> {
        let mut workloads = Vec::new();
        for (group, kind, path, plural) in KINDS {
            let of_kind: BTreeMap<&str, &ObjectKey> =
                keys.iter().filter(|key| key.is(group, kind)).map(|key| (key.name.as_str(), *key)).collect();
            if of_kind.is_empty() {
                continue;
            }
            for object in list(access, &in_namespace(path, namespace, plural)).await? {
                let key = of_kind.get(json::text(&object, &["metadata", "name"]));
                if let Some(key) = key.filter(|_| was_made_by(run, &object)) {
                    workloads.push(((*key).clone(), object));
                }
            }
        }
        let mut place =
            Self { workloads, pods: Vec::new(), pending_claims: BTreeSet::new(), namespace: namespace.to_owned() };
        // What explains is read only where there is something to explain. (Whether a job runs is known by its pods alone.)
        if place.workloads.iter().any(|(key, object)| judge::judge(&key.kind, object, &[]).0 == State::Waiting) {
            place.pods = list(access, &in_namespace("/api/v1", namespace, "pods")).await?;
            if place.pods.iter().any(pods::is_unscheduled) {
                place.pending_claims = pending_claims(access, namespace).await?;
            }
        }
        Ok(place)
    }

    async fn readiness(&self, key: &ObjectKey, object: &Value, events: &mut Events<'_>) -> Result<Readiness, Failure> {
        let pods: Vec<&Value> = match key.kind.as_str() {
            "Pod" => vec![object],
            _ => self.pods.iter().filter(|pod| pods::is_selected(object, pod)).collect(),
        };
        let (state, progress) = judge::judge(&key.kind, object, &pods);
        let reason = match state {
            State::Ready => None,
            State::Failed => judge::said_of_failure(object),
            State::Waiting => Some(self.why(key, object, &pods, events).await?),
        };
        Ok(Readiness { state, progress, reason })
    }

    /// Why a workload is not ready, by the first of its pods that is not.
    async fn why(
        &self,
        key: &ObjectKey,
        object: &Value,
        pods: &[&Value],
        events: &mut Events<'_>,
    ) -> Result<String, Failure> {
        if let Some(refused) = judge::refused_pods(object) {
            return Ok(refused);
        }
        let Some(pod) = pods.iter().find(|pod| !pods::is_ready(pod)) else {
            let said = events.about(&self.namespace, object).await?;
            return Ok(said.unwrap_or_else(|| "its controller has not made, or not counted, all of its pods".into()));
        };
        let name = json::text(pod, &["metadata", "name"]);
        let mut why = match pods::why(pod) {
            Some(why) => why,
            None => events.about(&self.namespace, pod).await?.unwrap_or_else(|| pods::waits_for(pod)),
        };
        let claim = pods::claims(pod).find(|claim| self.pending_claims.contains(*claim));
        if let Some(claim) = claim.filter(|_| pods::is_unscheduled(pod)) {
            let said = events.about_claim(&self.namespace, claim).await?;
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            why = format!("{why}; the claim {claim} is Pending{said}");
        }
        Ok(if key.is("", "Pod") { why } else { format!("the pod {name}: {why}") })
    }
}

fn in_namespace(path: &str, namespace: &str, plural: &str) -> String {
    format!("{path}/namespaces/{namespace}/{plural}")
}

async fn list(access: &Access, path: &str) -> Result<Vec<Value>, Failure> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        match access.page(path, &params).await {
            Ok(Listed::Page(page)) => {
                found.extend(page.items);
                match page.next {
                    Some(next) => params.continue_token = Some(next),
                    None => return Ok(found),
                }
            }
            // From the begin, in one piece: the next look would lose its place as well.
            Ok(Listed::Expired(_)) => {
                found.clear();
                params = ListParams::default();
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn pending_claims(access: &Access, namespace: &str) -> Result<BTreeSet<String>, Failure> {
    let claims = list(access, &in_namespace("/api/v1", namespace, "persistentvolumeclaims")).await?;
    let pending = claims.iter().filter(|claim| json::text(claim, &["status", "phase"]) == "Pending");
    Ok(pending.map(|claim| json::text(claim, &["metadata", "name"]).to_owned()).collect())
}

/// The way to events, of which so many are read and no more.
struct Events<'a> {
    access: &'a Access,
    left: usize,
}

impl Events<'_> {
    /// What the newest warning about an object says.
    async fn about(&mut self, namespace: &str, object: &Value) -> Result<Option<String>, Failure> {
        self.selected(namespace, &format!("involvedObject.uid={}", json::text(object, &["metadata", "uid"]))).await
    }

    async fn about_claim(&mut self, namespace: &str, claim: &str) -> Result<Option<String>, Failure> {
        let selector = format!("involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}");
        self.selected(namespace, &selector).await
    }

    async fn selected(&mut self, namespace: &str, selector: &str) -> Result<Option<String>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let params = ListParams::default().fields(&format!("{selector},type=Warning")).limit(EVENTS);
        let listed = self.access.page(&in_namespace("/api/v1", namespace, "events"), &params).await?;
        let Listed::Page(page) = listed else { return Ok(None) };
        let newest = page.items.iter().max_by_key(|event| {
            let of = |path: &[&str]| json::text(event, path).to_owned();
            of(&["lastTimestamp"]).max(of(&["eventTime"])).max(of(&["metadata", "creationTimestamp"]))
        });
        Ok(newest.map(|event| format!("{}: {}", json::text(event, &["reason"]), json::text(event, &["message"]))))
    }
}
