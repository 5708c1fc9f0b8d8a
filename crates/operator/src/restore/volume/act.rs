//! Doing one step for one volume. Every step can be done twice.

use api::RUN_LABEL;
use application::{Mapping, Nameless, ObjectKey, RestoreOptions, clean};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use mover::{Direction as Way, Job};
use repository::tree::ExpectedCounts;
use serde_json::{Value, json};

use super::observe::{Seen, filling_name, volume_name};
use super::step::Step;
use super::view::{Beside, FILLED, FILLED_BY, HELD, Held, WantedVolume};
use crate::context::Context;
use crate::error::{During, Error};
use crate::mover_pod::{self, Direction, Mover, Placement, RUN_ANNOTATION};
use crate::objects;
use crate::repositories::Opened;
use crate::turns::Room;

/// Fields of a claim that tie it to where its data came from. The data comes from a mover.
pub(crate) const SOURCES: [&str; 3] = ["volumeName", "dataSource", "dataSourceRef"];

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acted {
    /// It is done.
    Done,
    /// The API server answered with an error of its own, such as that it cannot call a webhook, which may pass; what it said.
    PutOff(String),
    /// The API server will not have it, and asking again does not help; why.
    Refused(String),
}

/// The run that a step is done for.
pub(crate) struct Run<'a> {
    pub(crate) context: &'a Context,
    pub(crate) uid: &'a str,
    /// Kind, namespace and name, as movers bear them.
    pub(crate) annotation: &'a str,
    /// Claims that exist are to be replaced.
    pub(crate) replaces: bool,
}

impl Run<'_> {
    /// Does a step. `fill` is what the volume is filled from; only what makes claims and movers needs it.
    ///
    /// # Errors
    /// The API server did not answer; to be tried again.
    pub(crate) async fn act(
        &self,
        step: &Step,
        seen: &Seen,
        fill: Option<(&WantedVolume, &Opened)>,
    ) -> Result<Acted, Error> {
        let done = match step {
            Step::Wait(_) | Step::Done | Step::Miss(_) => Ok(()),
            Step::RemoveMovers => self.remove_movers(seen).await,
            Step::NoteFilled(filled) => {
                let note = serde_json::to_string(filled).during(|| "write down what was filled".into())?;
                self.note(seen, &note).await
            }
            Step::Hold { disk, policy, made_for_us, replaces } => {
                let (policy, replaces) = (policy.clone(), replaces.clone());
                let held = Held { index: seen.index, policy, made_for_us: *made_for_us, replaces };
                self.hold(seen, disk, &held).await
            }
            Step::Promise { disk, claim_uid } => self.promise(seen, disk, claim_uid).await,
            Step::Release { disk, policy } => self.release(seen, disk, policy).await,
            Step::RemoveTarget { uid } => self.remove(seen.target.as_ref(), uid).await,
            Step::RemoveFilling { uid } => self.remove(seen.filling.as_ref(), uid).await,
            Step::MakeFilling | Step::StartMover { .. } | Step::MakeTarget { .. } => match fill {
                Some((wanted, opened)) => return self.make(step, seen, wanted, opened).await,
                None => return Ok(Acted::Refused("the recovery point has no such volume".into())),
            },
        };
        refused(step, done)
    }

    async fn make(&self, step: &Step, seen: &Seen, wanted: &WantedVolume, opened: &Opened) -> Result<Acted, Error> {
        let done = match step {
            Step::MakeFilling => self.create_claim(&self.filling(seen, wanted)).await,
            Step::MakeTarget { disk } => match target(self.uid, seen, wanted, disk) {
                Ok(claim) => self.create_claim(&claim).await,
                Err(why) => return Ok(Acted::Refused(why)),
            },
            Step::StartMover { attempt } => self.start_mover(*attempt, seen, wanted, opened).await,
            _ => Ok(()),
        };
        refused(step, done)
    }

    /// The temporary claim: like the one that is wanted, under a name and with a label of the run's.
    fn filling(&self, seen: &Seen, wanted: &WantedVolume) -> Value {
        let mut claim = wanted.manifest.clone();
        strip(&mut claim);
        claim["metadata"] = json!({
            "name": filling_name(self.uid, seen.index),
            "namespace": seen.namespace,
            "labels": {RUN_LABEL: self.uid},
            "annotations": {RUN_ANNOTATION: self.annotation},
        });
        claim
    }

    async fn create_claim(&self, claim: &Value) -> Result<(), Error> {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(claim.clone()).during(|| "read the claim of the recovery point".into())?;
        objects::create(&self.context.client, &claim).await
    }

    /// Whether a mover may start; else, for what it waits. Where it will run is not known.
    pub(crate) fn ask_for_turn(&self, attempt: u32, seen: &Seen, opened: &Opened) -> Result<(), String> {
        let name = mover_pod::name(self.uid, Direction::Restore, seen.index, attempt);
        let room = Room { namespace: seen.namespace.clone(), location: opened.location.clone(), node: None };
        self.context.turns.ask((&seen.namespace, &name), room, self.annotation, Timestamp::now())
    }

    /// A mover that had its turn was not started.
    pub(crate) fn give_turn_back(&self, attempt: u32, seen: &Seen) {
        let name = mover_pod::name(self.uid, Direction::Restore, seen.index, attempt);
        self.context.turns.give_back(&seen.namespace, &name);
    }

    async fn start_mover(
        &self,
        attempt: u32,
        seen: &Seen,
        wanted: &WantedVolume,
        opened: &Opened,
    ) -> Result<(), Error> {
        let (Ok(root), Some(form)) = (&wanted.source, wanted.form()) else { return Ok(()) };
        let job = Job {
            store: opened.store.clone(),
            passphrase: opened.passphrase.clone(),
            volume: mover_pod::place(form).into(),
            form,
            direction: Way::Restore {
                root: root.table,
                expected: ExpectedCounts { files: root.files, bytes: root.bytes },
                resumes: attempt > 1,
            },
        };
        let job = serde_json::to_vec(&job).during(|| "write down the job of a mover".into())?;
        let claim = filling_name(self.uid, seen.index);
        let placement = self.placement(seen, wanted).await?;
        let mover = Mover {
            run_uid: self.uid,
            run: self.annotation,
            location: &opened.location,
            direction: Direction::Restore,
            volume: seen.index,
            attempt,
            namespace: &seen.namespace,
            claim: &claim,
            form,
            placement: &placement,
            image: &self.context.config.image,
            pull_secrets: &self.context.config.pull_secrets,
            deadline: self.context.limits().mover_deadline,
            job: &job,
        };
        mover.start(&self.context.client).await
    }

    /// Where a mover may run: where the pods of the workload may, within reach of those of their volumes that have a place already.
    async fn placement(&self, seen: &Seen, wanted: &WantedVolume) -> Result<Placement, Error> {
        let mut placement = wanted.placement.clone();
        for beside in &wanted.beside {
            if let Some(nodes) = self.reach(&seen.namespace, beside).await? {
                placement = placement.within(&nodes);
            }
        }
        Ok(placement)
    }

    /// The nodes that can mount another volume, if it has a place and that is not everywhere.
    async fn reach(&self, namespace: &str, beside: &Beside) -> Result<Option<NodeSelector>, Error> {
        let client = &self.context.client;
        for name in [filling_name(self.uid, beside.index), beside.claim.clone()] {
            let claim: Option<PersistentVolumeClaim> = objects::read(client, namespace, &name).await?;
            // A claim that is to be replaced will be somewhere else.
            let stays = |claim: &PersistentVolumeClaim| {
                name != beside.claim
                    || !self.replaces
                    || claim.annotations().get(FILLED_BY).is_some_and(|u| u == self.uid)
            };
            let Some(volume) = claim.filter(stays).and_then(|claim| volume_name(&claim)) else { continue };
            let found = Api::<PersistentVolume>::all(client.clone()).get_opt(&volume).await;
            let found = found.during(|| format!("read the PersistentVolume {volume}"))?;
            return Ok(found.and_then(|pv| pv.spec?.node_affinity?.required));
        }
        Ok(None)
    }

    async fn remove_movers(&self, seen: &Seen) -> Result<(), Error> {
        for pod in &seen.movers {
            mover_pod::remove(&self.context.client, pod).await?;
        }
        Ok(())
    }

    async fn note(&self, seen: &Seen, note: &str) -> Result<(), Error> {
        let Some(claim) = &seen.filling else { return Ok(()) };
        // The uid makes it a conflict if the claim is another one by now.
        let patch = json!({"metadata": {"uid": claim.uid(), "annotations": {FILLED: note}}});
        let api: Api<PersistentVolumeClaim> = objects::beside(&self.context.client, claim);
        let patched = api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).during(|| format!("note on the {} that it is filled", objects::title(claim)))
    }

    async fn hold(&self, seen: &Seen, disk: &str, held: &Held) -> Result<(), Error> {
        let note = serde_json::to_string(held).during(|| "write down how a volume was".into())?;
        let patch = json!({
            "metadata": {"annotations": {HELD: note}, "labels": {RUN_LABEL: self.uid}},
            "spec": {"persistentVolumeReclaimPolicy": "Retain"},
        });
        self.patch_disk(seen, disk, patch, "hold").await
    }

    async fn promise(&self, seen: &Seen, disk: &str, claim_uid: &str) -> Result<(), Error> {
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": seen.namespace,
            "name": seen.claim,
            "uid": claim_uid,
            "resourceVersion": null,
        });
        self.patch_disk(seen, disk, json!({"spec": {"claimRef": claim}}), "promise").await
    }

    async fn release(&self, seen: &Seen, disk: &str, policy: &str) -> Result<(), Error> {
        let patch = json!({
            "metadata": {"annotations": {HELD: null}, "labels": {RUN_LABEL: null}},
            "spec": {"persistentVolumeReclaimPolicy": policy},
        });
        self.patch_disk(seen, disk, patch, "release").await
    }

    /// Changes a volume if it is still as it was looked at.
    async fn patch_disk(&self, seen: &Seen, disk: &str, mut patch: Value, doing: &str) -> Result<(), Error> {
        let Some(pv) = seen.disks.get(disk) else { return Ok(()) };
        let metadata = pv.metadata.clone();
        if !patch["metadata"].is_object() {
            patch["metadata"] = json!({});
        }
        patch["metadata"]["resourceVersion"] = metadata.resource_version.into();
        let api = Api::<PersistentVolume>::all(self.context.client.clone());
        let patched = api.patch(disk, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).during(|| format!("{doing} the PersistentVolume {disk}"))
    }

    async fn remove(&self, claim: Option<&PersistentVolumeClaim>, uid: &str) -> Result<(), Error> {
        match claim.filter(|claim| claim.uid().as_deref() == Some(uid)) {
            Some(claim) => objects::delete(&self.context.client, claim, None).await,
            None => Ok(()),
        }
    }
}

/// The claim that is wanted, bound to its volume from the first moment, so that nobody else provisions one. It is made where it was looked for, or not at all.
fn target(uid: &str, seen: &Seen, wanted: &WantedVolume, disk: &str) -> Result<Value, String> {
    let mut claim = wanted.manifest.clone();
    strip(&mut claim);
    let metadata = &claim["metadata"];
    if metadata["namespace"] != seen.namespace.as_str() || metadata["name"] != seen.claim.as_str() {
        let (namespace, name) = (&metadata["namespace"], &metadata["name"]);
        return Err(format!("the claim of {}/{} says that it is {name} in {namespace}", seen.namespace, seen.claim));
    }
    claim["spec"]["volumeName"] = disk.into();
    if !claim["metadata"]["annotations"].is_object() {
        claim["metadata"]["annotations"] = json!({});
    }
    claim["metadata"]["annotations"][FILLED_BY] = uid.into();
    Ok(claim)
}

fn strip(claim: &mut Value) {
    if let Some(spec) = claim["spec"].as_object_mut() {
        spec.retain(|field, _| !SOURCES.contains(&field.as_str()));
    }
}

/// Tells what the API server will never take from what may pass. What a step was to change and is not there any more is no refusal:
/// the next look finds it gone.
fn refused(step: &Step, done: Result<(), Error>) -> Result<Acted, Error> {
    let error = match done {
        Ok(()) => return Ok(Acted::Done),
        Err(error) => error,
    };
    let code = match &error {
        Error::Kube { source, .. } => match &**source {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        _ => None,
    };
    let makes = step.makes();
    match code {
        Some(404) if !makes => Ok(Acted::Done),
        Some(code) if is_lasting(code) => Ok(Acted::Refused(mover_pod::explain(error.to_string()))),
        Some(code) if makes && code >= 500 => Ok(Acted::PutOff(error.to_string())),
        _ if matches!(error, Error::Json { .. }) => Ok(Acted::Refused(error.to_string())),
        _ if matches!(error, Error::Taken(_)) => Ok(Acted::PutOff(error.to_string())),
        _ => Err(error),
    }
}

/// Bad request, forbidden (a quota, a policy), not found (the namespace is gone), too large, invalid.
fn is_lasting(code: u16) -> bool {
    matches!(code, 400 | 403 | 404 | 413 | 422)
}

/// A claim of a recovery point as it is to be made at the target.
pub(crate) fn manifest(claim: &Value, mapping: &Mapping) -> Result<Value, Nameless> {
    let mut claim = claim.clone();
    if claim.is_object() {
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
    }
    let key = ObjectKey::of(&claim)?;
    clean::for_restore(&key, &mut claim, RestoreOptions::default());
    mapping.apply(&mut claim)?;
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_claim_is_made_where_it_was_looked_for_or_not_at_all() {
        let check = |namespace: &str, name: &str, good: bool| {
            let wanted = WantedVolume {
                source_name: ("shop".into(), "data".into()),
                namespace: "team".into(),
                claim: "data".into(),
                stored: Value::Null,
                manifest: json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"volumeName": "old"}}),
                changes: Vec::new(),
                source: Err(String::new()),
                placement: Placement::default(),
                beside: Vec::new(),
            };
            let seen = Seen { namespace: "team".into(), claim: "data".into(), ..Seen::default() };
            let made = target("run", &seen, &wanted, "disk");
            assert_eq!(made.is_ok(), good, "{made:?}");
            if let Ok(claim) = made {
                assert_eq!(claim["spec"]["volumeName"], "disk");
                assert_eq!(claim["metadata"]["annotations"][FILLED_BY], "run");
            }
        };
        check("team", "data", true);
        check("victim", "data", false);
        check("team", "other", false);
    }

    #[test]
    fn a_claim_is_made_anew_and_mapped() {
        let stored = json!({
            "metadata": {"name": "data", "namespace": "shop", "uid": "old", "labels": {"app": "db"}},
            "spec": {
                "storageClassName": "gold", "volumeName": "pv-1", "accessModes": ["ReadWriteOnce"],
                "dataSource": {"kind": "VolumeSnapshot", "name": "s"},
            },
            "status": {"phase": "Bound"},
        });
        let mapping = Mapping {
            namespaces: BTreeMap::from([("shop".into(), "shop2".into())]),
            storage_classes: BTreeMap::from([("gold".into(), "slow".into())]),
        };
        let mut claim = manifest(&stored, &mapping).expect("the claim has a name");
        strip(&mut claim);
        let expected = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "shop2", "labels": {"app": "db"}},
            "spec": {"storageClassName": "slow", "accessModes": ["ReadWriteOnce"]},
        });
        assert_eq!(claim, expected);
    }
}
