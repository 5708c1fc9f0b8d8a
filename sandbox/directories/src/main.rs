//! A CSI driver that is not Orlop's, to show that Orlop protects volumes of any driver that takes snapshots. It is no product, and shares no code with Orlop's own driver.
//!
//! Volumes are directories of a node, mounted where pods see them; a snapshot is a copy of such a directory, and so is a volume that is made from one. That is all it has to
//! offer, and little is promised:
//!
//! * A snapshot is not of one instant, as it ought to be: what is written while it is copied is in it, or is not. One of files that are replaced as a whole has each of them whole.
//! * The size of a volume is told, and not enforced.
//! * What is copied is files, directories and symbolic links, with owners, modes and times. A file with several names becomes several files, extended attributes are left out, and of
//!   a volume with anything else (devices, pipes, sockets) no snapshot is taken.
//! * Nothing is flushed: what a node had that loses its power may be lost.

mod controller;
mod copy;
mod identity;
mod kubelet;
mod node;
mod registration;
mod service;
mod store;

/// What drivers are asked.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
mod proto {
    tonic::include_proto!("csi.v1");
}

/// What kubelets ask of those who come to them.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
mod plugins {
    tonic::include_proto!("pluginregistration");
}

use crate::kubelet::Understood;
use crate::plugins::registration_server::RegistrationServer;
use crate::proto::controller_server::ControllerServer;
use crate::proto::identity_server::IdentityServer;
use crate::proto::node_server::NodeServer;
use crate::registration::Told;
use crate::service::{DRIVER, Service};
use crate::store::Store;
use anyhow::Context;
use clap::Parser;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;

#[derive(Debug, Parser)]
#[command(version, about = "A CSI driver whose volumes are directories, and whose snapshots are copies of them")]
struct Cli {
    /// The name of this node
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Where the directories are
    #[arg(long, default_value = "/var/lib/directories")]
    root: PathBuf,
    /// The folder of this node's kubelet
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let store = Store::open(&cli.root).with_context(|| format!("open {}", cli.root.display()))?;
    let service = Service::new(cli.node, store);
    let socket = cli.kubelet.join("plugins").join(DRIVER).join("csi.sock");
    let told_at = cli.kubelet.join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
    // Whoever is told of the driver can ask it.
    let driver = Server::builder()
        .add_service(IdentityServer::new(service.clone()))
        .add_service(ControllerServer::new(service.clone()))
        .add_service(NodeServer::new(service))
        .serve_with_incoming(listen(&socket)?);
    let registration = Server::builder()
        .add_service(RegistrationServer::new(Told { endpoint: socket }))
        .serve_with_incoming(listen(&told_at)?);
    // As the first process of a container it would not end by itself when it is told to.
    let mut end = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        ended = driver => ended.context("answer as a driver")?,
        ended = registration => ended.context("answer the kubelet")?,
        _ = end.recv() => {}
    }
    fs::remove_file(&told_at).with_context(|| format!("remove {}", told_at.display()))
}

/// Who comes to a socket. One that an earlier process has left is replaced.
fn listen(path: &Path) -> anyhow::Result<impl Stream<Item = io::Result<Understood<UnixStream>>> + use<>> {
    let listening = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(path),
        }
    };
    let listener = listening().with_context(|| format!("listen on {}", path.display()))?;
    Ok(UnixListenerStream::new(listener).map(|connection| connection.map(Understood::new)))
}
