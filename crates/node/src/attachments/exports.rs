//! NBD servers on unix sockets, one for each volume that is served so: for tests, for diagnosis, and to read snapshots and what has changed since.

use crate::error::{Error, Kind, Result};
use block::Device;
use nbd::{Export, Limits, Listener, Server};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The servers of this process.
pub(super) struct Exports {
    folder: PathBuf,
    runtime: Handle,
    serving: Mutex<BTreeMap<String, Serving>>,
}

struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exports {
    /// Servers with their sockets in a folder; must be called within a runtime.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, runtime: Handle::current(), serving: Mutex::default() }
    }

    /// Serves a device under a name, on a socket of the label, and tells the URI.
    pub(super) fn serve(&self, name: &str, label: &str, device: Arc<dyn Device>) -> Result<String> {
        let what = || format!("serve {name} over NBD");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
        let export = Export { name: name.to_owned(), description: String::new(), device };
        let server = Server::new(vec![export], Limits::default());
        let server = server.map_err(|e| Error::new(Kind::Invalid, what()).because(e))?;
        let socket = self.folder.join(format!("{label}.sock"));
        let entered = self.runtime.enter();
        let listener = Listener::unix(&socket).map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
        drop(entered);
        let uri = server.uri(&listener, name);
        let stop = CancellationToken::new();
        let (stopped, of) = (stop.clone(), name.to_owned());
        let task = self.runtime.spawn(async move {
            if let Err(error) = server.serve(listener, stopped).await {
                tracing::error!(name = of, %error, "the NBD server has ended");
            }
        });
        self.lock().insert(name.to_owned(), Serving { stop, task });
        Ok(uri)
    }

    /// Ends the server of this name, when what it was asked before is answered.
    pub(super) fn end(&self, name: &str) -> Result<()> {
        let Some(serving) = self.lock().remove(name) else { return Ok(()) };
        serving.stop.cancel();
        let what = format!("end the NBD server of {name}");
        self.runtime.block_on(serving.task).map_err(|e| Error::new(Kind::Failed, what).because(e))
    }

    pub(super) fn end_all(&self) {
        let names: Vec<_> = self.lock().keys().cloned().collect();
        for name in names {
            if let Err(error) = self.end(&name) {
                tracing::error!(error = &error as &dyn std::error::Error, "an NBD server was not ended in order");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
