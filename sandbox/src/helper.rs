//! Starting a helper of the sandbox and waiting for its word that it is ready.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::node::tail;
use crate::process;
use crate::process_one::READY;

/// How long a helper may take: its work until then is a few mounts or one socket, but the machine may be busy.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Starts a command that prints one line, [`READY`], when it is; one that does not get so far is an error with its log.
pub(crate) async fn until_ready(command: &mut Command, what: &str, log: &Path) -> Result<Child> {
    command.stdout(Stdio::piped());
    let mut child = process::spawn(command)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let mut reader = BufReader::new(output);
        let read = tokio::time::timeout(READY_LIMIT, reader.read_line(&mut line)).await;
        let read = read.map_err(|_| Error::NotInTime { what: format!("the start of {what}"), limit: READY_LIMIT })?;
        read.map_err(Error::file("read what is said by what writes", log))?;
    }
    if line.trim_end() == READY {
        return Ok(child);
    }
    let status = child.wait().await.map_err(Error::file("wait for what writes", log))?;
    Err(Error::Command { command: format!("the start of {what}"), status: status.to_string(), output: tail(log) })
}
