//! Forwarding of TCP connections between the machine and a cluster.
//!
//! A socket stays in the network namespace in which it was made. The forwarder makes the listening one in the first
//! namespace and every connection in the second; it is a process of its own, as namespaces belong to threads.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::process_one::READY;

/// How long to wait after the system could not accept a connection, as when there are no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One way through: what connects to `listen` is connected to `dial`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub direction: Direction,
    pub listen: SocketAddr,
    pub dial: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the control plane's network to the machine's.
    In,
    /// From the machine's network to the control plane's.
    Out,
}

/// The forwarder's own command line.
#[derive(Debug, clap::Args)]
pub struct Forwarder {
    /// The network namespace to listen in.
    #[arg(long)]
    listen_in: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    /// The network namespace to connect in.
    #[arg(long)]
    dial_in: PathBuf,
    #[arg(long)]
    dial: SocketAddr,
}

impl Forwarder {
    /// Forwards until it is killed.
    pub fn run(&self) -> Result<()> {
        let listen_in = open(&self.listen_in)?;
        let dial_in = open(&self.dial_in)?;
        let listen = self.listen;
        let name = Path::new("the forwarder's socket");
        let listener = std::thread::spawn(move || {
            enter(&listen_in)?;
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .join()
        .map_err(|_| Error::input("the thread that opens the forwarder's socket panicked"))?
        .map_err(Error::file("open", name))?;
        enter(&dial_in).map_err(Error::file("enter", &self.dial_in))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::file("serve", name))?;
        runtime.block_on(self.serve(listener)).map_err(Error::file("serve", name))
    }

    async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        println!("{READY}");
        let dial = self.dial;
        loop {
            let mut near = match listener.accept().await {
                Ok((near, _)) => near,
                Err(error) => {
                    eprintln!("accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            tokio::spawn(async move {
                let copied = async {
                    let mut far = TcpStream::connect(dial).await?;
                    near.set_nodelay(true)?;
                    far.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                };
                // Both ends see the broken connection themselves; here it is worth a line only.
                if let Err(error) = copied.await {
                    eprintln!("forward a connection to {dial}: {error}");
                }
            });
        }
    }
}

fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).map_err(Error::file("open", path))
}

fn enter(namespace: &std::fs::File) -> std::io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}
