//! What the stand-ins share about objects: finalizers, parameters, secrets.

use crate::failure::{Failure, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

/// How soon something that failed is tried again. The originals begin with this and double it; tests want to be short.
const RETRY: Duration = Duration::from_secs(1);

/// Parameters with this before their names are for sidecars, and not for drivers.
pub(crate) const PREFIX: &str = "csi.storage.k8s.io/";

/// Tries again.
pub(crate) fn again(name: &str, failure: &Failure) -> Action {
    tracing::warn!(name, %failure, "to be tried again");
    Action::requeue(RETRY)
}

/// What a class says to the driver.
pub(crate) fn for_driver<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> HashMap<String, String> {
    let own = parameters.into_iter().filter(|(key, _)| !key.starts_with(PREFIX));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An object has this finalizer from now on.
pub(crate) async fn add_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    if object.finalizers().iter().any(|there| there == finalizer) {
        return Ok(());
    }
    let mut all = object.finalizers().to_vec();
    all.push(finalizer.to_owned());
    set_finalizers(api, object, &all).await
}

/// An object does not have these finalizers any more.
pub(crate) async fn remove_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[&str]) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let left: Vec<_> =
        object.finalizers().iter().filter(|there| !finalizers.contains(&there.as_str())).cloned().collect();
    if left.len() == object.finalizers().len() {
        return Ok(());
    }
    set_finalizers(api, object, &left).await
}

/// As the originals do it, and as their published rights allow: volumes and contents are patched, and all else is updated.
async fn set_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let (kind, name) = (K::kind(&()), object.name_any());
    let done = if ["PersistentVolume", "VolumeSnapshotContent"].contains(&&*kind) {
        // With the version that was looked at, so that nobody else's is lost.
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
    } else {
        let mut object = object.clone();
        object.meta_mut().finalizers = Some(finalizers.to_vec());
        api.replace(&name, &PostParams::default(), &object).await
    };
    done.map(drop).map_err(Failure::kubernetes(format!("change the finalizers of {kind} {name}")))
}

/// The entries of a Secret as a driver gets them.
pub(crate) async fn secret(client: &Client, namespace: &str, name: &str) -> Result<HashMap<String, String>> {
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get(name).await;
    let found = found.map_err(Failure::kubernetes(format!("get the secret {namespace}/{name}")))?;
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|_| Failure::NotYet(format!("the secret {namespace}/{name} is no text")))
    };
    found.data.unwrap_or_default().into_iter().map(|(key, value)| Ok((key, text(value.0)?))).collect()
}

/// Gets an object of a namespace.
pub(crate) async fn named<K>(client: &Client, namespace: &str, name: &str) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let found = Api::<K>::namespaced(client.clone(), namespace).get(name).await;
    found.map_err(Failure::kubernetes(format!("get {} {namespace}/{name}", K::kind(&()))))
}

/// A volume can be used in this place, and not in others.
pub(crate) fn is_here(volume: &PersistentVolume, topology: &HashMap<String, String>) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
    required.node_selector_terms.iter().any(|term| {
        term.match_expressions.iter().flatten().all(|expression| {
            let here = topology.get(&expression.key);
            expression.operator == "In"
                && here.is_some_and(|here| expression.values.iter().flatten().any(|value| value == here))
        })
    })
}
