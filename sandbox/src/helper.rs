//! Starting a helper of the sandbox and waiting for its word that it is ready.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::node::tail;
use crate::process::{self, ProcessId};
use crate::process_one::READY;

/// How long a helper may take: its work until then is a few mounts or one socket, but the machine may be busy.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Starts a command that prints one line, [`READY`], when it is; one that does not get so far is ended, and an error with its log.
///
/// `pid_file` tells of the process from its first moment on, so that it is found also by those who come after this program was
/// interrupted.
pub(crate) async fn start(command: &mut Command, what: &str, log: &Path, pid_file: Option<&Path>) -> Result<()> {
    start_within(READY_LIMIT, command, what, log, pid_file).await
}

async fn start_within(
    limit: Duration,
    command: &mut Command,
    what: &str,
    log: &Path,
    pid_file: Option<&Path>,
) -> Result<()> {
    command.stdout(Stdio::piped());
    let mut child = process::spawn(command)?;
    let ready = async {
        // One that has ended already has said why in its log, which is told below.
        if let (Some(file), Some(process)) = (pid_file, child.id().and_then(ProcessId::of)) {
            process.save(file)?;
        }
        until_ready(limit, &mut child, what, log).await
    };
    let ready = ready.await;
    if ready.is_err() {
        // It may have ended by itself, which is what the error then tells of.
        let _ = child.kill().await;
    }
    ready
}

async fn until_ready(limit: Duration, child: &mut Child, what: &str, log: &Path) -> Result<()> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let mut reader = BufReader::new(output);
        let read = tokio::time::timeout(limit, reader.read_line(&mut line)).await;
        let read = read.map_err(|_| Error::NotInTime { what: format!("the start of {what}"), limit })?;
        read.map_err(Error::file("read what is said by what writes", log))?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    let status = child.wait().await.map_err(Error::file("wait for what writes", log))?;
    Err(Error::Command { command: format!("the start of {what}"), status: status.to_string(), output: tail(log) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a script with a little time, and gives what came of it with the process that was written down.
    async fn started(script: &str) -> (Result<()>, ProcessId) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (log, file) = (directory.path().join("log"), directory.path().join("pid"));
        let mut command = process::background("sh", &log).expect("a command");
        command.args(["-c", script]);
        let outcome = start_within(Duration::from_millis(500), &mut command, "it", &log, Some(&file)).await;
        let text = std::fs::read_to_string(&file).expect("it is written down");
        (outcome, text.parse().expect("a process"))
    }

    #[tokio::test]
    async fn a_helper_that_is_ready_goes_on() {
        let (outcome, process) = started("echo ready; exec sleep 1000").await;
        outcome.expect("it is ready");
        assert!(process.runs());
        process.end(rustix::process::Signal::KILL, process::KILL_LIMIT).await.expect("it ends");
    }

    #[tokio::test]
    async fn a_helper_that_does_not_get_ready_is_written_down_and_ended() {
        let (outcome, process) = started("exec sleep 1000").await;
        assert!(matches!(outcome, Err(Error::NotInTime { .. })), "{outcome:?}");
        assert!(!process.runs());
        let (outcome, process) = started("sleep 0.2; echo why >&2; exit 3").await;
        let error = outcome.expect_err("it has ended").to_string();
        assert!(error.contains("exit status: 3: why"), "{error}");
        assert!(!process.runs());
    }
}
