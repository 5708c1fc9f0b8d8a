//! What all services of the driver share.

use crate::proto::volume_capability::{AccessType, access_mode::Mode};
use crate::proto::{Topology, VolumeCapability};
use crate::store::Store;
use std::sync::Arc;
use tonic::{Response, Status};

/// What the driver is called.
pub(crate) const DRIVER: &str = "directories.example.com";
/// By this nodes are told apart.
const TOPOLOGY: &str = "directories.example.com/node";

/// What a call is answered with.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// The driver of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(Arc<Driver>);

/// What the driver knows.
pub(crate) struct Driver {
    pub(crate) node: String,
    pub(crate) store: Store,
}

impl Service {
    pub(crate) fn new(node: String, store: Store) -> Self {
        Self(Arc::new(Driver { node, store }))
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.0
    }

    /// Does what takes a while where that holds up nobody else; it is done to its end, whether or not anybody still waits for it.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Driver) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let driver = self.0.clone();
        let done = tokio::task::spawn_blocking(move || what(&driver)).await;
        done.map_err(|error| Status::internal(error.to_string()))?.map(Response::new).inspect_err(|status| {
            tracing::warn!(code = ?status.code(), "{}", status.message());
        })
    }
}

impl Driver {
    /// Where a volume of this node can be used.
    pub(crate) fn topology(&self) -> Topology {
        Topology { segments: [(TOPOLOGY.to_owned(), self.node.clone())].into() }
    }
}

/// Directories can be mounted, on their node.
pub(crate) fn is_possible(capabilities: &[VolumeCapability]) -> Result<(), &'static str> {
    const MODES: [Mode; 2] = [Mode::SingleNodeWriter, Mode::SingleNodeReaderOnly];
    if capabilities.is_empty() {
        return Err("it is not said how the volume is to be used");
    }
    for capability in capabilities {
        if !matches!(capability.access_type, Some(AccessType::Mount(_))) {
            return Err("a directory is mounted; it is no block device");
        }
        if !capability.access_mode.as_ref().is_some_and(|mode| MODES.contains(&mode.mode())) {
            return Err("a directory is used on its node alone: take ReadWriteOnce");
        }
    }
    Ok(())
}
