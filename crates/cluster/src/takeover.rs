//! Whether a volume may be taken from the node that serves it, by its record.
//!
//! The rule. A volume that another node serves is refused, with that node's name, unless one of these holds:
//!
//! 1. The other node is dead: its Lease was not renewed for [`Times::dead_after`](crate::Times::dead_after) while it was looked at.
//! 2. Somebody says that it is off: its Node in Kubernetes has the taint `node.kubernetes.io/out-of-service`.
//! 3. It was given up: it has no `StorageNode` and no Lease.
//!
//! Then the volume is attached by force, which waits until the leases of the other attachment have ended. So no acknowledged write is lost and nothing stale is
//! read if the node lives after all (it may be cut off from the API server alone); what it costs is that whoever uses the volume there gets errors. That is
//! why one that lives is not taken from silently, and why nothing else decides: not that a pod was deleted, and not that the kubelet does not answer, since
//! the daemon that serves the volume may go on when the kubelet does not.

use crate::error::{Result, ask};
use crate::heartbeat;
use crate::times::Times;
use api::StorageNode;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use std::time::{Duration, Instant};

/// The taint of a node that somebody has seen to be off.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How often a Lease is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It has renewed its Lease.
    Alive,
    /// It has not, for so long that it is dead.
    Silent,
    /// Its Node has the taint.
    OutOfService,
    /// Nothing is left of it.
    GivenUp,
}

impl Life {
    /// Whether its volumes may be taken over.
    #[must_use]
    pub fn has_ended(self) -> bool {
        self != Self::Alive
    }
}

/// Looks whether a node lives: until it says so, which it does within a heartbeat, or until it has been silent for long enough.
///
/// # Errors
/// The API server does not answer. Then nothing is known, and nothing may be taken.
pub async fn life_of(client: &Client, node: &str, times: &Times) -> Result<Life> {
    if is_out_of_service(client, node, times).await? {
        return Ok(Life::OutOfService);
    }
    let (leases, name) = (heartbeat::leases(client), heartbeat::name(node));
    let version = async || {
        let found = ask(times.request, || format!("read the Lease {name}"), leases.get_opt(&name)).await?;
        Ok::<_, crate::Error>(found.map(|lease| lease.metadata.resource_version))
    };
    let first = version().await?;
    if first.is_none() {
        let nodes: Api<StorageNode> = Api::all(client.clone());
        let known = ask(times.request, || format!("read the StorageNode {node}"), nodes.get_opt(node)).await?;
        if known.is_none() {
            return Ok(Life::GivenUp);
        }
    }
    let mut silent = Duration::ZERO;
    while silent < times.dead_after {
        let asked = Instant::now();
        tokio::time::sleep(LOOK).await;
        if version().await? != first {
            return Ok(Life::Alive);
        }
        // While the API server is slow, the node cannot renew it either.
        silent += asked.elapsed().min(2 * LOOK);
    }
    Ok(Life::Silent)
}

async fn is_out_of_service(client: &Client, node: &str, times: &Times) -> Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = ask(times.request, || format!("read the Node {node}"), nodes.get_opt(node)).await?;
    let taints = found.and_then(|node| node.spec?.taints).unwrap_or_default();
    Ok(taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
}
