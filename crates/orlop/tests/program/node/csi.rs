//! The node as a CSI driver, killed while it does what it is asked.

use crate::node::world::{World, good, require};
use csi::proto::controller_client::ControllerClient;
use csi::proto::node_client::NodeClient;
use csi::proto::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use csi::proto::{self, VolumeCapability};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Create,
    Stage,
    Publish,
    Unpublish,
    Unstage,
    Delete,
}

const LIFE: [Call; 6] = [Call::Create, Call::Stage, Call::Publish, Call::Unpublish, Call::Unstage, Call::Delete];

/// Where the driver is, and what it is asked about.
#[derive(Clone)]
struct Driver {
    runtime: PathBuf,
}

impl Driver {
    fn path(&self, name: &str) -> String {
        self.runtime.join(name).to_str().unwrap().to_owned()
    }

    /// Asks over a new connection.
    fn ask(&self, call: Call) -> Result<(), Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::try_from(format!("unix://{}", self.path("csi.sock"))).unwrap();
            let channel = endpoint.connect().await.map_err(|e| Status::unavailable(e.to_string()))?;
            self.on(channel, call).await
        })
    }

    async fn on(&self, channel: Channel, call: Call) -> Result<(), Status> {
        let (mut controller, mut node) = (ControllerClient::new(channel.clone()), NodeClient::new(channel));
        let (volume_id, staging_target_path) = ("pvc-1".to_owned(), self.path("kubelet/staging"));
        let (volume_capability, target_path) = (Some(usage()), self.path("kubelet/target"));
        match call {
            Call::Create => {
                let asked = proto::CreateVolumeRequest {
                    name: volume_id,
                    capacity_range: Some(proto::CapacityRange { required_bytes: 32 << 20, limit_bytes: 0 }),
                    volume_capabilities: vec![usage()],
                    ..Default::default()
                };
                controller.create_volume(asked).await.map(drop)
            }
            Call::Stage => {
                let asked = proto::NodeStageVolumeRequest {
                    volume_id,
                    staging_target_path,
                    volume_capability,
                    ..Default::default()
                };
                node.node_stage_volume(asked).await.map(drop)
            }
            Call::Publish => {
                let asked = proto::NodePublishVolumeRequest {
                    volume_id,
                    staging_target_path,
                    target_path,
                    volume_capability,
                    ..Default::default()
                };
                node.node_publish_volume(asked).await.map(drop)
            }
            Call::Unpublish => {
                let asked = proto::NodeUnpublishVolumeRequest { volume_id, target_path };
                node.node_unpublish_volume(asked).await.map(drop)
            }
            Call::Unstage => {
                let asked = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path };
                node.node_unstage_volume(asked).await.map(drop)
            }
            Call::Delete => {
                let asked = proto::DeleteVolumeRequest { volume_id, ..Default::default() };
                controller.delete_volume(asked).await.map(drop)
            }
        }
    }

    /// Asks until it is done. A program that a killed driver had started may still be at it; then it is told so.
    fn insist(&self, call: Call) {
        loop {
            match self.ask(call) {
                Ok(()) => return,
                Err(status) if status.code() == Code::Aborted => thread::yield_now(),
                Err(status) => panic!("{call:?}: {status}"),
            }
        }
    }
}

fn usage() -> VolumeCapability {
    let mount = MountVolume { fs_type: "ext4".to_owned(), ..Default::default() };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// The numbers that a test goes by, and that can be given again.
fn random() -> (StdRng, u32) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("ORLOP_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("ORLOP_KILLS").map_or(3, |kills| kills.div_ceil(6));
    println!("ORLOP_SEED={seed} ORLOP_KILLS={}", rounds * 6);
    (StdRng::seed_from_u64(seed), rounds.try_into().unwrap())
}

/// Each call of a volume's life is cut off at a random moment by SIGKILL of the daemon, and repeated with the next one.
#[test]
fn a_driver_that_is_killed_in_any_call_goes_on_with_the_next_process() {
    require!("mkfs.ext4", "fsck.ext4");
    let (mut random, rounds) = random();
    let mut world = World::with_driver("300MiB");
    let driver = Driver { runtime: world.runtime().to_owned() };
    let (staging, target) = (driver.path("kubelet/staging"), driver.path("kubelet/target"));
    let (mut cut, mut round) = (0, 0);
    // A machine that is fast may have answered each time: it goes on until something was cut off.
    while round < rounds || (cut == 0 && round < 20 * rounds) {
        let words = format!("round {round}");
        round += 1;
        for call in LIFE {
            let asking = {
                let driver = driver.clone();
                thread::spawn(move || driver.ask(call))
            };
            thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
            world.kill();
            cut += u32::from(asking.join().unwrap().is_err());
            world.start();
            driver.insist(call);
            match call {
                Call::Stage => fs::write(Path::new(&staging).join("words"), &words).unwrap(),
                Call::Publish => assert_eq!(fs::read_to_string(Path::new(&target).join("words")).unwrap(), words),
                Call::Unpublish => assert!(!Path::new(&target).exists()),
                Call::Unstage => {
                    let device = world.attach(&["pvc-1"]);
                    good("fsck.ext4", &["-f", "-n", &device]);
                    world.volume(&["detach", "pvc-1"]).good();
                }
                Call::Create | Call::Delete => {}
            }
        }
        assert_eq!(world.volume(&["list", "-o", "name"]).stdout, "");
    }
    println!("{cut} of {} calls were cut off", round * 6);
    assert!(cut > 0, "some call must have been cut off");
    world.stop();
    world.is_sound();
}

/// Pods go on with their volumes when the daemon is replaced, and what was published is taken away by the next one.
#[test]
fn what_is_published_outlives_the_driver() {
    require!("mkfs.ext4");
    let mut world = World::with_driver("200MiB");
    let driver = Driver { runtime: world.runtime().to_owned() };
    for call in &LIFE[..3] {
        driver.insist(*call);
    }
    let file = Path::new(&driver.path("kubelet/target")).join("file");
    fs::write(&file, "before").unwrap();
    world.stop();
    assert!(!world.runtime().join("csi.sock").exists(), "it takes its socket away");
    world.start();
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    fs::write(&file, "after").unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let registration = world.runtime().join("kubelet/plugins_registry/volumes.orlop.io-reg.sock");
    while !registration.exists() {
        thread::yield_now();
    }
    for call in &LIFE[1..] {
        driver.insist(*call);
    }
}

#[test]
fn a_driver_whose_socket_or_name_cannot_be_does_not_start() {
    require!();
    let world = World::with_pool("50MiB");
    let start = |words: &[&str]| world.start_with(words);
    start(&["--csi-endpoint", "tcp://1.2.3.4:5"]).ended(2).says("unix:///path/to/csi.sock");
    start(&["--kubelet-dir", "/x"]).ended(2).says("--csi-endpoint");
    let endpoint = format!("unix://{}/csi.sock", world.runtime().display());
    start(&["--csi-endpoint", &endpoint, "--node-name", "a b"]).ended(2).says("--node-name");
    start(&["--csi-endpoint", &endpoint, "--kubelet-dir", "x"]).ended(2).says("absolute");
    fs::write(world.runtime().join("csi.sock"), b"mine").unwrap();
    start(&["--csi-endpoint", &endpoint]).ended(1).says("no socket");
    assert_eq!(fs::read(world.runtime().join("csi.sock")).unwrap(), b"mine");
}
