//! Who this driver is, and what it can do at all.

use crate::driver::{Answer, DRIVER, Service};
use crate::proto::plugin_capability::{self as kind, service, volume_expansion};
use crate::proto::{self, identity_server::Identity};
use std::collections::HashMap;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(&self, _: Request<proto::GetPluginInfoRequest>) -> Answer<proto::GetPluginInfoResponse> {
        let vendor_version = self.0.version.clone();
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: DRIVER.into(),
            vendor_version,
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Answer<proto::GetPluginCapabilitiesResponse> {
        let service = |service: service::Type| kind::Type::Service(kind::Service { r#type: service.into() });
        let online = kind::VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        let all = [
            service(service::Type::ControllerService),
            service(service::Type::VolumeAccessibilityConstraints),
            service(service::Type::GroupControllerService),
            service(service::Type::SnapshotMetadataService),
            kind::Type::VolumeExpansion(online),
        ];
        let capabilities = all.map(|kind| proto::PluginCapability { r#type: Some(kind) }).to_vec();
        Ok(Response::new(proto::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Answer<proto::ProbeResponse> {
        self.ask("Probe", |driver| {
            let capacity = driver.volumes.capacity(1).map_err(|error| Status::failed_precondition(error.story))?;
            if capacity.largest == 0 {
                let what = "no pool of this node takes changes; see its log, and start it again";
                return Err(Status::failed_precondition(what));
            }
            Ok(proto::ProbeResponse { ready: Some(true) })
        })
        .await
    }
}
