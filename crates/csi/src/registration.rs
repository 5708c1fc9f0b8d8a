//! How the kubelet of this node learns of the driver: by a socket in its folder of plug-ins, without a helper beside this process.

use crate::driver::DRIVER;
use crate::plugins::registration_server::{Registration, RegistrationServer};
use crate::plugins::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::server::{Endpoint, MOST_REQUEST, ServeError, connections, listen};
use std::fs;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The versions of CSI that kubelets know a driver by: all of the first.
const VERSIONS: [&str; 1] = ["1.0.0"];

struct Told {
    endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for Told {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: VERSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("the kubelet knows the driver");
        } else {
            tracing::error!(error = status.error, "the kubelet has not taken the driver");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Tells the kubelet whose folder this is where the driver answers, until `stop`. The socket is removed then, by which the kubelet learns that it is gone.
///
/// # Errors
///
/// If it cannot listen there.
pub async fn register(kubelet: &Path, endpoint: &Endpoint, stop: CancellationToken) -> Result<(), ServeError> {
    let path = kubelet.join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
    let listener = listen(&path).await?;
    let told = Told { endpoint: endpoint.path().to_owned() };
    let served = Server::builder()
        .add_service(RegistrationServer::new(told).max_decoding_message_size(MOST_REQUEST))
        .serve_with_incoming_shutdown(connections(listener), stop.cancelled())
        .await;
    let removed = fs::remove_file(&path);
    served.map_err(|source| ServeError::Grpc { path: path.clone(), source })?;
    removed.map_err(|source| ServeError::System { action: "remove", path, source })
}
