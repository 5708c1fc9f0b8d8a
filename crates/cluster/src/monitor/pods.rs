//! Pods on a node whose storage is offline.

use super::Monitor;
use crate::claims::claims;
use crate::error::{Result, ask, code};
use crate::placed;
use crate::takeover::OUT_OF_SERVICE;
use api::{RecordStanding, StorageHealth, Volume, VolumeRecord};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Pods of a node that are deleted at one look. Then it is looked again whether the node is silent still.
const BATCH: usize = 5;
const REASON: &str = "StorageOffline";

/// What is to become of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has no volume of ours, or has ended.
    NotOurs,
    /// It would not help to delete it.
    Stays(String),
    /// It can go on elsewhere.
    Moves,
}

/// What a claim is bound to.
enum Bound {
    /// A volume of ours, by its handle.
    Ours(String),
    /// A volume of somebody else.
    Foreign,
    /// Nothing yet.
    Nothing,
}

impl Monitor {
    /// Moves pods off a node, some at each look. `troubled` are the nodes whose storage may not work.
    pub(super) async fn relieve(
        &mut self,
        node: &str,
        health: &StorageHealth,
        troubled: &BTreeSet<&str>,
    ) -> Result<()> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let there = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let mut pods = ask(self.times.request, || format!("list the pods on {node}"), api.list(&there)).await?.items;
        pods.sort_by_key(|pod| (pod.namespace(), pod.name_any()));
        let is_lost = self.is_lost(node).await?;
        let mut chosen = Vec::new();
        for pod in pods {
            let (verdict, is_fenced) = self.judge(&pod, troubled).await?;
            let is_ending = pod.meta().deletion_timestamp.is_some();
            // Where nobody ends the pod, waiting for its end would be waiting for ever.
            let frees = is_lost || is_ending && self.takes_too_long(&pod);
            match verdict {
                Verdict::NotOurs => {}
                // One that was freed, and is there still, is held by a finalizer; it must not stand in the way of others at each look.
                _ if is_ending && (!frees || pod.meta().deletion_grace_period_seconds == Some(0)) => {}
                _ if is_ending && !is_fenced => {
                    let why =
                        "it may run on, and has a volume of another driver, which another pod must not use beside it";
                    self.tell_that_it_stays(&pod, health, why).await;
                }
                Verdict::Stays(why) if !is_ending => self.tell_that_it_stays(&pod, health, &why).await,
                Verdict::Moves | Verdict::Stays(_) => chosen.push((pod, frees && is_fenced)),
            }
        }
        if chosen.is_empty() || !self.is_silent_still(node).await? {
            return Ok(());
        }
        for (pod, is_freed) in chosen.iter().take(BATCH) {
            self.delete(pod, *is_freed, health).await?;
        }
        Ok(())
    }

    /// Nobody on the node ends pods.
    async fn is_lost(&self, node: &str) -> Result<bool> {
        let Some(node) = self.read::<Node>(Api::all(self.client.clone()), node).await? else { return Ok(true) };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let is_heard = conditions.iter().any(|one| one.type_ == "Ready" && one.status != "Unknown");
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        Ok(!is_heard || taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
    }

    /// It is being deleted for longer than it may.
    fn takes_too_long(&mut self, pod: &Pod) -> bool {
        let grace = pod.meta().deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let since = self.ending.entry(pod.uid().unwrap_or_default()).or_insert_with(Instant::now);
        since.elapsed() >= Duration::from_secs(grace.unwrap_or_default()) + self.times.pod_end
    }

    /// What is to become of a pod, and whether what it still writes is refused: by the leases of its volumes, if all are ours.
    async fn judge(&self, pod: &Pod, troubled: &BTreeSet<&str>) -> Result<(Verdict, bool)> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if ["Succeeded", "Failed"].contains(&phase) {
            return Ok((Verdict::NotOurs, false));
        }
        let (mut is_ours, mut is_fenced, mut stays) = (false, true, None);
        for claim in claims(pod) {
            match self.bound(pod, &claim).await? {
                Bound::Ours(handle) => {
                    is_ours = true;
                    stays = stays.or(self.cannot_be_used_elsewhere(&handle, troubled).await?);
                }
                Bound::Foreign => is_fenced = false,
                Bound::Nothing => {}
            }
        }
        let maker = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        let stays = stays.or(match maker.map(|maker| maker.kind.as_str()) {
            None => Some("no controller would make it again".to_owned()),
            Some(kind @ ("DaemonSet" | "Node")) => Some(format!("its {kind} would have it on this node again")),
            Some(_) => None,
        });
        let verdict = match stays {
            _ if !is_ours => Verdict::NotOurs,
            Some(why) => Verdict::Stays(why),
            None => Verdict::Moves,
        };
        Ok((verdict, is_fenced))
    }

    async fn bound(&self, pod: &Pod, claim: &str) -> Result<Bound> {
        let namespace = pod.namespace().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let bound = self.read(claims, claim).await?.and_then(|claim| claim.spec?.volume_name);
        let Some(bound) = bound.filter(|name| !name.is_empty()) else { return Ok(Bound::Nothing) };
        let found = self.read::<PersistentVolume>(Api::all(self.client.clone()), &bound).await?;
        let source = found.and_then(|volume| volume.spec?.csi).filter(|source| source.driver == csi::DRIVER);
        Ok(source.map_or(Bound::Foreign, |source| Bound::Ours(source.volume_handle)))
    }

    /// Why a volume can be used nowhere else, if that is so.
    async fn cannot_be_used_elsewhere(&self, handle: &str, troubled: &BTreeSet<&str>) -> Result<Option<String>> {
        // One that is not there has one copy, on the node that its PersistentVolume names.
        let Some(volume) = self.read::<Volume>(Api::all(self.client.clone()), handle).await? else {
            return Ok(Some(format!("its volume {handle} has one copy, on this node")));
        };
        let Some(id) = placed::id(&volume) else { return Ok(Some(format!("its volume {handle} has no id"))) };
        let name = records::form::name(id);
        let record = self.read::<VolumeRecord>(Api::all(self.client.clone()), &name).await?;
        let members = record.map(|record| record.spec.members).unwrap_or_default();
        let mut whole = members.iter().filter(|member| member.standing == RecordStanding::InSync);
        let is_elsewhere = whole.any(|member| !troubled.contains(member.node.as_str()));
        Ok((!is_elsewhere)
            .then(|| format!("no replica of its volume {handle} that is in sync is on storage that works")))
    }

    async fn read<K>(&self, api: Api<K>, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        ask(self.times.request, || format!("read {} {name}", K::kind(&())), api.get_opt(name)).await
    }

    async fn delete(&self, pod: &Pod, is_freed: bool, health: &StorageHealth) -> Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        // Not another one that was made under its name meanwhile.
        let preconditions = Some(Preconditions { uid: pod.uid(), resource_version: None });
        let grace_period_seconds = is_freed.then_some(0);
        let params = DeleteParams { preconditions, grace_period_seconds, ..DeleteParams::default() };
        match ask(self.times.request, || format!("delete the pod {namespace}/{name}"), api.delete(&name, &params)).await
        {
            Err(error) if matches!(code(&error), Some(404 | 409)) => return Ok(()),
            deleted => drop(deleted?),
        }
        tracing::warn!(namespace, name, is_freed, "a pod was deleted, since the storage of its node is offline");
        self.metrics.deleted();
        let how = if is_freed { "deleted at once, since nobody on the node ends it" } else { "deleted" };
        self.publish(pod, "Deleting", format!("the storage of its node is offline: {}; it is {how}", health.message))
            .await;
        Ok(())
    }

    async fn tell_that_it_stays(&mut self, pod: &Pod, health: &StorageHealth, why: &str) {
        if self.staying.insert(pod.uid().unwrap_or_default()) {
            let note = format!("the storage of its node is offline: {}; it stays: {why}", health.message);
            self.publish(pod, "Keeping", note).await;
        }
    }

    /// Events are for people: one that cannot be published changes nothing. What is done is in it, since of several that differ in their notes alone the first one is kept.
    async fn publish(&self, pod: &Pod, action: &str, note: String) {
        let (action, reason) = (action.to_owned(), REASON.to_owned());
        let event = Event { type_: EventType::Warning, reason, note: Some(note), action, secondary: None };
        let published =
            tokio::time::timeout(self.times.request, self.events.publish(&event, &pod.object_ref(&()))).await;
        if !matches!(published, Ok(Ok(_))) {
            tracing::warn!(pod = pod.metadata.name, ?published, "an event was not published");
        }
    }
}
