//! Child processes that cannot outlive the test that started them.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;

use anyhow::{Context, Result, anyhow};

/// Lines of a program's log that an error about it repeats: enough for the message and what led to it.
const LOG_TAIL_LINES: usize = 12;

/// A running program with its log; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program whose output is appended to `NAME.log` in a directory.
    ///
    /// `setpriv` has the kernel kill the program when its parent ends, however it ends: a test that is killed for being
    /// too slow runs no destructor.
    pub(super) fn start(name: &str, program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output =
            File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("open {} twice", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        command.current_dir(directory).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn_lasting(command)
            .with_context(|| format!("start {name} through setpriv, which the package util-linux has"))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// Fails, with the end of the log, if the program is not running any more.
    pub(super) fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("look after {}", self.name))? {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended with {}", describe(status)))),
        }
    }

    /// An error about this program that repeats the end of its log.
    pub(super) fn failure(&self, what: &str) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_else(|e| format!("(its log cannot be read: {e})"));
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        anyhow!("{} {what}; its last words:\n{tail}", self.name)
    }

    /// Kills the program as a power cut would, and waits until it is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        // A program that has ended already is not an error for kill().
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for the end of {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(?error, "left to the kernel, which kills it when this process ends");
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Starts a command from a thread that lives as long as this process.
///
/// The kernel's "parent" in the parent-death signal is the thread that forked, so a child started by a worker of a
/// runtime would die with that worker.
fn spawn_lasting(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Whoever ordered waits for the answer, so the other end cannot be gone.
                drop(answer.send(command.spawn()));
            }
        });
        orders
    });
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    let (answer, child) = mpsc::channel();
    STARTER.send((command, answer)).map_err(|_| gone(mpsc::RecvError))?;
    child.recv().map_err(gone)?
}
