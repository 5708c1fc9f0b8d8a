//! The judge of the Kubernetes project, where there is one: `CSI_SANITY` names the program `csi-sanity` (github.com/kubernetes-csi/csi-test), which is built with
//! `go build -mod=vendor ./cmd/csi-sanity`. It is not among the tests that are always run, since no package has it.
//!
//! ```text
//! CSI_SANITY=/path/to/csi-sanity cargo nextest run -p csi --run-ignored only sanity
//! ```

use crate::world::World;
use std::process::Command;

async fn judged(access: &str) {
    let program = std::env::var_os("CSI_SANITY").expect("CSI_SANITY names the program csi-sanity");
    let world = World::new(&[4096]).await;
    let mut command = Command::new(program);
    command
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
