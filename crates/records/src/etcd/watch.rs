//! Following a record in etcd.

use super::members::why;
use super::wire::event::EventType;
use super::wire::watch_request::RequestUnion;
use super::wire::{WatchCreateRequest, WatchRequest, WatchResponse};
use super::{EtcdRecords, versioned};
use crate::follow::{Event, Follower, Source};
use replication::record::store::{StoreError, Versioned, Watch};
use replication::units::VolumeId;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

/// Follows a record in etcd.
pub struct EtcdWatch(Follower<Watched>);

impl EtcdWatch {
    pub(super) fn new(records: EtcdRecords, volume: VolumeId) -> Self {
        let patience = records.members.patience;
        Self(Follower::new(Watched { records, volume }, patience))
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Option<Versioned>, StoreError> {
        self.0.next().await
    }
}

struct Watched {
    records: EtcdRecords,
    volume: VolumeId,
}

/// An open watch, and when it is begun anew though nothing has ended it.
struct Events {
    stream: Streaming<WatchResponse>,
    end: Instant,
}

fn failed(status: &Status) -> StoreError {
    StoreError { reason: why("watch a record", status) }
}

impl Source for Watched {
    type Events = Events;

    async fn begin(&self) -> Result<(Option<Versioned>, Events), StoreError> {
        let end = Instant::now() + self.records.members.patience.watch;
        let read = self.records.read(self.volume).await?;
        let found = read.kvs.first().map(|pair| versioned(self.volume, pair)).transpose()?;
        let headless = || StoreError { reason: "etcd read a record and gave no revision".into() };
        let since = read.header.ok_or_else(headless)?.revision;
        let create = WatchCreateRequest { key: self.records.key(self.volume), start_revision: since + 1 };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let opened = self.records.members.once(|mut caller| {
            let request = request.clone();
            async move { caller.watch(request).await }
        });
        Ok((found, Events { stream: opened.await.map_err(|status| failed(&status))?, end }))
    }

    async fn next(&self, events: &mut Events) -> Result<Event, StoreError> {
        let Ok(answer) = timeout_at(events.end, events.stream.message()).await else { return Ok(Event::Over) };
        match answer {
            Ok(Some(answer)) if answer.compact_revision != 0 => Ok(Event::Over),
            Ok(Some(answer)) if answer.canceled => {
                Err(StoreError { reason: format!("watch a record in etcd: it was canceled: {}", answer.cancel_reason) })
            }
            Ok(Some(answer)) => self.last_of(&answer),
            Ok(None) => Ok(Event::Over),
            Err(status) => Err(failed(&status)),
        }
    }
}

impl Watched {
    /// Of several changes that come together the last one tells what is.
    fn last_of(&self, answer: &WatchResponse) -> Result<Event, StoreError> {
        let Some(event) = answer.events.last() else { return Ok(Event::Nothing) };
        match (&event.kv, event.r#type()) {
            (Some(pair), EventType::Put) => versioned(self.volume, pair).map(|found| Event::Is(Some(found))),
            (_, EventType::Delete) => Ok(Event::Is(None)),
            (None, EventType::Put) => Ok(Event::Over),
        }
    }
}
