//! A server of devices in memory, on a socket.

use block::Device;
use block::testing::{Later, Memory};
use nbd::{Export, Limits, Listener, Server};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const BLOCK: usize = 4096;

/// A device that answers later, from threads of its own.
pub(crate) fn later(memory: Memory) -> Arc<Later<Memory>> {
    Arc::new(Later::new(Arc::new(memory), 2))
}

/// A server on a socket, and what ends it.
pub(crate) struct Served {
    _folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) fn start(devices: Vec<(&str, Arc<dyn Device>)>, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd.sock");
        let exports = devices
            .into_iter()
            .map(|(name, device)| Export { name: name.to_owned(), description: format!("about {name}"), device })
            .collect();
        let server = Server::new(exports, limits).unwrap();
        let listener = Listener::unix(&socket).unwrap();
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let server = tokio::spawn(async move { server.serve(listener, ends).await });
        Self { _folder: folder, socket, stop, server }
    }

    pub(crate) fn of(memory: Memory) -> (Self, Arc<Memory>) {
        let memory = Arc::new(memory);
        (Self::start(vec![("disk", memory.clone())], Limits::default()), memory)
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }

    /// Stops the server, which must end and take its socket with it.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
        assert!(!self.socket.exists(), "the socket stays");
    }
}

/// Bytes with holes in them.
pub(crate) fn sparse(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        if index % 7 < 3 {
            let mut state = index as u32 | 1;
            for byte in block {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
        }
    }
    bytes
}
