//! A volume that nobody uses is served for a moment, to nobody, so that what its record wants of its replicas is done: a snapshot, or that they are larger.
//!
//! It is an attachment like any other, without a device: the record has it, and leases and epochs hold for it. Whoever wants to use the volume meanwhile is told to come
//! again. When this process ends in the middle, the next one gives the volume back, like all that it does not serve ([`super`]).

use super::Inner;
use super::attach::{Guard, RETRY, busy};
use crate::error::{Error, Kind, Result};
use replication::record::Record;
use replication::record::store::{RecordStore, Watch};
use replication::units::VolumeId;
use std::sync::Arc;
use std::time::Duration;

/// How long it is waited for; then somebody who uses the volume may have it, and what is wanted is done when it is served the next time.
const ATTEND_LIMIT: Duration = Duration::from_secs(30);

impl Inner {
    pub(super) async fn attend(self: &Arc<Self>, volume: VolumeId, name: &str) -> Result<()> {
        let mut running = self.hold(volume, name, "attend to")?;
        if running.is_some() {
            // It is served, so it is done.
            return Ok(());
        }
        if self.is_left(name) {
            return Err(busy("attend to", name));
        }
        match self.claim_for_nobody(volume).await {
            Ok(begun) => *running = Some(begun),
            Err(refused) => {
                self.forget(volume);
                drop(running);
                return Err(refused.error(name));
            }
        }
        let me = self.clone();
        // By itself: whoever asked may not wait so long, and the volume has to be given back.
        let attending = self.tasks.spawn_on(async move { me.serve_nobody(volume, running).await }, &self.runtime);
        match tokio::time::timeout(ATTEND_LIMIT, attending).await {
            Ok(Ok(Some(why))) => Err(Error::new(Kind::NoRoom, format!("attend to {name}: {why}"))),
            Ok(_) => Ok(()),
            Err(_) => Err(busy("attend to", name)),
        }
    }

    /// Serves it until what is wanted is done; tells why that cannot be, if so. Nobody else can have the volume meanwhile.
    async fn serve_nobody(&self, volume: VolumeId, running: Guard) -> Option<String> {
        let ended = async {
            let there = running.as_ref()?;
            tokio::select! {
                () = self.until_done(volume) => None,
                why = there.given_up() => Some(why),
            }
        };
        let why = self.stop.run_until_cancelled(tokio::time::timeout(ATTEND_LIMIT, ended)).await;
        let why = why.and_then(|why| why.unwrap_or_else(|_| Some("its replicas have not done it in time".into())));
        if let Some(why) = &why {
            tracing::warn!(volume = %format_args!("{:032x}", volume.0), why, "what is wanted of a volume that nobody uses is not done yet");
        }
        self.end(volume, running).await;
        why
    }

    async fn until_done(&self, volume: VolumeId) {
        let is_done = |record: &Record| record.wanted_snapshot().is_none() && record.blocks >= record.wanted_blocks;
        loop {
            if let Ok(mut watch) = self.records.watch(volume).await {
                while let Ok(found) = watch.next().await {
                    if found.is_none_or(|found| is_done(&found.record)) {
                        return;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
