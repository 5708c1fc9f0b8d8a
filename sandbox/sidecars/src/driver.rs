//! The driver behind a socket, and what the originals ask of it before they begin: `Probe` until it is ready, `GetPluginInfo`, the capabilities.

use crate::failure::Result;
use crate::flags::ToDriver;
use crate::proto::controller_client::ControllerClient;
use crate::proto::controller_service_capability::{self, rpc};
use crate::proto::identity_client::IdentityClient;
use crate::proto::node_client::NodeClient;
use crate::proto::{self, node_service_capability};
use anyhow::Context;
use std::collections::HashMap;
use std::time::Duration;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// How often a driver that is not ready is asked again.
const LOOK: Duration = Duration::from_secs(1);

/// A driver. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    channel: Channel,
    timeout: Duration,
    pub(crate) name: String,
}

impl Driver {
    /// Waits until the driver is ready, and asks who it is.
    pub(crate) async fn connect(to: &ToDriver) -> anyhow::Result<Self> {
        let channel = channel(to)?;
        let mut identity = IdentityClient::new(channel.clone());
        loop {
            let asked = identity.probe(timed(proto::ProbeRequest {}, to.timeout)).await;
            match asked {
                Ok(answer) if answer.get_ref().ready != Some(false) => break,
                Ok(_) => tracing::info!("the driver is not ready"),
                Err(status) => tracing::info!(%status, "the driver is not ready"),
            }
            tokio::time::sleep(LOOK).await;
        }
        let info = identity.get_plugin_info(timed(proto::GetPluginInfoRequest {}, to.timeout)).await;
        let name = info.context("ask the driver for its name")?.into_inner().name;
        tracing::info!(name, "the driver is ready");
        Ok(Self { channel, timeout: to.timeout, name })
    }

    /// A request that ends with an error when it takes too long.
    pub(crate) fn timed<T>(&self, request: T) -> Request<T> {
        timed(request, self.timeout)
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    /// Its controller can do this.
    pub(crate) async fn can(&self, what: rpc::Type) -> anyhow::Result<bool> {
        let request = self.timed(proto::ControllerGetCapabilitiesRequest {});
        let answer = self
            .controller()
            .controller_get_capabilities(request)
            .await
            .context("ask the controller what it can do")?;
        let is_it = |capability: &proto::ControllerServiceCapability| matches!(&capability.r#type, Some(controller_service_capability::Type::Rpc(rpc)) if rpc.r#type() == what);
        Ok(answer.into_inner().capabilities.iter().any(is_it))
    }

    /// Its node service can expand volumes.
    pub(crate) async fn expands_on_nodes(&self) -> anyhow::Result<bool> {
        let request = self.timed(proto::NodeGetCapabilitiesRequest {});
        let answer = self.node().node_get_capabilities(request).await.context("ask the node service what it can do")?;
        let is_it = |capability: &proto::NodeServiceCapability| {
            let Some(node_service_capability::Type::Rpc(rpc)) = &capability.r#type else { return false };
            rpc.r#type() == node_service_capability::rpc::Type::ExpandVolume
        };
        Ok(answer.into_inner().capabilities.iter().any(is_it))
    }

    /// Where volumes of this node can be used.
    pub(crate) async fn topology(&self) -> anyhow::Result<HashMap<String, String>> {
        let request = self.timed(proto::NodeGetInfoRequest {});
        let answer = self.node().node_get_info(request).await.context("ask the driver for the topology of its node")?;
        let topology = answer.into_inner().accessible_topology;
        Ok(topology.context("the driver has no topology, which node deployment needs")?.segments)
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    pub(crate) async fn create_volume(&self, request: proto::CreateVolumeRequest) -> Result<proto::Volume> {
        let answer = self.controller().create_volume(self.timed(request)).await?.into_inner();
        Ok(answer.volume.unwrap_or_default())
    }

    pub(crate) async fn delete_volume(&self, volume: &str, secrets: HashMap<String, String>) -> Result<()> {
        let request = proto::DeleteVolumeRequest { volume_id: volume.to_owned(), secrets };
        self.controller().delete_volume(self.timed(request)).await?;
        Ok(())
    }
}

/// A channel that connects when it is needed, and again when the driver was away.
pub(crate) fn channel(to: &ToDriver) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", to.csi_address.display()));
    Ok(endpoint.with_context(|| format!("understand the address {}", to.csi_address.display()))?.connect_lazy())
}

pub(crate) fn timed<T>(request: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    request
}
