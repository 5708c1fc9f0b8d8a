//! What an attachment asks of the record store.

use super::owner::Shared;
use crate::clock;
use replication::attachment::{CallId, Event};
use replication::record::Record;
use replication::record::store::{RecordStore, Version, Watch};
use replication::units::{Span, VolumeId};
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A question.
pub(super) enum Call {
    /// Read the record.
    Get(CallId),
    /// Replace this version of it.
    Swap(CallId, Version, Record),
}

/// Begins to ask what comes, and to follow the record.
pub(super) fn start<R: RecordStore + 'static>(
    records: Arc<R>,
    volume: VolumeId,
    shared: Weak<Shared>,
    (asked, retry): (mpsc::Receiver<Call>, Span),
    stop: &CancellationToken,
) {
    let (asks, follows) = (stop.clone(), stop.clone());
    let (other, listener) = (records.clone(), shared.clone());
    tokio::spawn(async move { asks.run_until_cancelled(ask(other, volume, listener, asked)).await });
    tokio::spawn(async move { follows.run_until_cancelled(follow(records, volume, shared, retry)).await });
}

/// Each question by itself: one that is never answered keeps no other from being asked.
async fn ask<R: RecordStore + 'static>(
    records: Arc<R>,
    volume: VolumeId,
    shared: Weak<Shared>,
    mut asked: mpsc::Receiver<Call>,
) {
    let mut under_way = JoinSet::new();
    while let Some(call) = asked.recv().await {
        while under_way.try_join_next().is_some() {}
        let (records, shared) = (records.clone(), shared.clone());
        under_way.spawn(async move {
            let event = match call {
                Call::Get(id) => Event::Got(id, records.get(volume).await),
                Call::Swap(id, expected, record) => {
                    Event::Swapped(id, records.swap(volume, Some(expected), record).await)
                }
            };
            if let Some(shared) = shared.upgrade() {
                shared.tell(event);
            }
        });
    }
}

async fn follow<R: RecordStore>(records: Arc<R>, volume: VolumeId, shared: Weak<Shared>, retry: Span) {
    loop {
        if let Ok(mut watch) = records.watch(volume).await {
            while watch.next().await.is_ok() {
                let Some(shared) = shared.upgrade() else { return };
                shared.tell(Event::RecordChanged);
            }
        }
        // What has changed meanwhile is told first by the next watch.
        tokio::time::sleep(clock::duration(retry)).await;
    }
}
