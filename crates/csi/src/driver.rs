//! The driver: what all services share.

use crate::busy::Busy;
use crate::check;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerError};
use crate::names;
use crate::proto::Topology;
use crate::volumes::{Volume, Volumes};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::{Response, Status};

/// The name of the driver.
pub const DRIVER: &str = "volumes.orlop.io";
/// The key of topology: a volume can be used on the node that this says.
pub const TOPOLOGY: &str = "topology.volumes.orlop.io/node";

/// What a driver is made of.
pub struct Config {
    /// Who owns the volumes.
    pub volumes: Arc<dyn Volumes>,
    /// Where they are used.
    pub host: Arc<dyn Host>,
    /// The name of this node, as the orchestrator knows it.
    pub node: String,
    /// The kubelet's folder: volumes are used below it, and nowhere else. Without one they may be used anywhere.
    pub kubelet: Option<PathBuf>,
    /// Where the ledger is: in memory, such as a folder in `/run`, as what is mounted is.
    pub runtime: PathBuf,
    /// The version that is told.
    pub version: String,
}

/// The driver of one node.
pub struct Driver {
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) busy: Busy,
    kubelet: Option<PathBuf>,
    ledger: Mutex<Ledger>,
}

/// What a call is answered with.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

impl Driver {
    /// Reads the ledger, and clears away what an interrupted call has left that nobody will ask for again.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read.
    pub fn new(config: Config) -> Result<Arc<Self>, LedgerError> {
        let ledger = Mutex::new(Ledger::open(&config.runtime)?);
        let Config { volumes, host, node, version, kubelet, .. } = config;
        let kubelet = kubelet.map(|folder| folder.components().collect());
        let driver = Self { volumes, host, node, version, busy: Busy::default(), kubelet, ledger };
        driver.clear();
        Ok(Arc::new(driver))
    }

    /// Deletes snapshots that were taken for a clone alone: no call is under way, and one that is repeated takes another.
    fn clear(&self) {
        let left = self.volumes.snapshots().unwrap_or_default();
        for snapshot in left.iter().filter(|snapshot| snapshot.is_asked_here && names::is_for_clone(&snapshot.labels)) {
            match self.volumes.delete_snapshot(&snapshot.id) {
                Ok(()) => tracing::info!(snapshot = snapshot.id, "deleted what an interrupted clone has left"),
                Err(error) => tracing::warn!(snapshot = snapshot.id, %error, "an interrupted clone has left it"),
            }
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume, which must be there.
    pub(crate) fn volume(&self, id: &str) -> Result<Volume, Status> {
        self.volumes.find(id)?.ok_or_else(|| no_volume(id))
    }

    /// A path on which a volume may be used.
    pub(crate) fn place(&self, field: &str, path: &str) -> Result<PathBuf, Status> {
        let path = check::path(field, path)?;
        if let Some(folder) = &self.kubelet {
            check::below(field, &path, folder)?;
        }
        Ok(path)
    }

    /// Where a volume can be used.
    pub(crate) fn topology(&self) -> Topology {
        Topology { segments: HashMap::from([(TOPOLOGY.to_owned(), self.node.clone())]) }
    }

    /// It is this node.
    pub(crate) fn is_here(&self, topology: &Topology) -> bool {
        topology.segments.iter().all(|(key, value)| key == TOPOLOGY && *value == self.node)
    }
}

/// There is no volume of this id.
pub(crate) fn no_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id:.300}"))
}

/// One of the services of a driver.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Driver>);

impl Service {
    /// Answers a call. What it asks for waits, so it is not done where other calls are served; and it is done to its end, though whoever called is gone.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        call: &'static str,
        ask: impl FnOnce(&Driver) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let driver = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&driver)).await;
        let asked = asked.map_err(|_| Status::internal(format!("{call} has panicked, which is a defect")))?;
        if let Err(status) = &asked {
            tracing::warn!(call, code = ?status.code(), error = status.message(), "not done");
        }
        asked.map(Response::new)
    }
}
