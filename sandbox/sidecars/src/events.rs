//! Events as client-go writes them: of the core group, which is what the published rights of the originals allow.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Where events of what has no namespace are.
const ELSE: &str = "default";

/// What an event is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

/// Tells of objects.
pub(crate) struct Events {
    client: Client,
    component: String,
}

impl Events {
    pub(crate) fn new(client: &Client, component: impl Into<String>) -> Self {
        Self { client: client.clone(), component: component.into() }
    }

    /// Tells of an object. What was told before in the same words gets a new time. That it is not told is no reason not to do it.
    pub(crate) async fn tell<K>(&self, object: &K, kind: Kind, reason: &str, note: impl Display)
    where
        K: Resource<DynamicType = ()>,
    {
        let message = note.to_string();
        let mut hasher = DefaultHasher::new();
        (object.uid(), reason, &message).hash(&mut hasher);
        let name = format!("{}.{:016x}", object.name_any(), hasher.finish());
        let namespace = object.namespace().unwrap_or_else(|| ELSE.to_owned());
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: object.object_ref(&()),
            type_: Some(format!("{kind:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message),
            source: Some(EventSource { component: Some(self.component.clone()), host: None }),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now.clone()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let told = match api.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"lastTimestamp": now}))).await
            }
            other => other,
        };
        if let Err(error) = told {
            tracing::warn!(%error, reason, "an event was not told");
        }
    }
}
