//! The judge of the Kubernetes project, where there is one: `CSI_SANITY` is the program `csi-sanity` (github.com/kubernetes-csi/csi-test), and more arguments for it after
//! blanks. It is not among the tests that are always run, since no package has it; it is built with `go build -mod=vendor ./cmd/csi-sanity`. With Go 1.19 that
//! is its version 5.2.0, which knows CSI 1.9 and takes what is younger for a mistake; so what it has against younger capabilities is to be skipped:
//!
//! ```text
//! CSI_SANITY='/path/to/csi-sanity --ginkgo.skip=(ControllerGet|GetPlugin)Capabilities.should.return.appropriate.capabilities' \
//!     cargo nextest run -p csi --run-ignored only sanity
//! ```

use crate::world::World;
use std::process::Command;

async fn judged(access: &str) {
    let given = std::env::var("CSI_SANITY").expect("CSI_SANITY names the program csi-sanity");
    let mut words = given.split_whitespace();
    let program = words.next().expect("CSI_SANITY names the program csi-sanity");
    let world = World::new(&[4096]).await;
    let mut command = Command::new(program);
    command
        .args(words)
        .arg(format!("--csi.endpoint={}", world.path("csi.sock")))
        .arg(format!("--csi.mountdir={}", world.path("sanity-target")))
        .arg(format!("--csi.stagingdir={}", world.path("sanity-staging")))
        .arg(format!("--csi.testvolumeaccesstype={access}"))
        .args(["--csi.testvolumesize=67108864", "--csi.testvolumeexpandsize=134217728", "--ginkgo.no-color"]);
    let ended = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program that CSI_SANITY names"]
async fn csi_sanity_is_content_with_file_systems() {
    judged("mount").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program that CSI_SANITY names"]
async fn csi_sanity_is_content_with_block_devices() {
    judged("block").await;
}
