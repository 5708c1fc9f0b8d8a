//! Volumes with several replicas become larger: the wish is written into the volume, the controller brings it into the record, whoever serves the volume has the replicas grow, and
//! when the record says that all have, the kernel of the node that uses it is told.

use super::InCluster;
use api::Volume as Object;
use csi::{Error, Kind, Volume};
use kube::ResourceExt;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long it is waited for; whoever asks waits for a minute, and asks again.
const GROW_LIMIT: Duration = Duration::from_secs(45);
/// How often the record is looked at.
const GROW_LOOK: Duration = Duration::from_millis(100);

impl InCluster {
    pub(super) fn grow_replicated(&self, object: &Object, bytes: u64) -> Result<Volume, Error> {
        let id = object.name_any();
        let has = object.spec.bytes;
        let record = self.record(object)?;
        let is_smaller = record.as_ref().is_some_and(|record| bytes < record.blocks * 4096);
        if is_smaller {
            let story = format!("make {id} {bytes} bytes large: it has {has}, and a volume never becomes smaller");
            return Err(Error { kind: Kind::Invalid, story });
        }
        self.change(&id, |now| Ok((bytes > now.spec.bytes).then(|| json!({ "bytes": bytes }))))?;
        let (begin, mut why) = (Instant::now(), "nobody has read it yet; see that the operator runs".to_owned());
        while begin.elapsed() < GROW_LIMIT {
            if let Some(record) = self.record(object)? {
                if record.blocks >= bytes.div_ceil(4096) {
                    match self.node.grown_replicated(&id, bytes).map_err(|error| super::of_node(&error)) {
                        Ok(()) => return Ok(self.told(object, Some(&record))),
                        Err(error) if error.kind == Kind::Busy => why = error.story,
                        Err(error) => return Err(error),
                    }
                } else {
                    why = self.bring_about(object, &record)?;
                }
            }
            std::thread::sleep(GROW_LOOK);
        }
        let story = format!("{id} has not grown to {bytes} bytes yet: {why}; ask again, and it goes on");
        Err(Error { kind: Kind::Busy, story })
    }
}
