//! Volumes as block devices: file systems on them, snapshots and growth under them, and a node that is killed.

use crate::node::world::{Mounted, World, good, require};
use fuse::Keeper;
use serde_json::json;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn bytes_of(device: &str) -> u64 {
    good("blockdev", &["--getsize64", device]).trim().parse().unwrap()
}

#[test]
fn a_volume_is_a_disk_that_grows_and_goes_back_under_its_file_system() {
    require!("mkfs.xfs", "xfs_repair", "xfs_growfs", "blockdev", "fsfreeze");
    let world = World::with_node("900MiB");
    let made = world.volume(&["create", "data", "--size", "320MiB", "-o", "json"]).json();
    assert_eq!(
        (&made["bytes"], &made["encryption"], &made["attached"]),
        (&json!(320 << 20), &json!("none"), &json!(null))
    );
    let device = world.attach(&["data"]);
    assert_eq!(world.attach(&["data"]), device, "asked again, it is the same");
    assert_eq!(world.show("data")["attached"]["place"], json!(device));
    good("mkfs.xfs", &["-q", &device]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    fs::write(mounted.0.join("old"), [7; 100_000]).unwrap();
    // What is read without its log must be where it belongs.
    good("fsfreeze", &["-f", mounted.path()]);
    world.volume(&["snapshot", "data@first"]).good();
    good("fsfreeze", &["-u", mounted.path()]);

    // It grows while it is used.
    world.volume(&["grow", "data", "--size", "600MiB"]).good();
    assert_eq!(bytes_of(&device), 600 << 20);
    good("xfs_growfs", &[mounted.path()]);
    fs::write(mounted.0.join("new"), vec![8; 300 << 20]).unwrap();
    world.volume(&["grow", "data", "--size", "320MiB"]).ended(1).says("smaller");

    // Whoever uses it keeps it.
    world.volume(&["detach", "data"]).ended(1).says("is in use").says("mount");
    world.volume(&["delete", "data"]).ended(1).says("it is attached as").says("detach it first");
    world.volume(&["rollback", "data@first"]).ended(1).says("detach it first");

    // A snapshot is read while the volume is written.
    let before = world.attach(&["data@first"]);
    assert_eq!(world.volume(&["attach", "data@first", "-o", "json"]).json()["readOnly"], json!(true));
    let seen = Mounted::new(&before, world.runtime().join("before"), "ro,norecovery,nouuid");
    assert!(seen.0.join("old").exists() && !seen.0.join("new").exists());
    seen.unmount();
    mounted.unmount();
    good("xfs_repair", &["-n", &device]);
    for name in ["data", "data@first"] {
        world.volume(&["detach", name]).good();
        world.volume(&["detach", name]).good();
    }
    world.volume(&["detach", "never-there"]).good();

    // Back it goes.
    world.volume(&["rollback", "data@first"]).good();
    let device = world.attach(&["data"]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    assert!(mounted.0.join("old").exists() && !mounted.0.join("new").exists());
    mounted.unmount();
    world.volume(&["detach", "data"]).good();
    world.attach(&["data@first"]);
    world.volume(&["delete", "data", "--with-snapshots"]).ended(1).says("delete data@first: it is attached as");
    world.volume(&["detach", "data@first"]).good();
    assert_eq!(world.volume(&["list", "--snapshots", "data", "-o", "json"]).json()[0]["name"], json!("data@first"));
    world.volume(&["delete", "data", "--with-snapshots"]).good();
    world.volume(&["delete", "data"]).good();
    assert_eq!(world.volume(&["list", "-o", "json"]).json(), json!([]));
    assert_eq!(world.volume(&["list", "--snapshots", "-o", "json"]).json(), json!([]));
}

/// Starts the program that writes blocks with checksums in them and reads them again, until it has done so so many times.
fn verify(folder: &Path, times: u32) -> Child {
    let folder = format!("--directory={}", folder.display());
    Command::new("fio")
        .args(["--name=verify", &folder, "--size=32M", "--rw=randwrite", "--bsrange=4k-256k", "--ioengine=libaio"])
        .args(["--direct=1", "--iodepth=16", "--fsync=16", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"])
        .args([&format!("--loops={times}"), "--verify_state_save=0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the node under load, or replaces it, and starts it again: when something was written since it was started.
pub(crate) fn interrupt(world: &mut World, volume: &str, round: u32, mut goes_on: impl FnMut() -> bool) {
    let writes = |world: &World| {
        let stats = world.volume(&["stats", volume, "-o", "json"]).json();
        stats["writes"]["count"].as_u64().unwrap()
    };
    let begun = writes(world);
    while writes(world) < begun + 50 && goes_on() {
        std::thread::yield_now();
    }
    if round % 3 == 2 {
        world.stop();
    } else {
        world.kill();
    }
    world.start();
}

#[test]
fn a_node_that_is_killed_or_replaced_is_not_noticed() {
    require!("mkfs.ext4", "fsck.ext4", "fio");
    let mut world = World::with_node("400MiB");
    world.volume(&["create", "data", "--size", "256MiB"]).good();
    let device = world.attach(&["data"]);
    good("mkfs.ext4", &["-q", &device]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    let rounds = std::env::var("ORLOP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let mut fio = verify(&mounted.0, rounds.max(6));
    for round in 0..rounds {
        interrupt(&mut world, "data", round, || fio.try_wait().unwrap().is_none());
        assert_eq!(world.show("data")["attached"]["place"], json!(device), "it is served again");
    }
    let done = fio.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    mounted.unmount();
    good("fsck.ext4", &["-f", "-n", &device]);
    world.volume(&["detach", "data"]).good();
    world.stop();
    world.is_sound();
}

#[test]
fn a_volume_that_has_grown_when_its_node_dies_is_seen_to_have_grown() {
    require!("blockdev");
    let mut world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "10MiB"]).good();
    let device = world.attach(&["data"]);
    world.kill();
    // As if it had died between making the volume larger and telling the kernel.
    world.offline(&["grow", "data", "--size", "20MiB"]).good();
    world.start();
    assert_eq!(bytes_of(&device), 20 << 20);
    world.volume(&["detach", "data"]).good();
}

#[test]
fn a_pool_has_one_node_and_a_folder_too() {
    require!();
    let world = World::with_node("50MiB");
    world.volume(&["create", "data", "--size", "10MiB"]).good();
    let device = world.attach(&["data"]);
    world.start_another().ended(1).says("in use");
    world.offline(&["list"]).ended(1).says("in use by another process");
    // Nor does another pool make it another node: what is attached here stays known.
    let listed = || fs::read(world.runtime().join("attached.json")).unwrap();
    let (before, other) = (listed(), world.runtime().join("other"));
    let refused = world.start_with(&["--pool", &format!("{},size=50MiB", other.display())]);
    refused.ended(1).says("in use by another node").says("--runtime-dir");
    assert!(!other.exists() && listed() == before);
    assert_eq!(world.attach(&["data"]), device);
    world.volume(&["detach", "data"]).good();
}

#[test]
fn what_is_no_pool_or_not_all_of_one_is_left_as_it_is() {
    let world = World::with_pool("50MiB");
    let other = world.file("other", b"something else");
    world.start_with(&["--pool", &format!("{other},size=50MiB")]).ended(1).says("no superblock of a pool");
    world.start_with(&["--pool", &other]).ended(1).says("no superblock of a pool").says("orlop store format");
    assert_eq!(fs::read(&other).unwrap(), b"something else");
    let missing = format!("{other}-missing");
    world.start_with(&["--pool", &missing]).ended(1).says("with a size");
    fs::File::options().write(true).open(world.pool()).unwrap().set_len(30 << 20).unwrap();
    world.start_another().ended(1).says("bring its old size back");
    assert_eq!(fs::metadata(world.pool()).unwrap().len(), 30 << 20);
    fs::File::options().write(true).open(world.pool()).unwrap().set_len(50 << 20).unwrap();
    world.is_sound();
}

#[test]
fn a_pool_grows_when_its_node_starts() {
    require!();
    let mut world = World::with_node("50MiB");
    let size = |world: &World| world.volume(&["pools", "-o", "json"]).json()[0]["bytes"].as_u64().unwrap();
    let before = size(&world);
    world.stop();
    world.resize("90MiB");
    world.start();
    assert!(size(&world) > before + (39 << 20), "{before} bytes before");
    world.stop();
    world.is_sound();
}

/// Has a file written to a device of a pool that has no room for all of it, and waits until the pool is full.
fn waiting_writer(world: &World, file: &str, device: &str) -> Child {
    let mut writer = Command::new("dd")
        .args([&format!("if={file}"), &format!("of={device}"), "bs=1M", "oflag=direct", "conv=notrunc"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while world.volume(&["pools", "-o", "json"]).json()[0]["state"] != json!("full") {
        assert!(writer.try_wait().unwrap().is_none(), "it must wait");
    }
    writer
}

#[test]
fn writes_wait_while_the_pool_is_full_and_nothing_is_lost() {
    require!("dd", "cmp");
    let world = World::with_node("40MiB");
    for name in ["full", "other"] {
        world.volume(&["create", name, "--size", "64MiB"]).good();
    }
    let other = world.attach(&["other"]);
    let noise = world.file("noise", &noise(22 << 20));
    good("dd", &[&format!("if={noise}"), &format!("of={other}"), "bs=1M", "oflag=direct", "conv=notrunc"]);
    world.volume(&["detach", "other"]).good();
    let device = world.attach(&["full"]);
    let mut writer = waiting_writer(&world, &noise, &device);
    assert!(world.metrics().contains("orlop_pool_full{pool=\"pool\"} 1"));
    world.volume(&["delete", "other"]).good();
    assert!(writer.wait().unwrap().success(), "what waited went on");
    assert_eq!(world.volume(&["pools", "-o", "json"]).json()[0]["state"], json!("ready"));
    good("cmp", &["-n", &(22 << 20).to_string(), &noise, &device]);
    world.volume(&["detach", "full"]).good();
}

#[test]
fn a_full_pool_is_made_larger_while_it_is_used_and_writes_go_on() {
    require!("dd", "cmp");
    let mut world = World::with_node("40MiB");
    world.volume(&["create", "data", "--size", "64MiB"]).good();
    let device = world.attach(&["data"]);
    let noise = world.file("noise", &noise(48 << 20));
    let mut writer = waiting_writer(&world, &noise, &device);
    world.volume(&["grow-pool", "--size", "30MiB"]).ended(1).says("a pool does not shrink");
    world.volume(&["grow-pool", "nothing", "--size", "90MiB"]).ended(1).says("there is no pool nothing");
    let grown = world.volume(&["grow-pool", "pool", "--size", "90MiB", "-o", "json"]).json();
    assert!(grown["bytes"].as_u64().unwrap() > 80 << 20, "{grown}");
    assert!(writer.wait().unwrap().success(), "what waited went on");
    good("cmp", &["-n", &(48 << 20).to_string(), &noise, &device]);
    // A device, or a file, that somebody else has made larger.
    fs::File::options().write(true).open(world.pool()).unwrap().set_len(100 << 20).unwrap();
    let again = world.volume(&["grow-pool", "-o", "json"]).json();
    assert!(again["bytes"].as_u64().unwrap() > grown["bytes"].as_u64().unwrap() + (9 << 20), "{again}");
    world.volume(&["detach", "data"]).good();
    world.stop();
    world.is_sound();
}

/// Bytes that nothing makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

#[test]
fn what_was_served_is_served_again_and_what_is_gone_is_given_up() {
    require!("blockdev", "nbdinfo");
    let mut world = World::with_node("100MiB");
    for name in ["a", "b", "c", "d"] {
        world.volume(&["create", name, "--size", "10MiB"]).good();
    }
    world.volume(&["snapshot", "a@first"]).good();
    let (snapshot, gone) = (world.attach(&["a@first"]), world.attach(&["d"]));
    let user = fs::File::open(&gone).unwrap();
    let exports = [world.attach(&["b", "--nbd"]), world.attach(&["c", "--nbd"])];
    world.kill();
    for name in ["b", "d"] {
        world.offline(&["delete", name]).good();
    }
    world.start();
    assert_eq!(bytes_of(&snapshot), 10 << 20);
    // Who uses what is gone is told so, and does not wait for ever.
    assert!(user.read_at(&mut [0; 4096], 8 << 20).is_err());
    drop(user);
    assert!(good("nbdinfo", &["--size", &exports[1]]).contains(&(10 << 20).to_string()));
    let listed: serde_json::Value =
        serde_json::from_slice(&fs::read(world.runtime().join("attached.json")).unwrap()).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a@first", "c"]);
    for name in ["a@first", "c"] {
        world.volume(&["detach", name]).good();
    }
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_devices_outlive_their_node_again() {
    require!();
    let mut world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    let device = world.attach(&["data"]);
    let first = world.keepers();
    assert_eq!(first.len(), 1);
    good("kill", &["-9", &first[0]]);
    let begin = Instant::now();
    // It has the devices when it lists them: before, it could be killed in the middle of taking them.
    let keeper = world.runtime().join("keeper.sock");
    while Keeper::connect(&keeper).and_then(|keeper| keeper.names()).map_or(0, |names| names.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no other keeper has the device");
        std::thread::sleep(Duration::from_millis(20));
    }
    world.kill();
    world.start();
    fs::write(&device, [7; 4096]).unwrap();
    assert_eq!(world.attach(&["data"]), device, "it is the same device");
    world.volume(&["detach", "data"]).good();
}
