//! Stand-ins for the sidecars that every CSI driver is installed with, for clusters that cannot have their images.
//!
//! Each makes the calls that its original makes, in the same order, on the same socket, from the same objects and with the same arguments: external-provisioner v6.3.0,
//! external-resizer v2.2.1, external-snapshotter v8.6.0 (the sidecar, and the controller of the cluster) and livenessprobe v2.19.0. They know no driver; what they are
//! told is in the objects, and in the arguments of the manifests, which are those of the originals: one that a stand-in does not understand ends it.
//!
//! What they leave out is said at each. They are no product, and nothing of the product may know them.

mod driver;
mod events;
mod failure;
mod flags;
mod lease;
mod liveness;
mod objects;
mod provisioner;
mod quantity;
mod resizer;
mod snapshot_controller;
mod snapshots;
mod snapshotter;

/// The protocol.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
mod proto {
    tonic::include_proto!("csi.v1");
}

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(version, about = "Stand-ins for the standard sidecars of CSI")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// In place of external-provisioner, on each node
    CsiProvisioner(provisioner::Arguments),
    /// In place of external-resizer
    CsiResizer(resizer::Arguments),
    /// In place of the sidecar of external-snapshotter, on each node
    CsiSnapshotter(snapshotter::Arguments),
    /// In place of the controller of external-snapshotter
    SnapshotController(snapshot_controller::Arguments),
    /// In place of livenessprobe
    Livenessprobe(liveness::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let role = Cli::parse().role;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let played = async {
        match role {
            Role::CsiProvisioner(arguments) => provisioner::run(arguments).await,
            Role::CsiResizer(arguments) => resizer::run(arguments).await,
            Role::CsiSnapshotter(arguments) => snapshotter::run(arguments).await,
            Role::SnapshotController(arguments) => snapshot_controller::run(arguments).await,
            Role::Livenessprobe(arguments) => liveness::run(arguments).await,
        }
    };
    let ended = tokio::select! {
        ended = played => ended,
        told = terminated() => told,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecars: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until this process is told to end; as the first of a container it would not by itself.
async fn terminated() -> anyhow::Result<()> {
    signal(SignalKind::terminate()).context("listen for SIGTERM")?.recv().await;
    Ok(())
}
