//! The S3 server as a process of its own, so that it may outlive the demo.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use sandbox::{ProcessId, Signal};

use crate::pods;

const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(10);

/// A server that was started.
pub struct S3Process {
    /// Its URL on this machine.
    pub endpoint: String,
    /// The folder with a folder for each bucket.
    pub root: PathBuf,
}

impl S3Process {
    /// Starts a server with one bucket, below `state`, and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(state: &Path, bucket: &str, access_key: &str, secret_key: &str) -> anyhow::Result<Self> {
        let state = fs::canonicalize(state).with_context(|| format!("find {}", state.display()))?;
        let root = state.join("s3");
        if ProcessId::load(&pid_file(&state))?.is_some() {
            bail!("an S3 server of an earlier run still runs in {}", state.display());
        }
        // The port is free now, and nobody else on this machine asks for it by number.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = File::create(state.join("s3.log")).context("make the server's log")?;
        let child = Command::new(program()?)
            .args(["s3", "--listen", &address, "--bucket", bucket, "--root"])
            .arg(&root)
            .env("AWS_ACCESS_KEY_ID", access_key)
            .env("AWS_SECRET_ACCESS_KEY", secret_key)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("start the S3 server")?;
        let process = ProcessId::of(child.id()).context("the S3 server ended at once")?;
        process.save(&pid_file(&state))?;
        pods::wait_for("the S3 server", START_LIMIT, || async {
            if !process.runs() {
                bail!("it ended: {}", fs::read_to_string(state.join("s3.log")).unwrap_or_default());
            }
            Ok(tokio::net::TcpStream::connect(&address).await.is_ok().then_some(()))
        })
        .await?;
        Ok(Self { endpoint: format!("http://{address}"), root })
    }

    /// Ends the server that was started below `state`, if it runs.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end_left_over(state: &Path) -> anyhow::Result<()> {
        if let Some(process) = ProcessId::load(&pid_file(state))? {
            process.end(Signal::TERM, END_LIMIT).await.context("end the S3 server")?;
        }
        Ok(())
    }
}

fn pid_file(state: &Path) -> PathBuf {
    state.join("s3.pid")
}

fn program() -> anyhow::Result<PathBuf> {
    crate::orlop::beside_this("sandbox")
}
