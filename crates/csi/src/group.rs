//! Group snapshots: all volumes of a group at one instant, all or none.
//!
//! A group is its snapshots: each has the group's id in its labels, noted in the step that takes them all. There is nothing else that could be lost.

use crate::busy;
use crate::check;
use crate::controller::{told_snapshot, wire_time};
use crate::driver::{Answer, Driver, Service, no_volume};
use crate::names::{self, labels};
use crate::parameters;
use crate::proto::group_controller_service_capability::{Rpc, Type, rpc};
use crate::proto::{self, group_controller_server::GroupController};
use crate::volumes::{Kind, Labels, Snapshot};
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl GroupController for Service {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<proto::GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<proto::GroupControllerGetCapabilitiesResponse> {
        let kind = Type::Rpc(Rpc { r#type: rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into() });
        let capabilities = vec![proto::GroupControllerServiceCapability { r#type: Some(kind) }];
        Ok(Response::new(proto::GroupControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<proto::CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<proto::CreateVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.ask("CreateVolumeGroupSnapshot", move |driver| driver.create_group(&request)).await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<proto::DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<proto::DeleteVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.ask("DeleteVolumeGroupSnapshot", move |driver| driver.delete_group(&request)).await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<proto::GetVolumeGroupSnapshotRequest>,
    ) -> Answer<proto::GetVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.ask("GetVolumeGroupSnapshot", move |driver| driver.get_group(&request)).await
    }
}

impl Driver {
    fn create_group(
        &self,
        request: &proto::CreateVolumeGroupSnapshotRequest,
    ) -> Result<proto::CreateVolumeGroupSnapshotResponse, Status> {
        check::name("name", &request.name)?;
        check::map("secrets", &request.secrets)?;
        check::map("parameters", &request.parameters)?;
        let claim = parameters::of_snapshot(&request.parameters)?;
        let volumes = distinct(&request.source_volume_ids)?;
        let group = names::id(&request.name);
        let _held = self.busy.hold([busy::snapshot(&group)])?;
        let mut members = self.members(&group)?;
        if !are_all(&members) {
            tracing::warn!(group, "some of the group snapshot are there, of an interrupted call; all are taken anew");
            for member in std::mem::take(&mut members) {
                self.volumes.delete_snapshot(&member.id)?;
            }
        }
        if !members.is_empty() {
            let of: BTreeSet<&str> = members.iter().map(|member| member.volume.as_str()).collect();
            if of != volumes.iter().map(String::as_str).collect() {
                let what = format!("there is a group snapshot {group}, and it is of the volumes {of:?}");
                return Err(Status::already_exists(what));
            }
            return Ok(proto::CreateVolumeGroupSnapshotResponse { group_snapshot: Some(told(&group, &members)) });
        }
        for id in &volumes {
            self.volumes.find(id)?.ok_or_else(|| no_volume(id))?;
        }
        let own = names::derived("group-", &request.name);
        let ids: Vec<String> = volumes.iter().map(|volume| names::snapshot(volume, &own)).collect();
        let own = [(labels::GROUP, group.clone()), (labels::MEMBERS, volumes.len().to_string())];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        let noted: Labels = claim.into_iter().chain(own).collect();
        let taken = self.volumes.snapshot(&ids, &noted).map_err(|error| match error.kind {
            // Each of them is there: it is together that they cannot be taken.
            Kind::Invalid => Status::failed_precondition(error.story),
            _ => error.into(),
        })?;
        Ok(proto::CreateVolumeGroupSnapshotResponse { group_snapshot: Some(told(&group, &taken)) })
    }

    fn delete_group(
        &self,
        request: &proto::DeleteVolumeGroupSnapshotRequest,
    ) -> Result<proto::DeleteVolumeGroupSnapshotResponse, Status> {
        let group = &request.group_snapshot_id;
        check::id("group_snapshot_id", group)?;
        check::map("secrets", &request.secrets)?;
        let _held = self.busy.hold([busy::snapshot(group)])?;
        let members = self.members(group)?;
        self.fits(group, &members, &request.snapshot_ids)?;
        for member in members {
            self.volumes.delete_snapshot(&member.id)?;
        }
        Ok(proto::DeleteVolumeGroupSnapshotResponse {})
    }

    fn get_group(
        &self,
        request: &proto::GetVolumeGroupSnapshotRequest,
    ) -> Result<proto::GetVolumeGroupSnapshotResponse, Status> {
        let group = &request.group_snapshot_id;
        check::id("group_snapshot_id", group)?;
        check::map("secrets", &request.secrets)?;
        let members = self.members(group)?;
        if members.is_empty() {
            return Err(Status::not_found(format!("there is no group snapshot {group:.300}")));
        }
        self.fits(group, &members, &request.snapshot_ids)?;
        let mut told = told(group, &members);
        told.ready_to_use = are_all(&members);
        Ok(proto::GetVolumeGroupSnapshotResponse { group_snapshot: Some(told) })
    }

    fn members(&self, group: &str) -> Result<Vec<Snapshot>, Status> {
        let mut all = self.volumes.snapshots()?;
        all.retain(|snapshot| snapshot.labels.get(labels::GROUP).is_some_and(|of| of == group));
        Ok(all)
    }

    /// Refuses a list that is not of this group. Members that are gone already, by a deletion that was interrupted, are no mismatch.
    fn fits(&self, group: &str, members: &[Snapshot], listed: &[String]) -> Result<(), Status> {
        if listed.is_empty() {
            return Ok(());
        }
        let forgotten = members.iter().find(|member| !listed.contains(&member.id));
        if let Some(member) = forgotten {
            let what = format!("snapshot_ids lack {}, which belongs to the group snapshot {group}", member.id);
            return Err(Status::invalid_argument(what));
        }
        for id in listed {
            let is_member = members.iter().any(|member| member.id == *id);
            if !is_member && self.find_snapshot(id)?.is_some() {
                let what = format!("snapshot_ids have {id:.300}, which does not belong to the group snapshot {group}");
                return Err(Status::invalid_argument(what));
            }
        }
        Ok(())
    }
}

/// All are there that were to be.
fn are_all(members: &[Snapshot]) -> bool {
    let wanted = |member: &Snapshot| member.labels.get(labels::MEMBERS).and_then(|many| many.parse().ok());
    members.iter().all(|member| wanted(member) == Some(members.len()))
}

/// The volumes of a group, each once.
fn distinct(ids: &[String]) -> Result<BTreeSet<String>, Status> {
    /// As many as a store takes at one instant without anybody noticing.
    const MOST: usize = 256;
    if ids.is_empty() || ids.len() > MOST {
        let what = format!("source_volume_ids are {}; a group has 1 to {MOST} volumes", ids.len());
        return Err(Status::invalid_argument(what));
    }
    ids.iter().try_for_each(|id| check::id("source_volume_ids", id))?;
    let volumes: BTreeSet<String> = ids.iter().cloned().collect();
    if volumes.len() < ids.len() {
        return Err(Status::invalid_argument("source_volume_ids have a volume twice"));
    }
    Ok(volumes)
}

fn told(group: &str, members: &[Snapshot]) -> proto::VolumeGroupSnapshot {
    proto::VolumeGroupSnapshot {
        group_snapshot_id: group.to_owned(),
        snapshots: members.iter().map(told_snapshot).collect(),
        creation_time: members.iter().map(|member| member.created).min().map(wire_time),
        ready_to_use: true,
    }
}
