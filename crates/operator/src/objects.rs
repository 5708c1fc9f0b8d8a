//! Small steps on API objects, each of which can be done again.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{During, Error};

/// What an object of the API must be able to do to be handled here.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
{
}

/// `Kind namespace/name`, as messages name things.
pub fn title<K: Object>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// The uid of a stored object.
///
/// # Errors
/// The object was never stored.
pub fn uid<K: Object>(object: &K) -> Result<String, Error> {
    object.uid().ok_or_else(|| Error::NotStored(title(object), "uid"))
}

/// The namespace that a run may act on, if not on all: only one in the namespace of administrators may act on others.
pub fn scope<K: Object>(run: &K) -> Option<&str> {
    run.meta().namespace.as_deref().filter(|own| *own != api::ADMIN_NAMESPACE)
}

/// Client for the objects of a kind in the namespace of `object`.
pub fn beside<K: Object, L: Object>(client: &Client, object: &L) -> Api<K> {
    Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
}

/// Reads an object as it is now, past every cache.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn read<K: Object>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error> {
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.get_opt(name).await.during(|| format!("read the {} {namespace}/{name}", K::kind(&())))
}

/// Reads all objects of a kind in a namespace.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn list<K: Object>(client: &Client, namespace: &str) -> Result<Vec<K>, Error> {
    let list = Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    Ok(list.during(|| format!("list {} in the namespace {namespace}", K::plural(&())))?.items)
}

/// Makes an object. That it exists already is success: names are deterministic, so it is the one that an earlier try made.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn create<K: Object>(client: &Client, object: &K) -> Result<(), Error> {
    create_or_find(client, object).await.map(drop)
}

/// Makes an object; what has its name already, if there is something.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn create_or_find<K: Object>(client: &Client, object: &K) -> Result<Option<K>, Error> {
    let api = beside::<K, K>(client, object);
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(s)) if s.is_already_exists() => {
            read(client, &object.namespace().unwrap_or_default(), &object.name_any()).await
        }
        other => other.map(|_| None).during(|| format!("create the {}", title(object))),
    }
}

/// Deletes an object if it is still the one that was looked at. That it is gone, or another has its name, is success.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn delete<K: Object>(client: &Client, object: &K, grace: Option<u32>) -> Result<(), Error> {
    let preconditions = Some(Preconditions { uid: object.uid(), resource_version: None });
    let params = DeleteParams { preconditions, grace_period_seconds: grace, ..DeleteParams::background() };
    match beside::<K, K>(client, object).delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => Ok(()),
        other => other.map(|_| ()).during(|| format!("delete the {}", title(object))),
    }
}

/// Writes the status of an object that was read before. If anybody wrote it since, nothing is written and the error is a conflict: so
/// neither a stale read nor a second operator can take a run back to where it was.
///
/// # Errors
/// A conflict, or the API server did not answer, or refused.
pub async fn write_status<K: Object>(client: &Client, object: &K) -> Result<K, Error> {
    let api = beside::<K, K>(client, object);
    api.replace_status(&object.name_any(), &PostParams::default(), object)
        .await
        .during(|| format!("write the status of the {}", title(object)))
}

/// Adds or removes our finalizer, if the object is still as it was read.
///
/// # Errors
/// A conflict, or the API server did not answer, or refused.
pub async fn set_finalizer<K: Object>(client: &Client, object: &K, wanted: bool) -> Result<K, Error> {
    let has = object.finalizers().iter().any(|f| f == api::FINALIZER);
    if has == wanted {
        return Ok(object.clone());
    }
    let mut finalizers: Vec<&String> = object.finalizers().iter().filter(|f| *f != api::FINALIZER).collect();
    let ours = api::FINALIZER.to_owned();
    if wanted {
        finalizers.push(&ours);
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    beside::<K, K>(client, object)
        .patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .during(|| format!("{} the finalizer of the {}", if wanted { "set" } else { "remove" }, title(object)))
}
