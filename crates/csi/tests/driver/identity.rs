//! Who the driver is.

use crate::world::{World, connect, require};
use csi::plugins::registration_client::RegistrationClient;
use csi::plugins::{InfoRequest, RegistrationStatus};
use csi::proto;
use csi::proto::controller_service_capability::{Type, rpc::Type as Rpc};
use tokio_util::sync::CancellationToken;

fn told(capability: &proto::ControllerServiceCapability) -> Rpc {
    match &capability.r#type {
        Some(Type::Rpc(rpc)) => rpc.r#type(),
        None => Rpc::Unknown,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_it_is_and_what_it_can() {
    require!();
    let mut world = World::new(&[60]).await;
    let info = world.identity.get_plugin_info(proto::GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.name.as_str(), info.vendor_version.as_str()), ("volumes.orlop.io", "0.0.0-test"));
    let probed = world.identity.probe(proto::ProbeRequest {}).await.unwrap().into_inner();
    assert_eq!(probed.ready, Some(true));
    let can = world.identity.get_plugin_capabilities(proto::GetPluginCapabilitiesRequest {}).await.unwrap();
    assert_eq!(can.into_inner().capabilities.len(), 5);
    let can = world.controller.controller_get_capabilities(proto::ControllerGetCapabilitiesRequest {}).await.unwrap();
    let can: Vec<_> = can.into_inner().capabilities.iter().map(told).collect();
    assert_eq!(can.len(), 10);
    // These are asked in one place for all volumes, and it knows those of one node.
    assert!(!can.contains(&Rpc::ExpandVolume) && !can.contains(&Rpc::ModifyVolume), "{can:?}");
    let can = world.plugin.node_get_capabilities(proto::NodeGetCapabilitiesRequest {}).await.unwrap();
    assert_eq!(can.into_inner().capabilities.len(), 6);
    let here = world.plugin.node_get_info(proto::NodeGetInfoRequest {}).await.unwrap().into_inner();
    let segments = here.accessible_topology.unwrap().segments;
    assert_eq!((here.node_id.as_str(), segments["topology.volumes.orlop.io/node"].as_str()), ("here", "here"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_learns_where_it_is_and_when_it_is_gone() {
    let kubelet = tempfile::tempdir().unwrap();
    let endpoint: csi::Endpoint = format!("unix://{}/csi.sock", kubelet.path().display()).parse().unwrap();
    let socket = kubelet.path().join("plugins_registry/volumes.orlop.io-reg.sock");
    // One that a dead process has left is no obstacle.
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stop = CancellationToken::new();
    let registering = {
        let (folder, stop) = (kubelet.path().to_owned(), stop.clone());
        tokio::spawn(async move { csi::register(&folder, &endpoint, stop).await })
    };
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        tokio::task::yield_now().await;
    }
    let mut client = RegistrationClient::new(connect(&socket).await);
    let info = client.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "volumes.orlop.io"));
    assert_eq!(info.endpoint, kubelet.path().join("csi.sock").to_str().unwrap());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let status = RegistrationStatus { plugin_registered: false, error: "no".into() };
    client.notify_registration_status(status).await.unwrap();
    drop(client);
    stop.cancel();
    registering.await.unwrap().unwrap();
    assert!(!socket.exists());
}
