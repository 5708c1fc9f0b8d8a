//! Volumes: made, compared, grown, limited, listed, deleted.

use crate::world::{MIB, World, block, from_snapshot, from_volume, map, mounted, refused, request, require};
use csi::Volumes;
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, CapacityRange};
use std::collections::HashMap;
use tonic::Code;

fn range(required: i64, limit: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes: required, limit_bytes: limit })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_once_and_another_of_its_name_is_refused() {
    require!();
    let mut world = World::new(&[400]).await;
    let mut asked = request("pvc-1", 64);
    asked.parameters = map(&[("fs", "ext4"), ("iops", "500"), ("csi.storage.k8s.io/pvc/name", "data")]);
    asked.mutable_parameters = map(&[("bandwidth", "8Mi")]);
    let made = world.controller.create_volume(asked.clone()).await.unwrap().into_inner().volume.unwrap();
    assert_eq!((made.capacity_bytes, made.volume_id.as_str()), (64 * MIB, "pvc-1"));
    assert_eq!(made.accessible_topology[0].segments["topology.volumes.orlop.io/node"], "here");
    let again = world.controller.create_volume(asked.clone()).await.unwrap().into_inner().volume.unwrap();
    assert_eq!(again, made);

    // A range that it is in is the same.
    let mut within = asked.clone();
    within.capacity_range = range(10 * MIB, 64 * MIB);
    assert_eq!(world.controller.create_volume(within).await.unwrap().into_inner().volume.unwrap(), made);
    let others: [fn(&mut proto::CreateVolumeRequest); 6] = [
        |asked| asked.capacity_range = range(65 * MIB, 0),
        |asked| asked.capacity_range = range(MIB, 63 * MIB),
        |asked| asked.parameters = map(&[("fs", "xfs"), ("iops", "500")]),
        |asked| asked.parameters = map(&[("fs", "ext4")]),
        |asked| asked.mutable_parameters = map(&[("bandwidth", "9Mi")]),
        |asked| asked.volume_content_source = from_volume("pvc-1"),
    ];
    for other in others {
        let mut asked = asked.clone();
        other(&mut asked);
        refused(world.controller.create_volume(asked).await, Code::AlreadyExists, "there is a volume pvc-1");
    }
    // One that is there by other means is another, too.
    let volumes = world.volumes();
    let new = csi::NewVolume {
        id: "by-hand".into(),
        bytes: 64 << 20,
        replicas: 1,
        placement: None,
        limits: csi::Limits::default(),
        labels: csi::Labels::new(),
    };
    tokio::task::spawn_blocking(move || volumes.create(new, None).unwrap()).await.unwrap();
    refused(world.controller.create_volume(request("by-hand", 64)).await, Code::AlreadyExists, "another");
    world.end().await;
}

/// What a request is refused with, what that says, and how the request comes to be so.
type Case = (Code, &'static str, fn(&mut proto::CreateVolumeRequest));

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_is_refused_by_its_reason() {
    require!();
    let mut world = World::new(&[400]).await;
    let check: [Case; 14] = [
        (Code::InvalidArgument, "name", |asked| asked.name.clear()),
        (Code::InvalidArgument, "volume_capabilities", |asked| asked.volume_capabilities.clear()),
        (Code::InvalidArgument, "one node", |asked| {
            asked.volume_capabilities = vec![mounted("", Mode::MultiNodeMultiWriter)];
        }),
        (Code::InvalidArgument, "ext4 or xfs", |asked| {
            asked.volume_capabilities = vec![mounted("btrfs", Mode::SingleNodeWriter)];
        }),
        (Code::InvalidArgument, "name one", |asked| {
            asked.volume_capabilities =
                vec![mounted("ext4", Mode::SingleNodeWriter), mounted("xfs", Mode::SingleNodeWriter)];
        }),
        (Code::InvalidArgument, "--cluster", |asked| asked.parameters = map(&[("repl", "3")])),
        (Code::InvalidArgument, "node-stage-secret-name", |asked| asked.parameters = map(&[("secure", "true")])),
        (Code::OutOfRange, "at most", |asked| asked.capacity_range = range(4097, 5000)),
        (Code::OutOfRange, "for xfs", |asked| {
            asked.parameters = map(&[("fs", "xfs")]);
            asked.capacity_range = range(10 * MIB, 20 * MIB);
        }),
        (Code::ResourceExhausted, "make a pool larger", |asked| asked.capacity_range = range(1 << 40, 0)),
        (Code::ResourceExhausted, "the node here alone", |asked| {
            let there = proto::Topology { segments: map(&[("topology.volumes.orlop.io/node", "there")]) };
            asked.accessibility_requirements =
                Some(proto::TopologyRequirement { requisite: vec![there], preferred: vec![] });
        }),
        (Code::NotFound, "no volume gone", |asked| asked.volume_content_source = from_volume("gone")),
        (Code::NotFound, "no snapshot gone@s", |asked| asked.volume_content_source = from_snapshot("gone@s")),
        (Code::InvalidArgument, "must name", |asked| {
            asked.volume_content_source = Some(proto::VolumeContentSource::default());
        }),
    ];
    for (code, said, change) in check {
        let mut asked = request("never", 8);
        change(&mut asked);
        refused(world.controller.create_volume(asked).await, code, said);
    }
    let listed = world.controller.list_volumes(proto::ListVolumesRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().entries.len(), 0, "nothing was made");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_have_ids_and_names_that_look_alike_do_not_meet() {
    require!();
    let mut world = World::new(&[100]).await;
    let mut ids = std::collections::BTreeSet::new();
    for name in ["plain", &"x".repeat(128), "Ärger im Büro", "a/../b", "a@b"] {
        let made = world.create(name, 1).await;
        assert_eq!(world.create(name, 1).await, made);
        ids.insert(made.volume_id);
    }
    assert!(ids.len() == 5 && ids.contains("plain"), "{ids:?}");
    for id in ids {
        world.delete(&id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_listed_in_pages_and_told_of_one_by_one() {
    require!();
    let mut world = World::new(&[100]).await;
    for name in ["a", "b", "c"] {
        world.create(name, 1).await;
    }
    let list = |most, token: &str| proto::ListVolumesRequest { max_entries: most, starting_token: token.to_owned() };
    let first = world.controller.list_volumes(list(2, "")).await.unwrap().into_inner();
    let ids = |told: &proto::ListVolumesResponse| -> Vec<String> {
        told.entries.iter().map(|entry| entry.volume.clone().unwrap().volume_id).collect()
    };
    assert_eq!(ids(&first), ["a", "b"]);
    world.delete("b").await.unwrap();
    let rest = world.controller.list_volumes(list(2, &first.next_token)).await.unwrap().into_inner();
    assert_eq!((ids(&rest), rest.next_token.as_str()), (vec!["c".to_owned()], ""));
    refused(world.controller.list_volumes(list(0, "after.6")).await, Code::Aborted, "from the beginning");
    refused(world.controller.list_volumes(list(-1, "")).await, Code::InvalidArgument, "negative");

    let get = |id: &str| proto::ControllerGetVolumeRequest { volume_id: id.to_owned() };
    let told = world.controller.controller_get_volume(get("a")).await.unwrap().into_inner();
    assert!(!told.status.unwrap().volume_condition.unwrap().abnormal);
    refused(world.controller.controller_get_volume(get("b")).await, Code::NotFound, "no volume b");
    refused(world.controller.controller_get_volume(get("")).await, Code::InvalidArgument, "volume_id");

    let capacity = world.controller.get_capacity(proto::GetCapacityRequest::default()).await.unwrap().into_inner();
    assert!(capacity.available_capacity > 50 * MIB && capacity.maximum_volume_size.unwrap() < 100 * MIB);
    let elsewhere = proto::Topology { segments: map(&[("zone", "z")]) };
    let elsewhere = proto::GetCapacityRequest { accessible_topology: Some(elsewhere), ..Default::default() };
    assert_eq!(world.controller.get_capacity(elsewhere).await.unwrap().into_inner().available_capacity, 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_and_is_limited_and_nothing_else() {
    require!();
    let mut world = World::new(&[100]).await;
    world.create("a", 8).await;
    let expand = |id: &str, required, limit| proto::ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: range(required, limit),
        ..Default::default()
    };
    let grown = world.controller.controller_expand_volume(expand("a", 16 * MIB, 0)).await.unwrap().into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (16 * MIB, true));
    let again = world.controller.controller_expand_volume(expand("a", 9 * MIB, 0)).await.unwrap().into_inner();
    assert_eq!(again, grown);
    let mut raw = expand("a", 16 * MIB, 0);
    raw.volume_capability = Some(block(Mode::SingleNodeWriter));
    assert!(!world.controller.controller_expand_volume(raw).await.unwrap().into_inner().node_expansion_required);
    let mut wide = expand("a", 20 * MIB, 0);
    wide.volume_capability = Some(block(Mode::MultiNodeMultiWriter));
    for (asked, code, said) in [
        (wide, Code::InvalidArgument, "one node"),
        (expand("a", MIB, 15 * MIB), Code::OutOfRange, "already"),
        (expand("a", i64::MAX, 0), Code::OutOfRange, "the most"),
        (expand("a", 200 * MIB, 0), Code::OutOfRange, "make a pool larger"),
        (expand("a", 0, 0), Code::InvalidArgument, "capacity_range"),
        (expand("gone", MIB, 0), Code::NotFound, "no volume gone"),
        (expand("", MIB, 0), Code::InvalidArgument, "volume_id"),
    ] {
        refused(world.controller.controller_expand_volume(asked).await, code, said);
    }

    let modify = |id: &str, pairs: &[(&str, &str)]| proto::ControllerModifyVolumeRequest {
        volume_id: id.to_owned(),
        secrets: HashMap::new(),
        mutable_parameters: map(pairs),
    };
    let limits = async |world: &World| {
        let volumes = world.volumes();
        tokio::task::spawn_blocking(move || volumes.find("a").unwrap().unwrap().limits).await.unwrap()
    };
    world.controller.controller_modify_volume(modify("a", &[("iops", "7")])).await.unwrap();
    world.controller.controller_modify_volume(modify("a", &[("bandwidth", "1Mi")])).await.unwrap();
    let both = csi::Limits { iops: Some(7), bytes_per_second: Some(1 << 20) };
    assert_eq!(limits(&world).await, both);
    let half = modify("a", &[("iops", "9"), ("fs", "xfs")]);
    refused(world.controller.controller_modify_volume(half).await, Code::InvalidArgument, "fs");
    assert_eq!(limits(&world).await, both, "nothing of it was done");
    refused(world.controller.controller_modify_volume(modify("gone", &[])).await, Code::NotFound, "gone");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_validated_by_what_it_is() {
    require!();
    let mut world = World::new(&[100]).await;
    let mut asked = request("a", 8);
    asked.parameters = map(&[("fs", "ext4")]);
    world.controller.create_volume(asked).await.unwrap();
    let ask = |id: &str, fs: &str, mode| proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_capabilities: vec![mounted(fs, mode)],
        ..Default::default()
    };
    let good = ask("a", "ext4", Mode::SingleNodeSingleWriter);
    let told = world.controller.validate_volume_capabilities(good.clone()).await.unwrap().into_inner();
    assert_eq!(told.confirmed.unwrap().volume_capabilities, good.volume_capabilities);
    let mut limited = good.clone();
    limited.mutable_parameters = map(&[("iops", "5")]);
    for (asked, said) in [
        (ask("a", "xfs", Mode::SingleNodeWriter), "made for ext4"),
        (ask("a", "", Mode::MultiNodeReaderOnly), "one node"),
        (limited, "limits"),
    ] {
        let told = world.controller.validate_volume_capabilities(asked).await.unwrap().into_inner();
        assert!(told.confirmed.is_none() && told.message.contains(said), "{}", told.message);
    }
    let gone = ask("gone", "", Mode::SingleNodeWriter);
    refused(world.controller.validate_volume_capabilities(gone).await, Code::NotFound, "gone");
    let mut nothing = good;
    nothing.volume_capabilities.clear();
    refused(world.controller.validate_volume_capabilities(nothing).await, Code::InvalidArgument, "missing");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_deleted_and_what_is_used_is_not() {
    require!("mkfs.ext4");
    let mut world = World::new(&[100]).await;
    world.delete("never-there").await.unwrap();
    world.delete("never@there").await.unwrap();
    refused(world.delete("").await, Code::InvalidArgument, "volume_id");
    world.create("a", 16).await;
    world.stage("a", mounted("", Mode::SingleNodeWriter)).await.unwrap();
    refused(world.delete("a").await, Code::FailedPrecondition, "attached");
    world.unstage("a").await.unwrap();
    world.delete("a").await.unwrap();
    world.delete("a").await.unwrap();
    let publish = proto::ControllerPublishVolumeRequest::default();
    refused(world.controller.controller_publish_volume(publish).await, Code::Unimplemented, "attachRequired");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_volumes_go_where_the_most_room_is() {
    require!();
    let mut world = World::new(&[100, 200]).await;
    let made = world.create("large", 150).await;
    assert_eq!(world.create("large", 150).await, made);
    world.create("small", 50).await;
    world.delete("large").await.unwrap();
    world.end().await;
}
