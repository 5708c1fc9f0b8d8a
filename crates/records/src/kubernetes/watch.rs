//! Following a record in the Kubernetes API.

use super::answers::why;
use super::{Failure, KubernetesRecords, versioned};
use crate::follow::{Event, Follower, Source};
use crate::form;
use api::VolumeRecord;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{ListParams, WatchEvent, WatchParams};
use replication::record::store::{StoreError, Versioned, Watch};
use replication::units::VolumeId;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a watch of this API allows for at most, in seconds; one that is longer is refused by the client.
const LONGEST_WATCH_S: u64 = 290;

/// Follows a record in the Kubernetes API.
pub struct KubernetesWatch(Follower<Watched>);

impl KubernetesWatch {
    pub(super) fn new(records: KubernetesRecords, volume: VolumeId) -> Self {
        let patience = records.patience;
        Self(Follower::new(Watched { records, volume }, patience))
    }
}

impl Watch for KubernetesWatch {
    async fn next(&mut self) -> Result<Option<Versioned>, StoreError> {
        self.0.next().await
    }
}

struct Watched {
    records: KubernetesRecords,
    volume: VolumeId,
}

/// An open watch, and when the server must have ended it.
struct Events {
    stream: BoxStream<'static, kube::Result<WatchEvent<VolumeRecord>>>,
    end: Instant,
}

impl Watched {
    /// The object alone has no version that a watch could begin at when it is not there; the list of it has.
    async fn look(&self) -> Result<(Option<Versioned>, String), StoreError> {
        let parameters = ListParams::default().fields(&self.field());
        let listed = self.records.in_time(self.records.api.list(&parameters)).await;
        let listed = listed.map_err(|failure| StoreError { reason: why("watch", &failure) })?;
        let found = listed.items.first().map(|object| versioned(self.volume, object)).transpose()?;
        let versionless = || StoreError { reason: "the API server gave a list without a resourceVersion".into() };
        Ok((found, listed.metadata.resource_version.ok_or_else(versionless)?))
    }

    fn field(&self) -> String {
        format!("metadata.name={}", form::name(self.volume))
    }
}

impl Source for Watched {
    type Events = Events;

    async fn begin(&self) -> Result<(Option<Versioned>, Events), StoreError> {
        let (found, since) = self.look().await?;
        let patience = &self.records.patience;
        let seconds = patience.watch.as_secs().clamp(1, LONGEST_WATCH_S);
        let parameters = WatchParams::default()
            .fields(&self.field())
            .timeout(u32::try_from(seconds).unwrap_or(u32::MAX))
            .disable_bookmarks();
        let opened = self.records.in_time(self.records.api.watch(&parameters, &since)).await;
        let stream = opened.map_err(|failure| StoreError { reason: why("watch", &failure) })?.boxed();
        // A server that is gone without a word ends nothing.
        let end = Instant::now() + Duration::from_secs(seconds) + patience.request;
        Ok((found, Events { stream, end }))
    }

    async fn next(&self, events: &mut Events) -> Result<Event, StoreError> {
        let Ok(event) = timeout_at(events.end, events.stream.next()).await else { return Ok(Event::Over) };
        match event {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                versioned(self.volume, &object).map(|found| Event::Is(Some(found)))
            }
            Some(Ok(WatchEvent::Deleted(_))) => Ok(Event::Is(None)),
            Some(Ok(WatchEvent::Bookmark(_))) => Ok(Event::Nothing),
            Some(Ok(WatchEvent::Error(status))) if status.code != 410 => {
                let failure = Failure::Kube(kube::Error::Api(status));
                Err(StoreError { reason: why("watch", &failure) })
            }
            // Its time has passed, its connection is lost, or what it was to go on from is forgotten.
            Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => Ok(Event::Over),
        }
    }
}
