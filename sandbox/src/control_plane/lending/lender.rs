//! Who has the control planes.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::state::State;
use super::{KEEP, KEPT};
use crate::control_plane::ControlPlane;

/// A control plane, and what stays in it.
struct Plane {
    plane: ControlPlane,
    base: State,
}

type Idle = Arc<Mutex<Vec<Plane>>>;

/// Lends control planes to whoever connects, one to each, until it is told to end. There are as many as were ever lent at once, and all of them end with it.
pub async fn lend(socket: &Path) -> Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
    let idle = Idle::default();
    let mut ends = signal(SignalKind::terminate()).context("hear when to end")?;
    let mut interrupts = signal(SignalKind::interrupt()).context("hear when to end")?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.context("take a connection")?.0,
            _ = ends.recv() => return Ok(()),
            _ = interrupts.recv() => return Ok(()),
        };
        let idle = idle.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &idle).await {
                tracing::warn!("a control plane is not lent any more: {error:#}");
            }
        });
    }
}

/// One borrower, from his connection to its end. A plane with which anything is wrong is dropped, which ends it.
async fn serve(stream: UnixStream, idle: &Idle) -> Result<()> {
    let mut plane = take(idle).await?;
    let mut stream = BufReader::new(stream);
    let path = format!("{}\n", plane.plane.kubeconfig_path().display());
    stream.write_all(path.as_bytes()).await.context("lend it")?;
    let mut line = String::new();
    // Borrowers end as tests do: in any way.
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        if line == KEEP {
            plane.base = State::of(plane.plane.ports.etcd).await?;
            stream.write_all(KEPT.as_bytes()).await.context("answer")?;
        }
        line.clear();
    }
    if plane.is_as_before().await? {
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(plane);
    }
    Ok(())
}

async fn take(idle: &Idle) -> Result<Plane> {
    loop {
        let plane = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut plane) = plane else { break };
        // What its controllers have done of late for those who are gone is removed, too.
        match plane.is_as_before().await {
            Ok(true) => return Ok(plane),
            Ok(false) => {}
            Err(error) => tracing::warn!("a control plane is not used again: {error:#}"),
        }
    }
    let plane = ControlPlane::builder().with_controller_manager().start().await?;
    let base = State::of(plane.ports.etcd).await?;
    Ok(Plane { plane, base })
}

impl Plane {
    /// Removes what is not of the base, and tells whether it can be used again.
    async fn is_as_before(&mut self) -> Result<bool> {
        let is_restored = self.base.restore(self.plane.ports.etcd).await?;
        if is_restored {
            self.plane.wait_for("/readyz").await?;
        }
        Ok(is_restored)
    }
}
