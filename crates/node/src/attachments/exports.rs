//! NBD servers on unix sockets or over TCP, one for each volume that is served so: for tests, for diagnosis, and to read snapshots and what has changed since.

use crate::error::{Error, Kind, Result};
use block::Device;
use nbd::{Export, Limits, ListenError, Listener, Server, Tls};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The servers of this process.
pub(super) struct Exports {
    folder: PathBuf,
    /// For those over TCP.
    tls: Option<Tls>,
    runtime: Handle,
    serving: Mutex<BTreeMap<String, Serving>>,
}

struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exports {
    /// Servers with their sockets in a folder; must be called within a runtime.
    pub(super) fn new(folder: PathBuf, tls: Option<Tls>) -> Self {
        Self { folder, tls, runtime: Handle::current(), serving: Mutex::default() }
    }

    /// Serves a device under a name, on a socket of the label, and tells the URI.
    pub(super) fn serve(&self, name: &str, label: &str, device: Arc<dyn Device>) -> Result<String> {
        let failed = |e: io::Error| Error::new(Kind::Failed, format!("serve {name} over NBD")).because(e);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let socket = self.folder.join(format!("{label}.sock"));
        let entered = self.runtime.enter();
        let listener = Listener::unix(&socket);
        drop(entered);
        self.begin(name, listener, None, device).map(|(_, uri)| uri)
    }

    /// The same over TCP, and tells the address, too: beyond this machine with TLS alone, to clients who have a certificate.
    pub(super) fn serve_tcp(
        &self,
        name: &str,
        address: SocketAddr,
        device: Arc<dyn Device>,
    ) -> Result<(SocketAddr, String)> {
        if self.tls.is_none() && !address.ip().is_loopback() {
            let what = format!(
                "serve {name} on {address}: a volume is not spoken of in clear beyond this machine; start the node with --nbd-tls, or listen on 127.0.0.1"
            );
            return Err(Error::new(Kind::Precondition, what));
        }
        let listener = self.runtime.block_on(Listener::tcp(address));
        let (bound, uri) = self.begin(name, listener, self.tls.clone(), device)?;
        Ok((bound.unwrap_or(address), uri))
    }

    fn begin(
        &self,
        name: &str,
        listener: std::result::Result<Listener, ListenError>,
        tls: Option<Tls>,
        device: Arc<dyn Device>,
    ) -> Result<(Option<SocketAddr>, String)> {
        let what = || format!("serve {name} over NBD");
        let listener = listener.map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
        let export = Export { name: name.to_owned(), description: String::new(), device };
        let server = Server::new(vec![export], Limits::default());
        let server = server.map_err(|e| Error::new(Kind::Invalid, what()).because(e))?;
        let server = tls.into_iter().fold(server, Server::with_tls);
        let (address, uri) = (listener.address(), server.uri(&listener, name));
        let stop = CancellationToken::new();
        let (stopped, of) = (stop.clone(), name.to_owned());
        let task = self.runtime.spawn(async move {
            if let Err(error) = server.serve(listener, stopped).await {
                tracing::error!(name = of, %error, "the NBD server has ended");
            }
        });
        self.lock().insert(name.to_owned(), Serving { stop, task });
        Ok((address, uri))
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
