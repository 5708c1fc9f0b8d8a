//! How the kubelet of this node learns of the driver: it looks into a folder for sockets, and asks each who is behind it.

use crate::plugins::registration_server::Registration;
use crate::plugins::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::service::{Answer, DRIVER};
use std::path::PathBuf;
use tonic::{Request, Response};

/// What the kubelet is told.
pub(crate) struct Told {
    /// Where the driver answers.
    pub(crate) endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for Told {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        let status = request.into_inner();
        tracing::info!(taken = status.plugin_registered, error = status.error, "the kubelet has answered");
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
