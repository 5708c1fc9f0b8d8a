//! Looking at the volumes of a restore, past every cache.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{RUN_LABEL, VolumeRestore};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use mover::{FailureKind, Outcome, Restore};

use super::view::{Disk, FILLED, FILLED_BY, Filled, Filling, HELD, Held, Mover, MoverState, Target, View};
use crate::cleanup::{self, Made};
use crate::config::Limits;
use crate::error::{During, Error};
use crate::mover_pod::{self, Direction};
use crate::objects;

/// Pods whose names are given when a claim is in use; the others are counted by whoever looks.
const USERS_NAMED: usize = 5;

/// What is there of one volume, with the objects that a step acts on.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) index: usize,
    pub(crate) namespace: String,
    pub(crate) claim: String,
    pub(crate) view: View,
    pub(crate) target: Option<PersistentVolumeClaim>,
    pub(crate) filling: Option<PersistentVolumeClaim>,
    /// Volumes by name: the one of the view, and the stray one.
    pub(crate) disks: BTreeMap<String, PersistentVolume>,
    /// All mover pods of the volume.
    pub(crate) movers: Vec<Pod>,
}

/// The name of a temporary claim.
pub(crate) fn filling_name(run_uid: &str, index: usize) -> String {
    format!("orlop-fill-{}-{index}", mover_pod::short(run_uid))
}

/// What a run can have made for its own use.
pub(crate) fn made(run_uid: &str, volumes: &[VolumeRestore], limits: &Limits) -> Made {
    let mut made = Made::by(run_uid);
    for (index, volume) in volumes.iter().enumerate() {
        made.add_movers(&volume.namespace, Direction::Restore, index, limits.mover_attempts);
        made.add(&volume.namespace, filling_name(run_uid, index));
    }
    made
}

/// What a run has made, over all of its volumes.
struct Things {
    pods: Vec<Pod>,
    held: Vec<(Held, PersistentVolume)>,
}

/// Looks at the volumes of a run, by their names in its status.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn observe(
    client: &Client,
    run_uid: &str,
    volumes: &[VolumeRestore],
    limits: &Limits,
    now: Timestamp,
) -> Result<Vec<Seen>, Error> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let mut pods = cleanup::movers(client, &made(run_uid, volumes, limits)).await?;
    pods.retain(|pod| !is_held(pod, limits, now));
    let things = Things { pods, held: held(client, run_uid).await? };
    let mut seen = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        seen.push(one(client, run_uid, index, volume, &things, limits, now).await?);
    }
    Ok(seen)
}

/// The volumes that a run holds back.
async fn held(client: &Client, run_uid: &str) -> Result<Vec<(Held, PersistentVolume)>, Error> {
    let selector = cleanup::of_run(run_uid);
    let list = Api::<PersistentVolume>::all(client.clone()).list(&ListParams::default().labels(&selector)).await;
    let list = list.during(|| format!("list the volumes with the label {selector}"))?;
    Ok(list.items.into_iter().filter_map(|pv| Some((held_of(&pv)?, pv))).collect())
}

fn held_of(pv: &PersistentVolume) -> Option<Held> {
    serde_json::from_str(pv.annotations().get(HELD)?).ok()
}

async fn one(
    client: &Client,
    run_uid: &str,
    index: usize,
    volume: &VolumeRestore,
    things: &Things,
    limits: &Limits,
    now: Timestamp,
) -> Result<Seen, Error> {
    let namespace = volume.namespace.clone();
    let target: Option<PersistentVolumeClaim> = objects::read(client, &namespace, &volume.claim).await?;
    let filling: Option<PersistentVolumeClaim> =
        objects::read(client, &namespace, &filling_name(run_uid, index)).await?;
    let ours = target.as_ref().is_some_and(|t| is_ours(t, run_uid));
    let mut disks = BTreeMap::new();
    let own_target = target.as_ref().filter(|_| ours);
    let disk = match own_target.or(filling.as_ref()).and_then(volume_name) {
        Some(name) => {
            let owner = Owner { run_uid, index, claims: [filling.as_ref(), own_target] };
            read_disk(client, &name, &owner, &mut disks).await?
        }
        None => None,
    };
    let stray = stray(things, index, [target.as_ref(), filling.as_ref()], &mut disks);
    let movers = movers_of(&things.pods, &namespace, run_uid, index, limits);
    let users = match &target {
        Some(claim) if !ours => users(client, claim).await?,
        _ => Vec::new(),
    };
    let view = View {
        target: target.as_ref().map(|claim| see_target(claim, ours, users)),
        filling: filling.as_ref().map(see_filling),
        disk,
        stray,
        mover: movers.last().map(|(attempt, pod)| see_mover(*attempt, pod, limits, now)),
        waited: Duration::ZERO,
    };
    let movers = movers.into_iter().map(|(_, pod)| pod.clone()).collect();
    Ok(Seen { index, namespace, claim: volume.claim.clone(), view, target, filling, disks, movers })
}

fn is_ours(claim: &PersistentVolumeClaim, run_uid: &str) -> bool {
    claim.annotations().get(FILLED_BY).is_some_and(|uid| uid == run_uid)
}

pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.volume_name.clone().filter(|name| !name.is_empty())
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

fn deleted(claim: &PersistentVolumeClaim) -> Option<Timestamp> {
    claim.metadata.deletion_timestamp.as_ref().map(|t| t.0)
}

fn see_target(claim: &PersistentVolumeClaim, ours: bool, users: Vec<String>) -> Target {
    Target { uid: claim.uid().unwrap_or_default(), ours, bound: is_bound(claim), deleted: deleted(claim), users }
}

fn see_filling(claim: &PersistentVolumeClaim) -> Filling {
    let filled = claim.annotations().get(FILLED).and_then(|text| serde_json::from_str(text).ok());
    Filling { uid: claim.uid().unwrap_or_default(), filled, deleted: deleted(claim) }
}

/// Whose a volume must be to be acted upon.
struct Owner<'a> {
    run_uid: &'a str,
    index: usize,
    /// The temporary claim, and the one that is wanted if this run made it.
    claims: [Option<&'a PersistentVolumeClaim>; 2],
}

impl Owner<'_> {
    /// Whether a volume is bound to one of the claims, or held by the run as the volume of that index. That a claim names it says nothing: whoever may make
    /// claims chooses what they name and what is noted on them. To which claim a volume is bound, and who holds it, is written on it by the control plane and by Orlop.
    fn has(&self, pv: &PersistentVolume) -> bool {
        let bound = pv.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref());
        let is_bound =
            bound.is_some_and(|uid| self.claims.iter().flatten().any(|c| c.metadata.uid.as_ref() == Some(uid)));
        let is_labelled = pv.labels().get(RUN_LABEL).is_some_and(|uid| uid == self.run_uid);
        is_bound || is_labelled && held_of(pv).is_some_and(|held| held.index == self.index)
    }
}

/// Reads a volume that a claim names; nothing if it is not there, or somebody else's.
async fn read_disk(
    client: &Client,
    name: &str,
    owner: &Owner<'_>,
    disks: &mut BTreeMap<String, PersistentVolume>,
) -> Result<Option<Disk>, Error> {
    let found = Api::<PersistentVolume>::all(client.clone()).get_opt(name).await;
    let Some(pv) = found.during(|| format!("read the PersistentVolume {name}"))?.filter(|pv| owner.has(pv)) else {
        return Ok(None);
    };
    let [filling, _] = owner.claims;
    let disk = see_disk(&pv, filling.and_then(ResourceExt::uid).as_deref());
    disks.insert(name.to_owned(), pv);
    Ok(Some(disk))
}

/// A volume that nobody held yet was made for the temporary claim when it is named after its uid, as provisioners do. When in doubt
/// it was not: then it is left, and not deleted.
fn see_disk(pv: &PersistentVolume, filling_uid: Option<&str>) -> Disk {
    let held = held_of(pv);
    let spec = pv.spec.clone().unwrap_or_default();
    let after_claim = filling_uid.is_some_and(|uid| !uid.is_empty() && pv.name_any().ends_with(uid));
    Disk {
        name: pv.name_any(),
        policy: spec.persistent_volume_reclaim_policy.unwrap_or_else(|| "Retain".into()),
        made_for_us: held.as_ref().map_or(after_claim, |h| h.made_for_us),
        replaces: held.as_ref().and_then(|h| h.replaces.clone()),
        original: held.map(|h| h.policy),
        promised: spec.claim_ref.and_then(|c| c.uid),
    }
}

fn stray(
    things: &Things,
    index: usize,
    claims: [Option<&PersistentVolumeClaim>; 2],
    disks: &mut BTreeMap<String, PersistentVolume>,
) -> Option<Disk> {
    let named = |pv: &PersistentVolume| claims.iter().flatten().any(|c| volume_name(c) == Some(pv.name_any()));
    let (_, pv) = things.held.iter().find(|(held, pv)| held.index == index && !named(pv))?;
    disks.insert(pv.name_any(), pv.clone());
    Some(see_disk(pv, None))
}

/// Whether a pod is there for somebody's finalizer alone: nothing of it works, and it was asked to go long ago.
fn is_held(pod: &Pod, limits: &Limits, now: Timestamp) -> bool {
    let rests = mover_pod::has_ended(pod) || pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    let asked = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    rests && asked.is_some_and(|at| now > at && now.duration_since(at).unsigned_abs() >= limits.claim_patience)
}

/// The mover pods of a volume, the newest attempt last. In its namespace: whoever may make pods in another may give them the name and the label of a mover.
fn movers_of<'a>(
    pods: &'a [Pod],
    namespace: &str,
    run_uid: &str,
    index: usize,
    limits: &Limits,
) -> Vec<(u32, &'a Pod)> {
    let name = |attempt| mover_pod::name(run_uid, Direction::Restore, index, attempt);
    let here = pods.iter().filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace));
    let of = |attempt| here.clone().find(|pod| pod.name_any() == name(attempt)).map(|pod| (attempt, pod));
    (1..=limits.mover_attempts).filter_map(of).collect()
}

fn see_mover(attempt: u32, pod: &Pod, limits: &Limits, now: Timestamp) -> Mover {
    let goes = pod.metadata.deletion_timestamp.is_some() && !mover_pod::is_overdue(pod, now);
    Mover { attempt, state: see_state(pod, limits, now), goes }
}

fn see_state(pod: &Pod, limits: &Limits, now: Timestamp) -> MoverState {
    match mover_pod::state(pod, now, limits) {
        mover_pod::MoverState::Waiting { why } => MoverState::Waiting { why },
        mover_pod::MoverState::NeverStarted { why } => MoverState::NeverStarted { why },
        mover_pod::MoverState::Running => MoverState::Running,
        mover_pod::MoverState::Ending { overdue } => MoverState::Ending { overdue },
        mover_pod::MoverState::Succeeded { message } => succeeded(&message),
        mover_pod::MoverState::Failed { reason, message } => failed(reason, message.as_deref()),
    }
}

/// Only an outcome that can be read, and that says so, makes a volume filled.
fn succeeded(message: &str) -> MoverState {
    let outcome = serde_json::from_str::<Outcome>(message).ok();
    match outcome.filter(|o| o.ok).and_then(|o| o.restore) {
        Some(Restore::Files { tree, .. }) => MoverState::Done(Filled { files: tree.files, bytes: tree.bytes }),
        Some(Restore::Image(image)) => MoverState::Done(Filled { files: 0, bytes: image.bytes }),
        None => failed("the mover ended well, but did not say what it did".into(), Some(message)),
    }
}

fn failed(reason: String, message: Option<&str>) -> MoverState {
    let outcome = message.and_then(|text| serde_json::from_str::<Outcome>(text).ok());
    let Some(failure) = outcome.and_then(|o| o.failure) else {
        return MoverState::Failed { reason, retryable: true, tainted: false };
    };
    let tainted = matches!(failure.kind, FailureKind::VolumeNotEmpty | FailureKind::UnfinishedRestore);
    MoverState::Failed { reason: failure.error, retryable: failure.retryable || tainted, tainted }
}

/// Pods that are not over and use a claim.
///
/// # Errors
/// The API server did not answer, or refused.
async fn users(client: &Client, claim: &PersistentVolumeClaim) -> Result<Vec<String>, Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let mut users = claim_users(client, &namespace).await?;
    Ok(users.remove(&claim.name_any()).unwrap_or_default())
}

/// The claims of a namespace that are in use, with the pods that are not over and use them.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn claim_users(client: &Client, namespace: &str) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let pods = pods.during(|| format!("list the pods of {namespace}"))?;
    let mut users = BTreeMap::<String, Vec<String>>::new();
    for pod in pods.items.iter().filter(|pod| !is_over(pod)) {
        for claim in claims_of(pod) {
            let pods = users.entry(claim).or_default();
            if pods.len() < USERS_NAMED {
                pods.push(pod.name_any());
            }
        }
    }
    Ok(users)
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pv(name: &str, annotations: Value) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"uid": "c"}},
        }))
        .expect("the test's volume is a volume")
    }

    #[test]
    fn only_a_volume_named_after_the_temporary_claim_was_made_for_it() {
        let check =
            |name, uid, expected| assert_eq!(see_disk(&pv(name, json!({})), uid).made_for_us, expected, "{name}");
        check("pvc-1234", Some("1234"), true);
        check("pvc-9999", Some("1234"), false);
        check("pvc-1234", None, false);
        check("pvc-1234", Some(""), false);
    }

    #[test]
    fn a_volume_is_acted_upon_only_if_it_is_bound_to_a_claim_of_the_run_or_held_by_it() {
        let claim = |uid: Value| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"name": "c", "uid": uid}, "spec": {"volumeName": "theirs"}}))
                .expect("the test's claim is a claim")
        };
        let held = |index: usize| {
            let held = Held { index, policy: "Delete".into(), made_for_us: true, replaces: None };
            serde_json::to_string(&held).expect("plain data")
        };
        let check = |bound: Value, labels: Value, annotations: Value, expected: bool| {
            let pv = json!({
                "metadata": {"name": "theirs", "labels": labels, "annotations": annotations},
                "spec": {"claimRef": {"namespace": "shop", "name": "data", "uid": bound}},
            });
            let pv: PersistentVolume = serde_json::from_value(pv).expect("the test's volume is a volume");
            let (filling, target) = (claim("filling".into()), claim("target".into()));
            let owner = Owner { run_uid: "run", index: 1, claims: [Some(&filling), Some(&target)] };
            assert_eq!(owner.has(&pv), expected, "{pv:?}");
        };
        let of = |uid: &str| json!({RUN_LABEL: uid});
        let none = || json!({});
        check("filling".into(), none(), none(), true);
        check("target".into(), none(), none(), true);
        check("victim".into(), none(), none(), false);
        check(Value::Null, none(), none(), false);
        check("victim".into(), of("run"), json!({HELD: held(1)}), true);
        check("victim".into(), of("run"), json!({HELD: held(0)}), false);
        check("victim".into(), of("other"), json!({HELD: held(1)}), false);
        check("victim".into(), of("run"), none(), false);
        let unbound: PersistentVolume =
            serde_json::from_value(json!({"metadata": {"name": "free"}, "spec": {}})).expect("a volume");
        let filling = claim(Value::Null);
        assert!(
            !Owner { run_uid: "run", index: 1, claims: [Some(&filling), None] }.has(&unbound),
            "nobody has promised it"
        );
    }

    #[test]
    fn a_pod_of_another_namespace_is_no_mover() {
        let pod = |namespace: &str| -> Pod {
            let name = mover_pod::name("0123456789", Direction::Restore, 0, 1);
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace}})).expect("a pod")
        };
        let pods = [pod("tenant"), pod("shop")];
        let limits = Limits::default();
        let movers = |pods| movers_of(pods, "shop", "0123456789", 0, &limits);
        assert!(movers(&pods[..1]).is_empty());
        assert_eq!(movers(&pods), [(1, &pods[1])]);
    }

    #[test]
    fn what_was_noted_on_a_volume_is_read_back() {
        let held = Held { index: 3, policy: "Delete".into(), made_for_us: true, replaces: Some("old".into()) };
        let text = serde_json::to_string(&held).expect("plain data");
        let disk = see_disk(&pv("any", json!({HELD: text})), None);
        assert_eq!(
            (disk.original.as_deref(), disk.made_for_us, disk.promised.as_deref(), disk.replaces.as_deref()),
            (Some("Delete"), true, Some("c"), Some("old"))
        );
        let older = r#"{"index":3,"policy":"Delete","madeForUs":true}"#;
        assert_eq!(see_disk(&pv("any", json!({HELD: older})), None).replaces, None, "what an older operator noted");
    }

    #[test]
    fn a_mover_is_done_only_when_it_says_what_it_did() {
        let lost = |state| matches!(state, MoverState::Failed { retryable: true, tainted: false, .. });
        assert!(lost(succeeded("")));
        assert!(lost(succeeded(r#"{"ok":false,"seconds":1.0}"#)));
        assert!(lost(succeeded(r#"{"ok":true,"seconds":1.0}"#)));
    }

    #[test]
    fn the_outcome_of_a_mover_says_whether_another_may_do_better() {
        let check = |kind: &str, retryable: bool, expected: (bool, bool)| {
            let message =
                json!({"ok": false, "seconds": 0.1, "failure": {"error": "e", "kind": kind, "retryable": retryable}});
            let MoverState::Failed { reason, retryable, tainted } = failed("r".into(), Some(&message.to_string()))
            else {
                panic!("not failed");
            };
            assert_eq!((reason.as_str(), retryable, tainted), ("e", expected.0, expected.1), "{kind}");
        };
        check("damaged", false, (false, false));
        check("unreachable", true, (true, false));
        check("volumeNotEmpty", false, (true, true));
        check("unfinishedRestore", false, (true, true));
        let evicted = failed("Evicted".into(), None);
        assert_eq!(evicted, MoverState::Failed { reason: "Evicted".into(), retryable: true, tainted: false });
    }
}
