//! Input that is too large, or nonsense: refused, and the driver goes on.

use crate::world::{World, block, map, mounted, refused, request, require};
use csi::proto;
use csi::proto::volume_capability::access_mode::Mode;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_by_its_name() {
    require!();
    let mut world = World::new(&[60]).await;
    let long = "x".repeat(4000);
    refused(world.controller.create_volume(request(&long, 1)).await, Code::InvalidArgument, "128 are the most");
    let mut asked = request("a", 1);
    asked.parameters = map(&[("fs", &long), ("iops", &long)]);
    refused(world.controller.create_volume(asked).await, Code::InvalidArgument, "parameters has");
    let mut asked = request("a", 1);
    asked.secrets = map(&[("hush", &"s3cret".repeat(1000))]);
    let refusal = world.controller.create_volume(asked).await;
    assert!(!refusal.as_ref().unwrap_err().message().contains("s3cret"), "no secret is told");
    refused(refusal, Code::InvalidArgument, "secrets has");
    refused(world.delete(&long).await, Code::InvalidArgument, "volume_id");
    let mut asked = request("a", 1);
    asked.name = "n".repeat(3 << 20);
    assert!(world.controller.create_volume(asked).await.is_err());
    for path in ["relative", "/", "/a/../b", &format!("/{}", "p".repeat(5000))] {
        let asked = proto::NodeStageVolumeRequest {
            volume_id: "a".into(),
            staging_target_path: path.to_owned(),
            volume_capability: Some(block(Mode::SingleNodeWriter)),
            ..Default::default()
        };
        refused(world.plugin.node_stage_volume(asked).await, Code::InvalidArgument, "staging_target_path");
    }
    let mut odd = mounted("", Mode::SingleNodeWriter);
    odd.access_type = None;
    let mut asked = request("a", 1);
    asked.volume_capabilities = vec![odd];
    refused(world.controller.create_volume(asked).await, Code::InvalidArgument, "block device or to be mounted");
    world.create("a", 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_socket_costs_its_connection_alone() {
    require!();
    let mut world = World::new(&[60]).await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 3000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff"] {
        let mut socket = UnixStream::connect(world.path("csi.sock")).unwrap();
        let written = socket.write_all(noise);
        socket.shutdown(std::net::Shutdown::Write).ok();
        let ended = tokio::task::spawn_blocking(move || socket.read_to_end(&mut Vec::new())).await.unwrap();
        drop((written, ended));
    }
    world.create("a", 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mounted_beside_the_kubelets_folder() {
    require!();
    let mut world = World::with_kubelet(&[60], Some("kubelet")).await;
    let id = world.create("a", 1).await.volume_id;
    let pod = world.path("kubelet/pods/1");
    std::fs::create_dir_all(&pod).unwrap();
    std::os::unix::fs::symlink(world.path(""), format!("{pod}/link")).unwrap();
    let stage = |at: String| proto::NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: at,
        volume_capability: Some(mounted("", Mode::SingleNodeWriter)),
        ..Default::default()
    };
    let staging = world.path("kubelet/staging");
    for beside in ["elsewhere", "kubelet", "kubelet/pods/1/link/elsewhere"] {
        let asked = stage(world.path(beside));
        refused(
            world.plugin.node_stage_volume(asked).await,
            Code::InvalidArgument,
            "is not below the kubelet's folder",
        );
    }
    world.plugin.node_stage_volume(stage(staging.clone())).await.unwrap();
    let publish = |at: String| proto::NodePublishVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: staging.clone(),
        target_path: at,
        volume_capability: Some(mounted("", Mode::SingleNodeWriter)),
        ..Default::default()
    };
    let elsewhere = world.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for beside in [elsewhere.clone(), format!("{pod}/link/elsewhere")] {
        let asked = publish(beside.clone());
        refused(world.plugin.node_publish_volume(asked).await, Code::InvalidArgument, "target_path");
        // What is there is not removed either.
        let asked = proto::NodeUnpublishVolumeRequest { volume_id: id.clone(), target_path: beside };
        refused(world.plugin.node_unpublish_volume(asked).await, Code::InvalidArgument, "target_path");
    }
    assert!(std::path::Path::new(&elsewhere).is_dir());
    let target = format!("{pod}/mount");
    world.plugin.node_publish_volume(publish(target.clone())).await.unwrap();
    let asked = proto::NodeUnpublishVolumeRequest { volume_id: id.clone(), target_path: target };
    world.plugin.node_unpublish_volume(asked).await.unwrap();
    let asked = proto::NodeUnstageVolumeRequest { volume_id: id.clone(), staging_target_path: staging.clone() };
    world.plugin.node_unstage_volume(asked).await.unwrap();
    world.end().await;
}
