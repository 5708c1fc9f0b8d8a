//! Volumes and snapshots are made and deleted, each on the node that it is asked for.

use crate::proto::controller_service_capability::{Rpc, Type, rpc};
use crate::proto::volume_content_source::Type as Source;
use crate::proto::{self, controller_server::Controller};
use crate::service::{Answer, Driver, Service, is_possible};
use crate::store::{Kind, path};
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// How large a volume is for which no size is asked.
const USUAL_BYTES: i64 = 1 << 30;

#[tonic::async_trait]
impl Controller for Service {
    async fn controller_get_capabilities(
        &self,
        _: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Answer<proto::ControllerGetCapabilitiesResponse> {
        let can = [rpc::Type::CreateDeleteVolume, rpc::Type::CreateDeleteSnapshot, rpc::Type::CloneVolume];
        let capability = |what: rpc::Type| proto::ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: what.into() })),
        };
        let capabilities = can.map(capability).to_vec();
        Ok(Response::new(proto::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume(&self, request: Request<proto::CreateVolumeRequest>) -> Answer<proto::CreateVolumeResponse> {
        let request = request.into_inner();
        self.ask(move |driver| driver.create_volume(request)).await
    }

    async fn delete_volume(&self, request: Request<proto::DeleteVolumeRequest>) -> Answer<proto::DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.ask(move |driver| driver.store.remove(Kind::Volume, &id).map(|()| proto::DeleteVolumeResponse {})).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<proto::ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        self.ask(move |driver| driver.validate(request)).await
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Answer<proto::CreateSnapshotResponse> {
        let request = request.into_inner();
        self.ask(move |driver| driver.create_snapshot(request)).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Answer<proto::DeleteSnapshotResponse> {
        let id = request.into_inner().snapshot_id;
        self.ask(move |driver| driver.store.remove(Kind::Snapshot, &id).map(|()| proto::DeleteSnapshotResponse {}))
            .await
    }
}

/// Neither volumes nor snapshots have parameters.
fn nothing_more(parameters: &HashMap<String, String>) -> Result<(), Status> {
    match parameters.keys().next() {
        Some(parameter) => {
            Err(Status::invalid_argument(format!("there is no parameter {parameter}: leave it out of the class")))
        }
        None => Ok(()),
    }
}

impl Driver {
    fn create_volume(&self, request: proto::CreateVolumeRequest) -> Result<proto::CreateVolumeResponse, Status> {
        let proto::CreateVolumeRequest { name, parameters, volume_content_source: content_source, .. } = request;
        is_possible(&request.volume_capabilities).map_err(Status::invalid_argument)?;
        nothing_more(&parameters)?;
        let here = self.topology();
        let wanted = request.accessibility_requirements.unwrap_or_default().requisite;
        if !wanted.is_empty() && !wanted.contains(&here) {
            return Err(Status::resource_exhausted(format!("volumes of this driver are on {}", self.node)));
        }
        let from = match content_source.as_ref().and_then(|source| source.r#type.as_ref()) {
            Some(Source::Snapshot(source)) => Some((Kind::Snapshot, source.snapshot_id.as_str())),
            Some(Source::Volume(source)) => Some((Kind::Volume, source.volume_id.as_str())),
            None => None,
        };
        let least = match from {
            None => 0,
            // What is on another node is copied there.
            Some((kind, id)) => match self.store.about(kind, id)? {
                Some(about) => about.bytes,
                None => return Err(Status::resource_exhausted(format!("there is no {id} on {}", self.node))),
            },
        };
        let range = request.capacity_range.unwrap_or_default();
        let bytes = match (range.required_bytes, least) {
            (0, 0) => USUAL_BYTES,
            (required, least) => required.max(least),
        };
        if range.limit_bytes > 0 && bytes > range.limit_bytes {
            return Err(Status::out_of_range(format!(
                "it has {bytes} bytes, and at most {} are wanted",
                range.limit_bytes
            )));
        }
        let made = self.store.make(Kind::Volume, &name, bytes, from)?;
        if made.bytes != bytes || made.made_from != from.map(|(kind, id)| path(kind, id)) {
            return Err(Status::already_exists(format!("there is a volume {name} that is another one: {made:?}")));
        }
        Ok(proto::CreateVolumeResponse {
            volume: Some(proto::Volume {
                volume_id: name,
                capacity_bytes: bytes,
                content_source,
                accessible_topology: vec![here],
                ..proto::Volume::default()
            }),
        })
    }

    fn validate(
        &self,
        request: proto::ValidateVolumeCapabilitiesRequest,
    ) -> Result<proto::ValidateVolumeCapabilitiesResponse, Status> {
        let proto::ValidateVolumeCapabilitiesRequest { volume_id, volume_capabilities, volume_context, .. } = request;
        if self.store.about(Kind::Volume, &volume_id)?.is_none() {
            return Err(Status::not_found(format!("there is no volume {volume_id}")));
        }
        let (confirmed, message) = match is_possible(&volume_capabilities) {
            Ok(()) => {
                let confirmed = proto::validate_volume_capabilities_response::Confirmed {
                    volume_context,
                    volume_capabilities,
                    ..Default::default()
                };
                (Some(confirmed), String::new())
            }
            Err(why) => (None, why.to_owned()),
        };
        Ok(proto::ValidateVolumeCapabilitiesResponse { confirmed, message })
    }

    fn create_snapshot(&self, request: proto::CreateSnapshotRequest) -> Result<proto::CreateSnapshotResponse, Status> {
        let proto::CreateSnapshotRequest { name, source_volume_id, parameters, .. } = request;
        nothing_more(&parameters)?;
        let source = self.store.about(Kind::Volume, &source_volume_id)?;
        let source = source.ok_or_else(|| Status::not_found(format!("there is no volume {source_volume_id}")))?;
        let taken =
            self.store.make(Kind::Snapshot, &name, source.bytes, Some((Kind::Volume, source_volume_id.as_str())))?;
        if taken.made_from != Some(path(Kind::Volume, &source_volume_id)) {
            return Err(Status::already_exists(format!("there is a snapshot {name} of another volume: {taken:?}")));
        }
        Ok(proto::CreateSnapshotResponse {
            snapshot: Some(proto::Snapshot {
                snapshot_id: name,
                source_volume_id,
                size_bytes: taken.bytes,
                creation_time: Some(taken.made_at.into()),
                ready_to_use: true,
                ..proto::Snapshot::default()
            }),
        })
    }
}
