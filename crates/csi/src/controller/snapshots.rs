//! Snapshots of one volume.

use super::create::in_use;
use super::volumes::signed;
use crate::busy;
use crate::check;
use crate::driver::Driver;
use crate::names::{self, labels};
use crate::parameters;
use crate::proto;
use crate::token;
use crate::volumes::{Labels, Snapshot, SnapshotState};
use prost_types::Timestamp;
use tonic::Status;

impl Driver {
    pub(super) fn create_snapshot(
        &self,
        request: &proto::CreateSnapshotRequest,
    ) -> Result<proto::CreateSnapshotResponse, Status> {
        let (name, volume) = (&request.name, &request.source_volume_id);
        check::name("name", name)?;
        check::id("source_volume_id", volume)?;
        check::map("secrets", &request.secrets)?;
        check::map("parameters", &request.parameters)?;
        let claim = parameters::of_snapshot(&request.parameters)?;
        let id = names::snapshot(volume, &names::id(name));
        // By its name, which is of one volume alone, and by its id, which it is deleted by.
        let _held = self.busy.hold([busy::snapshot(name), busy::snapshot(&id)])?;
        let has_name = |snapshot: &&Snapshot| snapshot.labels.get(labels::NAME) == Some(name);
        let all = self.volumes.snapshots()?;
        if let Some(there) = all.iter().find(has_name) {
            if there.volume != *volume {
                let what = format!("there is a snapshot {name:.130?}, and it is of the volume {}", there.volume);
                return Err(Status::already_exists(what));
            }
            match there.state {
                SnapshotState::Ready => return Ok(proto::CreateSnapshotResponse { snapshot: Some(told(there)) }),
                SnapshotState::Lost => return Err(lost(&there.id)),
                SnapshotState::Wanted => {}
            }
            // An earlier call has ended before it was taken: this one waits for it, too.
            let taken = self.volumes.snapshot(std::slice::from_ref(&there.id), &there.labels)?;
            return Ok(proto::CreateSnapshotResponse { snapshot: taken.first().map(told) });
        }
        self.volume(volume)?;
        if all.iter().any(|snapshot| snapshot.id == id) {
            let what = format!("there is a snapshot {id} that was taken by other means; use another name");
            return Err(Status::already_exists(what));
        }
        let noted: Labels = claim.into_iter().chain([(labels::NAME.to_owned(), name.clone())]).collect();
        let taken = self.volumes.snapshot(&[id], &noted)?;
        Ok(proto::CreateSnapshotResponse { snapshot: taken.first().map(told) })
    }

    pub(super) fn delete_snapshot(
        &self,
        request: &proto::DeleteSnapshotRequest,
    ) -> Result<proto::DeleteSnapshotResponse, Status> {
        check::id("snapshot_id", &request.snapshot_id)?;
        check::map("secrets", &request.secrets)?;
        let _held = self.busy.hold([busy::snapshot(&request.snapshot_id)])?;
        if let Some(there) = self.find_snapshot(&request.snapshot_id)? {
            if let Some(group) = there.labels.get(labels::GROUP) {
                let what = format!("{} belongs to the group snapshot {group}; delete that", there.id);
                return Err(Status::invalid_argument(what));
            }
            self.volumes.delete_snapshot(&there.id).map_err(in_use)?;
        }
        Ok(proto::DeleteSnapshotResponse {})
    }

    pub(super) fn list_snapshots(
        &self,
        request: &proto::ListSnapshotsRequest,
    ) -> Result<proto::ListSnapshotsResponse, Status> {
        use proto::list_snapshots_response::Entry;
        check::map("secrets", &request.secrets)?;
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let mut all = self.volumes.snapshots()?;
        all.retain(|snapshot| snapshot.state == SnapshotState::Ready && !names::is_for_clone(&snapshot.labels));
        all.retain(|snapshot| fits(&request.snapshot_id, &snapshot.id));
        all.retain(|snapshot| fits(&request.source_volume_id, &snapshot.volume));
        let (page, next_token) =
            token::page(all, |snapshot| &snapshot.id, request.max_entries, &request.starting_token)?;
        let entries = page.iter().map(|snapshot| Entry { snapshot: Some(told(snapshot)) }).collect();
        Ok(proto::ListSnapshotsResponse { entries, next_token })
    }

    pub(super) fn get_snapshot(
        &self,
        request: &proto::GetSnapshotRequest,
    ) -> Result<proto::GetSnapshotResponse, Status> {
        check::id("snapshot_id", &request.snapshot_id)?;
        check::map("secrets", &request.secrets)?;
        let snapshot = self.snapshot(&request.snapshot_id)?;
        Ok(proto::GetSnapshotResponse { snapshot: Some(told(&snapshot)) })
    }

    /// The snapshot of this id, if it is one that is there for its own sake.
    pub(crate) fn find_snapshot(&self, id: &str) -> Result<Option<Snapshot>, Status> {
        let is_it = |snapshot: &Snapshot| snapshot.id == id && !names::is_for_clone(&snapshot.labels);
        Ok(self.volumes.snapshots()?.into_iter().find(is_it))
    }

    /// The snapshot, which must be there.
    pub(crate) fn snapshot(&self, id: &str) -> Result<Snapshot, Status> {
        let found = self.find_snapshot(id)?;
        let found = found.ok_or_else(|| Status::not_found(format!("there is no snapshot {id:.300}")))?;
        match found.state {
            SnapshotState::Ready => Ok(found),
            SnapshotState::Wanted => {
                Err(Status::aborted(format!("the snapshot {id:.300} is not taken yet; ask again")))
            }
            SnapshotState::Lost => Err(lost(id)),
        }
    }
}

fn lost(id: &str) -> Status {
    Status::data_loss(format!("the snapshot {id:.300} is lost with the pools that it was in; delete it"))
}

/// A snapshot as the protocol has it.
pub(crate) fn told(snapshot: &Snapshot) -> proto::Snapshot {
    proto::Snapshot {
        size_bytes: signed(snapshot.bytes),
        snapshot_id: snapshot.id.clone(),
        source_volume_id: snapshot.volume.clone(),
        creation_time: Some(wire_time(snapshot.created)),
        ready_to_use: true,
        group_snapshot_id: snapshot.labels.get(labels::GROUP).cloned().unwrap_or_default(),
    }
}

/// Seconds since 1970 as the protocol has them.
pub(crate) fn wire_time(seconds: u64) -> Timestamp {
    Timestamp { seconds: signed(seconds), nanos: 0 }
}
