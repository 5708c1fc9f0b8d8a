//! Control planes that tests use one after another, since starting one costs more than most tests do.
//!
//! ```text
//! test ── connects ──────────────► lender     takes one that is idle, or starts one
//!      ◄── path of a kubeconfig ──
//!      ── "keep" ────────────────►            what is there now stays for those who come after
//!      ◄── "kept" ───────────────
//!      ── ends, however ─────────►            what it has left is removed, behind the API server's back
//! ```
//! So each has the plane to itself, and finds nothing of those before it. Custom resource definitions, webhooks and API services that are left change what the server
//! itself does, which it takes in when it pleases: with those a plane is ended instead.

mod lender;
mod state;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{ControlPlane, install_crypto_provider};
pub use lender::lend;

/// Names the lender's socket. Without it, whoever borrows has a control plane started for himself.
pub const SOCKET_VARIABLE: &str = "ORLOP_CONTROL_PLANES";

const KEEP: &str = "keep\n";
const KEPT: &str = "kept\n";

/// A control plane with controllers, in which there is nothing of other tests. It is given back when this is dropped.
pub struct Borrowed {
    kubeconfig: Kubeconfig,
    client: Client,
    from: From,
}

enum From {
    Started { _plane: Box<ControlPlane> },
    Lent(BufReader<UnixStream>),
}

impl Borrowed {
    /// Borrows one from the lender that the environment names, or starts one.
    pub async fn new() -> Result<Self> {
        match std::env::var_os(SOCKET_VARIABLE) {
            Some(socket) => Self::from_lender(Path::new(&socket)).await,
            None => {
                let plane = Box::new(ControlPlane::builder().with_controller_manager().start().await?);
                let (kubeconfig, client) = (plane.kubeconfig().clone(), plane.client());
                Ok(Self { kubeconfig, client, from: From::Started { _plane: plane } })
            }
        }
    }

    /// Borrows one from the lender at a socket.
    pub async fn from_lender(socket: &Path) -> Result<Self> {
        install_crypto_provider();
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("connect to the lender of control planes at {}", socket.display()))?;
        let mut stream = BufReader::new(stream);
        let path = PathBuf::from(line(&mut stream).await?.trim_end());
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("read {}", path.display()))?;
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default())
            .await
            .with_context(|| format!("use {}", path.display()))?;
        let client = Client::try_from(config).context("make a client")?;
        Ok(Self { kubeconfig, client, from: From::Lent(stream) })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// All that is there now is for those who come after, too.
    pub async fn keep(&mut self) -> Result<()> {
        let From::Lent(stream) = &mut self.from else { return Ok(()) };
        stream.write_all(KEEP.as_bytes()).await.context("tell the lender of the control plane")?;
        let answer = line(stream).await?;
        ensure!(answer == KEPT, "the lender of the control plane says {answer:?}");
        Ok(())
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.context("hear from the lender of control planes")?;
    ensure!(line.ends_with('\n'), "the lender has no control plane to give; it says why itself");
    Ok(line)
}
