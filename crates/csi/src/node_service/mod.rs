//! The node: volumes are mounted, shown to pods, and taken away again.

mod expand;
mod publish;
mod stage;
mod stats;
mod table;

use crate::driver::{Answer, Service};
use crate::proto::node_service_capability::{Rpc, Type, rpc};
use crate::proto::{self, node_server::Node};
use tonic::{Request, Response};

/// What this node can do.
const CAN: [rpc::Type; 6] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::ExpandVolume,
    rpc::Type::VolumeCondition,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::VolumeMountGroup,
];

#[tonic::async_trait]
impl Node for Service {
    async fn node_stage_volume(
        &self,
        request: Request<proto::NodeStageVolumeRequest>,
    ) -> Answer<proto::NodeStageVolumeResponse> {
        let request = request.into_inner();
        self.ask("NodeStageVolume", move |driver| driver.stage(&request)).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<proto::NodeUnstageVolumeRequest>,
    ) -> Answer<proto::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        self.ask("NodeUnstageVolume", move |driver| driver.unstage(&request)).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Answer<proto::NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.ask("NodePublishVolume", move |driver| driver.publish(&request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Answer<proto::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.ask("NodeUnpublishVolume", move |driver| driver.unpublish(&request)).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<proto::NodeGetVolumeStatsRequest>,
    ) -> Answer<proto::NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        self.ask("NodeGetVolumeStats", move |driver| driver.stats(&request)).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<proto::NodeExpandVolumeRequest>,
    ) -> Answer<proto::NodeExpandVolumeResponse> {
        let request = request.into_inner();
        self.ask("NodeExpandVolume", move |driver| driver.expand_here(&request)).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Answer<proto::NodeGetCapabilitiesResponse> {
        let can =
            |kind: &rpc::Type| proto::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: (*kind).into() })) };
        Ok(Response::new(proto::NodeGetCapabilitiesResponse { capabilities: CAN.iter().map(can).collect() }))
    }

    async fn node_get_info(&self, _: Request<proto::NodeGetInfoRequest>) -> Answer<proto::NodeGetInfoResponse> {
        let driver = &self.0;
        Ok(Response::new(proto::NodeGetInfoResponse {
            node_id: driver.node.clone(),
            max_volumes_per_node: 0,
            accessible_topology: Some(driver.topology()),
        }))
    }
}
