//! The controller: volumes and snapshots are made, found, changed and deleted.

mod create;
mod list;
mod snapshots;
mod validate;
mod volumes;

pub(crate) use snapshots::{told as told_snapshot, wire_time};

use crate::driver::{Answer, Service};
use crate::proto::controller_service_capability::{Rpc, Type, rpc};
use crate::proto::{self, controller_server::Controller};
use tonic::{Request, Response, Status};

/// What this controller can do.
///
/// Two calls are answered and not among these, `ControllerExpandVolume` and `ControllerModifyVolume`. Who sees them here asks for them in one place for all
/// volumes (external-resizer has one leader in a cluster), and this controller knows those of its node alone. Without them, expansion is asked of the node
/// that has the volume, which does all of it.
const CAN: [rpc::Type; 9] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::ListVolumes,
    rpc::Type::GetCapacity,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::CloneVolume,
    rpc::Type::VolumeCondition,
    rpc::Type::GetVolume,
    rpc::Type::SingleNodeMultiWriter,
];
/// What is younger than the others, and told last.
const CAN_TOO: [rpc::Type; 1] = [rpc::Type::GetSnapshot];

#[tonic::async_trait]
impl Controller for Service {
    async fn create_volume(&self, request: Request<proto::CreateVolumeRequest>) -> Answer<proto::CreateVolumeResponse> {
        let request = request.into_inner();
        self.ask("CreateVolume", move |driver| driver.create_volume(&request)).await
    }

    async fn delete_volume(&self, request: Request<proto::DeleteVolumeRequest>) -> Answer<proto::DeleteVolumeResponse> {
        let request = request.into_inner();
        self.ask("DeleteVolume", move |driver| driver.delete_volume(&request)).await
    }

    async fn controller_publish_volume(
        &self,
        _: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Answer<proto::ControllerPublishVolumeResponse> {
        Err(nowhere_else())
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Answer<proto::ControllerUnpublishVolumeResponse> {
        Err(nowhere_else())
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<proto::ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        self.ask("ValidateVolumeCapabilities", move |driver| driver.validate(request)).await
    }

    async fn list_volumes(&self, request: Request<proto::ListVolumesRequest>) -> Answer<proto::ListVolumesResponse> {
        let request = request.into_inner();
        self.ask("ListVolumes", move |driver| driver.list_volumes(&request)).await
    }

    async fn get_capacity(&self, request: Request<proto::GetCapacityRequest>) -> Answer<proto::GetCapacityResponse> {
        let request = request.into_inner();
        self.ask("GetCapacity", move |driver| driver.capacity(&request)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Answer<proto::ControllerGetCapabilitiesResponse> {
        let can = |kind: &rpc::Type| proto::ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: (*kind).into() })),
        };
        let capabilities = CAN.iter().chain(&CAN_TOO).map(can).collect();
        Ok(Response::new(proto::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Answer<proto::CreateSnapshotResponse> {
        let request = request.into_inner();
        self.ask("CreateSnapshot", move |driver| driver.create_snapshot(&request)).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Answer<proto::DeleteSnapshotResponse> {
        let request = request.into_inner();
        self.ask("DeleteSnapshot", move |driver| driver.delete_snapshot(&request)).await
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Answer<proto::ListSnapshotsResponse> {
        let request = request.into_inner();
        self.ask("ListSnapshots", move |driver| driver.list_snapshots(&request)).await
    }

    async fn get_snapshot(&self, request: Request<proto::GetSnapshotRequest>) -> Answer<proto::GetSnapshotResponse> {
        let request = request.into_inner();
        self.ask("GetSnapshot", move |driver| driver.get_snapshot(&request)).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Answer<proto::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        self.ask("ControllerExpandVolume", move |driver| driver.expand(&request)).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<proto::ControllerGetVolumeRequest>,
    ) -> Answer<proto::ControllerGetVolumeResponse> {
        let request = request.into_inner();
        self.ask("ControllerGetVolume", move |driver| driver.get_volume(&request)).await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<proto::ControllerModifyVolumeRequest>,
    ) -> Answer<proto::ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        self.ask("ControllerModifyVolume", move |driver| driver.modify(&request)).await
    }
}

fn nowhere_else() -> Status {
    Status::unimplemented("volumes need no publishing by the controller; set attachRequired: false in the CSIDriver")
}
