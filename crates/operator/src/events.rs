//! Events: what a person sees under `kubectl describe`.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use crate::conditions::shorten;

/// Longest note that the API server takes, in characters of one byte.
const NOTE_CHARS: usize = 1000;

/// Publishes events. They are for people: one that cannot be published is logged and changes nothing.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events in the name of this operator.
    #[must_use]
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "orlop-operator".into(), instance: Some(identity.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Something went as it should. `action` is what was done, `reason` why this event is there; both one word in CamelCase.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, action: &str, reason: &str, note: &str) {
        self.publish(about, EventType::Normal, action, reason, note).await;
    }

    /// Something did not go as it should.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, action: &str, reason: &str, note: &str) {
        self.publish(about, EventType::Warning, action, reason, note).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        type_: EventType,
        action: &str,
        reason: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(note, NOTE_CHARS)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &about.object_ref(&())).await {
            tracing::warn!(%error, reason, note, "an event was not published");
        }
    }
}
