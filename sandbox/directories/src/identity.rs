//! Who this driver is.

use crate::proto::plugin_capability::{Service as Serves, Type, service};
use crate::proto::{self, identity_server::Identity};
use crate::service::{Answer, DRIVER, Service};
use tonic::{Request, Response};

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(&self, _: Request<proto::GetPluginInfoRequest>) -> Answer<proto::GetPluginInfoResponse> {
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..proto::GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Answer<proto::GetPluginCapabilitiesResponse> {
        let serves = [service::Type::ControllerService, service::Type::VolumeAccessibilityConstraints];
        let capability = |what: service::Type| proto::PluginCapability {
            r#type: Some(Type::Service(Serves { r#type: what.into() })),
        };
        Ok(Response::new(proto::GetPluginCapabilitiesResponse { capabilities: serves.map(capability).to_vec() }))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Answer<proto::ProbeResponse> {
        Ok(Response::new(proto::ProbeResponse { ready: Some(true) }))
    }
}
