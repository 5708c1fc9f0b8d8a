//! Group snapshots: one instant, all or none.

use crate::world::{World, block, refused, request, require};
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, CreateVolumeGroupSnapshotRequest};
use csi::{OnNode, Volumes};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tonic::Code;

fn asked(name: &str, of: &[&str]) -> CreateVolumeGroupSnapshotRequest {
    CreateVolumeGroupSnapshotRequest {
        name: name.to_owned(),
        source_volume_ids: of.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    }
}

fn delete(id: &str, members: &[String]) -> proto::DeleteVolumeGroupSnapshotRequest {
    proto::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: id.to_owned(),
        snapshot_ids: members.to_vec(),
        ..Default::default()
    }
}

fn get(id: &str, members: &[String]) -> proto::GetVolumeGroupSnapshotRequest {
    proto::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: id.to_owned(),
        snapshot_ids: members.to_vec(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_taken_once_and_deleted_whole() {
    require!();
    let mut world = World::new(&[100]).await;
    for name in ["a", "b", "c"] {
        world.create(name, 8).await;
    }
    let create = async |world: &mut World, asked| world.groups.create_volume_group_snapshot(asked).await;
    let taken = create(&mut world, asked("g", &["b", "a"])).await.unwrap().into_inner().group_snapshot.unwrap();
    let members: Vec<String> = taken.snapshots.iter().map(|member| member.snapshot_id.clone()).collect();
    assert!(taken.ready_to_use && taken.group_snapshot_id == "g" && members.len() == 2);
    assert!(taken.snapshots.iter().all(|member| member.group_snapshot_id == "g" && member.ready_to_use));
    let again = create(&mut world, asked("g", &["a", "b"])).await.unwrap().into_inner().group_snapshot.unwrap();
    assert_eq!(again, taken);
    for (asked, code, said) in [
        (asked("g", &["a"]), Code::AlreadyExists, "of the volumes"),
        (asked("h", &["a", "gone"]), Code::NotFound, "no volume gone"),
        (asked("h", &["a", "a"]), Code::InvalidArgument, "twice"),
        (asked("h", &[]), Code::InvalidArgument, "source_volume_ids"),
        (asked("", &["a"]), Code::InvalidArgument, "name"),
    ] {
        refused(create(&mut world, asked).await, code, said);
    }

    let got = world.groups.get_volume_group_snapshot(get("g", &members)).await.unwrap().into_inner();
    assert_eq!(got.group_snapshot, Some(taken));
    world.snapshot("c", "alone").await.unwrap();
    let with = |more: &str| [&members[..], &[more.to_owned()]].concat();
    for (asked, said) in [(get("g", &members[..1]), "lack"), (get("g", &with("c@alone")), "does not belong")] {
        refused(world.groups.get_volume_group_snapshot(asked).await, Code::InvalidArgument, said);
    }
    refused(world.groups.get_volume_group_snapshot(get("h", &[])).await, Code::NotFound, "no group snapshot h");
    let one = proto::DeleteSnapshotRequest { snapshot_id: members[0].clone(), ..Default::default() };
    refused(world.controller.delete_snapshot(one).await, Code::InvalidArgument, "group snapshot g");
    let short = delete("g", &members[..1]);
    refused(world.groups.delete_volume_group_snapshot(short).await, Code::InvalidArgument, "lack");

    // As if a deletion had been interrupted after the first.
    let volumes = world.volumes();
    let first = members[0].clone();
    tokio::task::spawn_blocking(move || volumes.delete_snapshot(&first).unwrap()).await.unwrap();
    for id in ["g", "g", "never-there"] {
        world.groups.delete_volume_group_snapshot(delete(id, &members)).await.unwrap();
    }
    refused(world.groups.delete_volume_group_snapshot(delete("", &[])).await, Code::InvalidArgument, "missing");
    let left = world.controller.list_snapshots(proto::ListSnapshotsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left.entries.len(), 1);
    world.end().await;
}

/// The block device of a volume that is attached.
async fn device(world: &World, id: &str) -> std::path::PathBuf {
    let (volumes, id) = (world.volumes(), id.to_owned());
    tokio::task::spawn_blocking(move || volumes.find(&id).unwrap().unwrap().device.unwrap()).await.unwrap()
}

/// Writes a growing number to one device after the other, each time when the one before has it for good.
fn count(devices: &[File], stop: &AtomicBool, reached: &AtomicU64) {
    let mut page = Page([0; 4096]);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        page.0[..8].copy_from_slice(&number.to_le_bytes());
        devices.iter().for_each(|device| device.write_all_at(&page.0, 0).unwrap());
        reached.store(number, Ordering::Relaxed);
    }
}

/// What the device has, and not what the kernel remembers.
fn direct() -> i32 {
    i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap()
}

#[repr(align(4096))]
struct Page([u8; 4096]);

fn number(path: &std::path::Path) -> u64 {
    let mut page = Page([0; 4096]);
    let device = OpenOptions::new().read(true).custom_flags(direct()).open(path).unwrap();
    device.read_exact_at(&mut page.0, 0).unwrap();
    u64::from_le_bytes(page.0[..8].try_into().unwrap())
}

/// A number goes through three volumes in turn, each write beginning when the one before is answered. At any instant they have n, n, n or n+1, n, n or n+1, n+1, n; what a
/// group snapshot shows must be one of these, however fast the numbers run.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_under_load_is_of_one_instant() {
    require!();
    one_instant(World::new(&[400]).await).await;
}

/// The same, where each volume lies in a pool of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_several_pools_under_load_is_of_one_instant() {
    require!();
    // Each volume goes where the most room is, which is then taken.
    let mut world = World::new(&[220, 180, 140]).await;
    for name in ["a", "b", "c"] {
        world.create(name, 8).await;
        let filler = world.create(&format!("filler-{name}"), 104).await.volume_id;
        world.stage(&filler, block(Mode::SingleNodeWriter)).await.unwrap();
        let path = device(&world, &filler).await;
        let fill = move || {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            (0..100).for_each(|at| file.write_all_at(&[7; 1 << 20], at << 20).unwrap());
            file.sync_all().unwrap();
        };
        tokio::task::spawn_blocking(fill).await.unwrap();
        world.unstage(&filler).await.unwrap();
    }
    let pools: std::collections::BTreeSet<_> = pools(&world).await.into_iter().collect();
    assert_eq!(pools.len(), 3, "{pools:?}");
    one_instant(world).await;
}

/// The pools that volumes lie in.
async fn pools(world: &World) -> Vec<String> {
    use node::proto::node_server::Node as Control;
    let service = node::Service::new(world.node.clone().unwrap());
    let listed = service.list_volumes(tonic::Request::new(node::proto::ListVolumesRequest {})).await.unwrap();
    listed.into_inner().volumes.into_iter().map(|volume| volume.pool).collect()
}

async fn one_instant(mut world: World) {
    let names = ["a", "b", "c"];
    let mut devices = Vec::new();
    for name in names {
        let mut asked = request(name, 8);
        asked.volume_capabilities = vec![block(Mode::SingleNodeWriter)];
        world.controller.create_volume(asked).await.unwrap();
        world.stage(name, block(Mode::SingleNodeWriter)).await.unwrap();
        let path = device(&world, name).await;
        devices.push(OpenOptions::new().write(true).custom_flags(direct()).open(path).unwrap());
    }
    let (stop, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (stop, reached) = (stop.clone(), reached.clone());
        std::thread::spawn(move || count(&devices, &stop, &reached))
    };
    let mut seen = Vec::new();
    for round in 0..12 {
        let before = reached.load(Ordering::Relaxed);
        while reached.load(Ordering::Relaxed) < before + 20 {
            assert!(!writer.is_finished());
            std::thread::yield_now();
        }
        let group = asked(&format!("g{round}"), &names);
        let taken = world.groups.create_volume_group_snapshot(group).await.unwrap().into_inner();
        let members = taken.group_snapshot.unwrap().snapshots;
        seen.push(members.into_iter().map(|member| member.snapshot_id).collect::<Vec<_>>());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let volumes: Arc<OnNode> = world.volumes();
    let spread = tokio::task::spawn_blocking(move || {
        let mut numbers = Vec::new();
        for members in seen {
            let read = |id: &String| {
                let path = volumes.attach(id, None).unwrap();
                let number = number(&path);
                volumes.detach(id).unwrap();
                number
            };
            numbers.push(members.iter().map(read).collect::<Vec<_>>());
        }
        numbers
    })
    .await
    .unwrap();
    for numbers in &spread {
        let falls = numbers.windows(2).all(|pair| pair[0] >= pair[1]);
        assert!(falls && numbers[0] - numbers[2] <= 1 && numbers[2] > 0, "{numbers:?} were never so at one instant");
    }
    assert!(spread.windows(2).all(|pair| pair[0][0] < pair[1][0]), "the numbers ran on: {spread:?}");
    for name in names {
        world.unstage(name).await.unwrap();
    }
    world.end().await;
}
