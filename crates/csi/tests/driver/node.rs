//! Volumes on their node: mounted, shown, full, grown, and taken away again.

use crate::world::{MIB, World, block, capability, good, map, mounted, mounts_below, refused, request, require, write};
use csi::proto::volume_capability::{AccessType, MountVolume, access_mode::Mode};
use csi::proto::{self, VolumeCapability};
use csi::{FileSystem, Host, Linux, Volumes};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use tonic::Code;

fn stats(world: &World, id: &str, at: &str) -> proto::NodeGetVolumeStatsRequest {
    proto::NodeGetVolumeStatsRequest {
        volume_id: id.to_owned(),
        volume_path: world.path(at),
        staging_target_path: world.staging(id),
    }
}

fn expand(world: &World, id: &str, at: &str, bytes: i64) -> proto::NodeExpandVolumeRequest {
    proto::NodeExpandVolumeRequest {
        volume_id: id.to_owned(),
        volume_path: world.path(at),
        capacity_range: Some(proto::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        ..Default::default()
    }
}

async fn create(world: &mut World, id: &str, mib: i64, usage: &VolumeCapability) {
    let mut asked = request(id, mib);
    asked.volume_capabilities = vec![usage.clone()];
    world.controller.create_volume(asked).await.unwrap();
}

/// The block device of a volume, which is attached.
async fn device(world: &World, id: &str) -> String {
    let (volumes, id) = (world.volumes(), id.to_owned());
    let device = tokio::task::spawn_blocking(move || volumes.find(&id).unwrap().unwrap().device.unwrap());
    device.await.unwrap().to_str().unwrap().to_owned()
}

/// Attaches a volume past the driver, to look at it or to write to it.
async fn by_hand(world: &World, id: &str, look: impl FnOnce(&str) + Send + 'static) {
    let (volumes, id) = (world.volumes(), id.to_owned());
    let looked = move || {
        look(volumes.attach(&id, None).unwrap().to_str().unwrap());
        volumes.detach(&id).unwrap();
    };
    tokio::task::spawn_blocking(looked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_is_made_mounted_shown_grown_and_taken_away() {
    require!("mkfs.ext4", "mkfs.xfs", "resize2fs", "xfs_growfs", "fsck.ext4", "xfs_repair");
    for (fs, mib, check) in [("ext4", 32, &["fsck.ext4", "-fn"][..]), ("xfs", 320, &["xfs_repair", "-n"])] {
        let mut world = World::new(&[1200]).await;
        let usage = mounted(fs, Mode::SingleNodeMultiWriter);
        create(&mut world, "v", mib, &usage).await;
        for _ in 0..2 {
            world.stage("v", usage.clone()).await.unwrap();
        }
        write(&world.staging("v"), "f", b"kept");
        for _ in 0..2 {
            world.publish("v", "pods/one/mount", usage.clone(), false).await.unwrap();
            world.publish("v", "pods/two/mount", usage.clone(), true).await.unwrap();
        }
        assert_eq!(mounts_below(world.runtime.path()).len(), 3, "each is mounted once");
        write(&world.path("pods/one/mount"), "g", b"written");
        let two = world.path("pods/two/mount");
        assert_eq!(fs::read(format!("{two}/g")).unwrap(), b"written");
        assert!(fs::write(format!("{two}/h"), b"x").is_err(), "it is read-only there");

        let told = world.plugin.node_get_volume_stats(stats(&world, "v", "pods/one/mount")).await.unwrap().into_inner();
        assert!(!told.volume_condition.unwrap().abnormal);
        let (bytes, inodes) = (&told.usage[0], &told.usage[1]);
        assert!(
            (bytes.unit, inodes.unit) == (1, 2) && bytes.total > mib / 2 * MIB && inodes.used > 0,
            "{told:?}",
            told = told.usage
        );

        // Nobody has asked its controller to make it larger.
        for at in ["pods/one/mount", "staging-v"] {
            let asked = expand(&world, "v", at, 2 * mib * MIB);
            let grown = world.plugin.node_expand_volume(asked).await;
            if fs == "ext4" && !Linux.grows_mounted(FileSystem::Ext4) {
                refused(grown, Code::FailedPrecondition, "CAP_SYS_RESOURCE");
                for target in ["pods/one/mount", "pods/two/mount"] {
                    world.unpublish("v", target).await.unwrap();
                }
                world.unstage("v").await.unwrap();
                world.stage("v", usage.clone()).await.unwrap();
                world.publish("v", "pods/one/mount", usage.clone(), false).await.unwrap();
            } else {
                assert_eq!(grown.unwrap().into_inner().capacity_bytes, 2 * mib * MIB);
            }
            if fs == "ext4" {
                break;
            }
        }
        let told = world.plugin.node_get_volume_stats(stats(&world, "v", "pods/one/mount")).await.unwrap().into_inner();
        assert!(told.usage[0].total > mib * 3 / 2 * MIB, "the file system has grown: {:?}", told.usage);

        refused(world.unstage("v").await, Code::FailedPrecondition, "pods/one/mount");
        for target in ["pods/one/mount", "pods/two/mount", "pods/one/mount"] {
            world.unpublish("v", target).await.unwrap();
            assert!(!Path::new(&world.path(target)).exists(), "{target} is removed");
        }
        for _ in 0..2 {
            world.unstage("v").await.unwrap();
        }
        by_hand(&world, "v", move |device| drop(good(check[0], &[check[1], device]))).await;
        // What was written is there the next time.
        world.stage("v", usage.clone()).await.unwrap();
        assert_eq!(fs::read(format!("{}/f", world.staging("v"))).unwrap(), b"kept");
        world.unstage("v").await.unwrap();
        world.delete("v").await.unwrap();
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_shown_and_taken_away() {
    require!("blockdev");
    let mut world = World::new(&[100]).await;
    let usage = block(Mode::SingleNodeMultiWriter);
    create(&mut world, "v", 8, &usage).await;
    for _ in 0..2 {
        world.stage("v", usage.clone()).await.unwrap();
        world.publish("v", "dev/one", usage.clone(), false).await.unwrap();
        world.publish("v", "dev/two", usage.clone(), false).await.unwrap();
    }
    let target = world.path("dev/one");
    assert!(fs::metadata(&target).unwrap().file_type().is_block_device());
    OpenOptions::new().write(true).open(&target).unwrap().write_all_at(b"raw", 4096).unwrap();
    let told = world.plugin.node_get_volume_stats(stats(&world, "v", "dev/one")).await.unwrap().into_inner();
    assert_eq!((told.usage.len(), told.usage[0].total), (1, 8 * MIB));
    world.plugin.node_get_volume_stats(stats(&world, "v", "staging-v")).await.unwrap();
    refused(
        world.publish("v", "dev/three", usage.clone(), true).await,
        Code::FailedPrecondition,
        "everywhere or nowhere",
    );

    let more = proto::ControllerExpandVolumeRequest {
        volume_id: "v".into(),
        capacity_range: Some(proto::CapacityRange { required_bytes: 16 * MIB, limit_bytes: 0 }),
        ..Default::default()
    };
    world.controller.controller_expand_volume(more).await.unwrap();
    let asked = expand(&world, "v", "dev/one", 16 * MIB);
    world.plugin.node_expand_volume(asked).await.unwrap();
    assert_eq!(good("blockdev", &["--getsize64", &target]).trim(), (16 * MIB).to_string());

    refused(world.unstage("v").await, Code::FailedPrecondition, "dev/one");
    for target in ["dev/one", "dev/two", "dev/two"] {
        world.unpublish("v", target).await.unwrap();
    }
    assert!(!Path::new(&target).exists());
    // Read-only it is for whoever opens it.
    world.publish("v", "dev/one", usage.clone(), true).await.unwrap();
    let written = |bytes: &[u8]| {
        let device = OpenOptions::new().write(true).open(&target)?;
        device.write_all_at(bytes, 4096).and_then(|()| device.sync_all())
    };
    assert!(written(b"new").is_err());
    refused(world.publish("v", "dev/one", usage.clone(), false).await, Code::AlreadyExists, "in another way");
    world.unpublish("v", "dev/one").await.unwrap();
    world.publish("v", "dev/one", usage, false).await.unwrap();
    written(b"new").unwrap();
    world.unpublish("v", "dev/one").await.unwrap();
    world.unstage("v").await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_in_another_way_is_refused_as_the_tables_say() {
    require!("mkfs.ext4");
    let mut world = World::new(&[100]).await;
    let usage = mounted("ext4", Mode::SingleNodeSingleWriter);
    create(&mut world, "v", 16, &usage).await;
    refused(world.stage("gone", usage.clone()).await, Code::NotFound, "no volume gone");
    refused(world.stage("", usage.clone()).await, Code::InvalidArgument, "volume_id");
    refused(world.publish("v", "t", usage.clone(), false).await, Code::FailedPrecondition, "stage it there first");
    for mode in [Mode::MultiNodeReaderOnly, Mode::MultiNodeSingleWriter, Mode::MultiNodeMultiWriter] {
        // More than the volume can, to who stages or publishes it; a wrong argument to who has it grow.
        refused(world.stage("v", mounted("", mode)).await, Code::FailedPrecondition, "one node");
        refused(world.publish("v", "t", block(mode), false).await, Code::FailedPrecondition, "one node");
        let mut grows = expand(&world, "v", "t", 32 * MIB);
        grows.volume_capability = Some(mounted("", mode));
        refused(world.plugin.node_expand_volume(grows).await, Code::InvalidArgument, "one node");
    }
    for (field, change) in [
        ("staging_target_path", (|asked| asked.staging_target_path.clear()) as fn(&mut proto::NodeStageVolumeRequest)),
        ("volume_capability", |asked| asked.volume_capability = None),
        ("pod", |asked| asked.volume_context = map(&[("csi.storage.k8s.io/ephemeral", "true")])),
    ] {
        let mut asked = proto::NodeStageVolumeRequest {
            volume_id: "v".into(),
            staging_target_path: world.staging("v"),
            volume_capability: Some(usage.clone()),
            ..Default::default()
        };
        change(&mut asked);
        refused(world.plugin.node_stage_volume(asked).await, Code::InvalidArgument, field);
    }

    world.stage("v", usage.clone()).await.unwrap();
    refused(
        world.stage("v", mounted("ext4", Mode::SingleNodeMultiWriter)).await,
        Code::AlreadyExists,
        "in another way",
    );
    refused(world.stage("v", block(Mode::SingleNodeSingleWriter)).await, Code::AlreadyExists, "in another way");
    let elsewhere = proto::NodeStageVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: world.path("elsewhere"),
        volume_capability: Some(usage.clone()),
        ..Default::default()
    };
    refused(world.plugin.node_stage_volume(elsewhere).await, Code::FailedPrecondition, "staged on");

    world.publish("v", "t", usage.clone(), false).await.unwrap();
    refused(world.publish("v", "t", usage.clone(), true).await, Code::AlreadyExists, "in another way");
    refused(world.publish("v", "u", usage.clone(), false).await, Code::FailedPrecondition, "one place");
    refused(
        world.publish("v", "u", block(Mode::SingleNodeWriter), false).await,
        Code::FailedPrecondition,
        "another use",
    );
    let mut asked = world.publish_request("v", "t", usage.clone(), false);
    asked.staging_target_path.clear();
    refused(world.plugin.node_publish_volume(asked).await, Code::FailedPrecondition, "staging_target_path");
    let mut asked = world.publish_request("v", "t", usage.clone(), false);
    asked.target_path.clear();
    refused(world.plugin.node_publish_volume(asked).await, Code::InvalidArgument, "target_path");
    let mut asked = world.publish_request("v", "t", usage.clone(), false);
    asked.volume_capability = None;
    refused(world.plugin.node_publish_volume(asked).await, Code::InvalidArgument, "volume_capability");
    refused(world.publish("gone", "t", usage.clone(), false).await, Code::NotFound, "no volume gone");

    refuses_elsewhere(&mut world).await;
    world.unpublish("v", "t").await.unwrap();
    world.unstage("v").await.unwrap();
    world.end().await;
}

/// A volume that is published on `t`, asked about where it is not.
async fn refuses_elsewhere(world: &mut World) {
    refused(world.unpublish("gone", "t").await, Code::NotFound, "no volume gone");
    refused(world.unstage("gone").await, Code::NotFound, "no volume gone");
    for (id, at, code) in
        [("gone", "t", Code::NotFound), ("v", "nowhere", Code::NotFound), ("", "t", Code::InvalidArgument)]
    {
        let asked = stats(world, id, at);
        refused(world.plugin.node_get_volume_stats(asked).await, code, "");
        let asked = expand(world, id, at, 0);
        refused(world.plugin.node_expand_volume(asked).await, code, "");
    }
    let asked = expand(world, "v", "t", 200 * MIB);
    refused(world.plugin.node_expand_volume(asked).await, Code::OutOfRange, "make a pool larger");
    let mut asked = expand(world, "v", "t", MIB);
    asked.capacity_range = Some(proto::CapacityRange { required_bytes: MIB, limit_bytes: 2 * MIB });
    refused(world.plugin.node_expand_volume(asked).await, Code::OutOfRange, "already");
    let mut asked = expand(world, "v", "t", 0);
    asked.volume_capability = Some(block(Mode::SingleNodeWriter));
    refused(world.plugin.node_expand_volume(asked).await, Code::InvalidArgument, "otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_formatted_that_has_data() {
    require!("mkfs.ext4", "mkfs.ext3", "mkswap", "blkid");
    let mut world = World::new(&[900]).await;
    let usage = |fs: &str| mounted(fs, Mode::SingleNodeWriter);
    for id in ["raw", "swap", "ext4", "zeros"] {
        world.create(id, 320).await;
    }
    by_hand(&world, "raw", |device| {
        OpenOptions::new().write(true).open(device).unwrap().write_all_at(b"a database", 64 << 20).unwrap();
    })
    .await;
    by_hand(&world, "swap", |device| drop(good("mkswap", &[device]))).await;
    by_hand(&world, "ext4", |device| drop(good("mkfs.ext4", &["-q", device]))).await;
    by_hand(&world, "zeros", |device| {
        OpenOptions::new().write(true).open(device).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    })
    .await;
    for (id, fs, said) in [
        ("raw", "", "nothing that is known"),
        ("raw", "ext4", "nothing is formatted that has data"),
        ("swap", "xfs", "swap"),
        ("ext4", "xfs", "has the file system ext4"),
        ("zeros", "", "nothing is formatted that has data"),
    ] {
        refused(world.stage(id, usage(fs)).await, Code::FailedPrecondition, said);
    }
    by_hand(&world, "raw", |device| {
        let mut found = [0; 10];
        fs::File::open(device).unwrap().read_exact_at(&mut found, 64 << 20).unwrap();
        assert_eq!(&found, b"a database");
    })
    .await;
    // It can be deleted: what has failed holds nothing.
    for id in ["raw", "swap", "zeros"] {
        world.delete(id).await.unwrap();
    }
    world.stage("ext4", usage("")).await.unwrap();
    world.unstage("ext4").await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_formatting_was_interrupted_is_not_formatted_when_it_was_used_as_a_device_since() {
    require!("mkfs.ext4");
    let mut world = World::new(&[100]).await;
    world.create("v", 16).await;
    // As a process leaves it that ends while it formats.
    let note = csi::Labels::from([("volumes.orlop.io/formatting".to_owned(), "ext4".to_owned())]);
    let volumes = world.volumes();
    tokio::task::spawn_blocking(move || volumes.label("v", &note).unwrap()).await.unwrap();
    world.stage("v", block(Mode::SingleNodeWriter)).await.unwrap();
    let volumes = world.volumes();
    let written = move || {
        let device = volumes.find("v").unwrap().unwrap().device.unwrap();
        OpenOptions::new().write(true).open(device).unwrap().write_all_at(b"a database", 8 << 20).unwrap();
    };
    tokio::task::spawn_blocking(written).await.unwrap();
    world.unstage("v").await.unwrap();
    let staged = world.stage("v", mounted("", Mode::SingleNodeWriter)).await;
    refused(staged, Code::FailedPrecondition, "nothing is formatted that has data");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_mounted_is_left_alone() {
    require!("mkfs.ext4", "mount");
    let mut world = World::new(&[100]).await;
    let usage = mounted("", Mode::SingleNodeWriter);
    create(&mut world, "v", 16, &usage).await;
    let (staging, target) = (world.staging("v"), world.path("t"));
    fs::create_dir_all(&staging).unwrap();
    good("mount", &["-t", "tmpfs", "none", &staging]);
    refused(world.stage("v", usage.clone()).await, Code::FailedPrecondition, "tmpfs");
    good("umount", &[&staging]);
    world.stage("v", usage.clone()).await.unwrap();
    fs::create_dir_all(&target).unwrap();
    good("mount", &["-t", "tmpfs", "none", &target]);
    refused(world.publish("v", "t", usage.clone(), false).await, Code::FailedPrecondition, "tmpfs");
    refused(world.unpublish("v", "t").await, Code::FailedPrecondition, "unmount that first");
    good("umount", &[&target]);
    fs::write(format!("{target}/file"), b"mine").unwrap();
    assert!(world.unpublish("v", "t").await.is_err(), "a folder with something in it is not removed");
    fs::remove_file(format!("{target}/file")).unwrap();
    world.unpublish("v", "t").await.unwrap();
    world.unstage("v").await.unwrap();
    world.end().await;
}

fn with(flags: &[&str], group: &str, mode: Mode) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: String::new(),
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        volume_mount_group: group.to_owned(),
    };
    capability(AccessType::Mount(mount), mode)
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_groups_and_readers_are_as_they_were_asked_for() {
    require!("mkfs.ext4");
    let mut world = World::new(&[100]).await;
    let usage = with(&["noatime", "nosuid", "commit=7"], "4711", Mode::SingleNodeMultiWriter);
    create(&mut world, "v", 16, &usage).await;
    world
        .stage("v", with(&["no-such-option"], "", Mode::SingleNodeWriter))
        .await
        .map_err(|refusal| {
            assert!(
                refusal.code() == Code::InvalidArgument && refusal.message().contains("no-such-option"),
                "{refusal}"
            );
        })
        .unwrap_err();
    world.stage("v", usage.clone()).await.unwrap();
    let staging = world.staging("v");
    let about = fs::metadata(&staging).unwrap();
    assert_eq!((about.gid(), about.mode() & 0o2070), (4711, 0o2070));
    fs::create_dir(format!("{staging}/inner")).unwrap();
    assert_eq!(fs::metadata(format!("{staging}/inner")).unwrap().gid(), 4711, "what is made is the group's, too");
    world.publish("v", "t", usage.clone(), true).await.unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for (at, wanted) in [(staging.as_str(), "rw,nosuid,noatime"), (&world.path("t"), "ro,nosuid,noatime")] {
        let line = table.lines().find(|line| line.contains(&format!(" {at} "))).unwrap();
        assert!(line.contains(&format!(" {wanted} ")) && line.contains("commit=7"), "{line}");
    }
    world.unpublish("v", "t").await.unwrap();
    world.unstage("v").await.unwrap();

    let reader = with(&[], "", Mode::SingleNodeReaderOnly);
    world.stage("v", reader.clone()).await.unwrap();
    world.publish("v", "t", reader, false).await.unwrap();
    assert!(fs::write(format!("{}/x", world.path("t")), b"x").is_err());
    world.unpublish("v", "t").await.unwrap();
    world.unstage("v").await.unwrap();
    world.end().await;
}

/// Calls for one volume at the same time: each is done, or told to come again; and the volume is where it should be.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_meet_are_told_to_come_again() {
    require!("mkfs.ext4");
    let mut world = World::new(&[100]).await;
    let usage = mounted("", Mode::SingleNodeWriter);
    create(&mut world, "v", 16, &usage).await;
    let asked = proto::NodeStageVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: world.staging("v"),
        volume_capability: Some(usage.clone()),
        ..Default::default()
    };
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (mut plugin, asked) = (world.plugin.clone(), asked.clone());
            tokio::spawn(async move { plugin.node_stage_volume(asked).await })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(refusal) => assert_eq!(refusal.code(), Code::Aborted, "{refusal}"),
        }
    }
    assert!(done > 0 && mounts_below(world.runtime.path()).len() == 1);
    assert!(device(&world, "v").await.starts_with("/dev/"));
    world.unstage("v").await.unwrap();
    world.end().await;
}
