//! Processes that outlive the program that started them.
//!
//! A process is known by its number *and* its start time, because numbers are used again: a process that merely got the
//! number of a dead one is never taken for it, and nothing is ever ended by name.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::files;
use crate::wait;

/// How often a process that should end, or appear, is looked at: well below what a person notices.
const LOOK: Duration = Duration::from_millis(10);
/// How long a killed process may take to go: the kernel may have to finish its input and output first.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(30);

/// A process that was there once; see the head of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    pid: i32,
    /// In clock ticks since the machine's start, as `/proc/PID/stat` has it.
    start_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = Stat::read(Path::new(&format!("/proc/{pid}/stat")))?;
        Some(Self { pid, start_ticks: stat.start_ticks })
    }

    /// This process, by the number that the mounted `/proc` knows it by, also when that is of an outer namespace.
    pub(crate) fn own() -> Result<Self> {
        let link = Path::new("/proc/self");
        let name = std::fs::read_link(link).map_err(Error::file("read", link))?;
        name.to_str()
            .and_then(|text| text.parse().ok())
            .and_then(Self::of)
            .ok_or_else(|| Error::input("/proc/self does not name this process"))
    }

    /// The process that a file tells of, if it still runs.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        Ok(text.parse().ok().filter(Self::runs))
    }

    pub fn save(self, path: &Path) -> Result<()> {
        files::write(path, format!("{self}\n"), files::PUBLIC)
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// A zombie does not run: it waits for its parent only.
    pub fn runs(&self) -> bool {
        Stat::read(Path::new(&format!("/proc/{}/stat", self.pid)))
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && stat.state != 'Z')
    }

    /// Sends a signal; one that is gone already is none to complain about.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        let failed = |source: rustix::io::Errno| Error::Command {
            command: format!("signal {signal:?} to process {}", self.pid),
            status: "an error".into(),
            output: source.to_string(),
        };
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // The handle pins the number, so that the check after it holds until the signal is sent.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !self.runs() {
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Sends a signal and waits until the process is gone.
    pub async fn end(self, signal: Signal, limit: Duration) -> Result<()> {
        self.signal(signal)?;
        wait::until(&format!("the end of process {}", self.pid), limit, LOOK, async || Ok((!self.runs()).then_some(())))
            .await
    }

    /// Its only child, once it has one; none when it ended without.
    pub(crate) async fn child(self, limit: Duration) -> Result<Option<Self>> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        wait::until(&format!("a child of process {}", self.pid), limit, LOOK, async || {
            if !self.runs() {
                return Ok(Some(None));
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let child = text.split_whitespace().next().and_then(|p| p.parse().ok());
            Ok(child.and_then(Self::of).map(Some))
        })
        .await
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start_ticks)
    }
}

impl FromStr for ProcessId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::input(format!("not a process number and a start time: {text:?}"));
        let (pid, start) = text.trim().split_once(' ').ok_or_else(wrong)?;
        Ok(Self { pid: pid.parse().map_err(|_| wrong())?, start_ticks: start.parse().map_err(|_| wrong())? })
    }
}

/// The two fields of `/proc/PID/stat` that are of use here.
struct Stat {
    state: char,
    start_ticks: u64,
}

impl Stat {
    fn read(path: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// The program's name is in parentheses and may hold anything, parentheses too: fields are counted after the last.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { state, start_ticks })
    }
}

/// Starts a program that goes on when this one ends: in a session of its own, its output in a log.
pub(crate) fn background(program: impl AsRef<OsStr>, log: &Path) -> Result<Command> {
    let open = || std::fs::OpenOptions::new().append(true).create(true).open(log).map_err(Error::file("open", log));
    // setsid(1) replaces itself by the program, as it leads no process group when it is started so: the number stays.
    let mut command = Command::new("setsid");
    command.arg(program).stdin(Stdio::null()).stdout(open()?).stderr(open()?).current_dir("/").env_remove("KUBECONFIG");
    Ok(command)
}

pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|source| Error::Command {
        command: line(command),
        status: "an error".into(),
        output: source.to_string(),
    })
}

/// Runs a program to its end and returns what it printed; `input` is what it reads.
pub(crate) async fn run(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let command_line = line(command);
    let failed = |source: io::Error| Error::Command {
        command: command_line.clone(),
        status: "an error".into(),
        output: source.to_string(),
    };
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It may end without having read all; then its status says more than this would.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = format!("{}{text}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Command {
        command: command_line.clone(),
        status: output.status.to_string(),
        output: said.trim().to_owned(),
    })
}

fn line(command: &Command) -> String {
    let command = command.as_std();
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_confuse() {
        let text = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        let stat = Stat::parse(text).expect("a valid line");
        assert_eq!((stat.state, stat.start_ticks), ('S', 4711));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let own = ProcessId::own().expect("this process runs");
        assert!(own.runs());
        let older = ProcessId { start_ticks: own.start_ticks - 1, ..own };
        assert!(!older.runs());
    }

    #[tokio::test]
    async fn a_process_is_ended_and_waited_for() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let id = ProcessId::of(child.id().expect("it runs")).expect("it runs");
        assert_eq!(id.to_string().parse::<ProcessId>().expect("its own form"), id);
        id.end(Signal::KILL, KILL_LIMIT).await.expect("it ends");
        assert!(!id.runs());
        assert!(!child.wait().await.expect("a status").success());
    }

    #[tokio::test]
    async fn a_failing_command_says_what_it_printed() {
        let error = run(Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]), "in")
            .await
            .expect_err("it fails")
            .to_string();
        assert!(error.contains("exit status: 3: no\nin"), "{error}");
    }
}
