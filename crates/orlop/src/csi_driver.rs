//! What `orlop node` is for Kubernetes: a CSI driver.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use csi::{Config, Driver, Endpoint, Linux, Listening, Volumes};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// The longest name of a node: it is the value of a label.
const MOST_NAME: usize = 63;

#[derive(Debug, Args)]
pub(crate) struct CsiArgs {
    /// Be the CSI driver volumes.orlop.io of this node, and answer on this socket
    #[arg(long, env = "CSI_ENDPOINT", hide_env_values = true, value_name = "unix://PATH")]
    csi_endpoint: Option<Endpoint>,
    /// Tell the kubelet whose folder this is of the driver: /var/lib/kubelet, unless it was told otherwise. Pods find their volumes below it, so it must have the same path here as for
    /// the kubelet. With it, volumes are mounted nowhere else
    #[arg(long, value_name = "DIR", requires = "csi_endpoint")]
    kubelet_dir: Option<PathBuf>,
    /// The name of this node in Kubernetes; without it, the name of the machine
    #[arg(long, env = "NODE_NAME", hide_env_values = true, value_name = "NAME")]
    node_name: Option<String>,
}

/// A driver to be. Calls that come before it is there wait at its socket.
pub(crate) struct Wanted {
    socket: Listening,
    kubelet: Option<PathBuf>,
    name: String,
}

/// The name of this node, as it was given, or else that of the machine.
pub(crate) fn node_name(args: &CsiArgs) -> Result<String> {
    let name = match args.node_name.clone().filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    if !is_name(&name) {
        return Err(Error::usage(format!(
            "{name:?} cannot be the name of a node: it has up to {MOST_NAME} letters, digits, - . and _, and begins and ends with one of the first two; name it with --node-name"
        )));
    }
    Ok(name)
}

/// What the arguments ask for, if they ask for a driver. Whether it can be had is known before anything else of the node is started.
pub(crate) async fn wanted(args: CsiArgs) -> Result<Option<Wanted>> {
    let name = node_name(&args);
    let Some(endpoint) = args.csi_endpoint else { return Ok(None) };
    let name = name?;
    if let Some(kubelet) = args.kubelet_dir.as_ref().filter(|kubelet| !kubelet.is_absolute()) {
        return Err(Error::usage(format!("--kubelet-dir {} must be absolute", kubelet.display())));
    }
    let socket = endpoint.listen().await.map_err(|e| failed().because(e))?;
    Ok(Some(Wanted { socket, kubelet: args.kubelet_dir, name }))
}

fn failed() -> Error {
    Error::new("start the CSI driver")
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= MOST_NAME && name.chars().all(fits) && ends(name.chars().next()) && ends(name.chars().last())
}

/// Starts the driver of a node. It ends with `stop`; should it end before, it stops all.
pub(crate) async fn start(
    wanted: Wanted,
    volumes: Arc<dyn Volumes>,
    runtime: PathBuf,
    stop: CancellationToken,
) -> Result<JoinHandle<Result<()>>> {
    let config = Config {
        volumes,
        host: Arc::new(Linux),
        node: wanted.name,
        kubelet: wanted.kubelet.clone(),
        runtime,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let driver = tokio::task::spawn_blocking(move || Driver::new(config)).await;
    let driver = driver.map_err(|e| failed().because(e))?.map_err(|e| failed().because(e))?;
    Ok(tokio::spawn(async move {
        let _stops = stop.clone().drop_guard();
        let served = csi::serve(driver, wanted.socket, wanted.kubelet.as_deref(), stop).await;
        served.map_err(|e| Error::new("serve CSI").because(e))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_name_that_can_be_a_label() {
        for good in ["a", "node-1.example_2", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for wrong in ["", "-a", "a.", "a b", "ä", &"x".repeat(64)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
