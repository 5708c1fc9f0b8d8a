//! All replicas of a volume, as processes of this machine that speak over the loopback interface.

use super::process::{Peer, make_pool};
use crate::fio::Way;
use crate::medium::{Folder, filled};
use crate::peers::Target;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long replicas may take to become equal.
const PATIENCE: Duration = Duration::from_secs(300);

/// A process, and what it says.
struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Result<(Self, String)> {
        // As the node's own process has it.
        command.env("MALLOC_ARENA_MAX", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a process of a replica")?;
        let lines = BufReader::new(child.stdout.take().context("what it says")?);
        let mut process = Self { child, lines };
        let first = process.heard()?;
        Ok((process, first))
    }

    fn heard(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("a process of a replica has ended with {}", self.child.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        let input = self.child.stdin.as_mut().context("its standard input")?;
        writeln!(input, "{line}")?;
        self.heard()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}

/// One replica beside the first.
struct Other {
    process: Option<Process>,
    peer: Peer,
}

pub(super) struct Set {
    /// Ends before the others do, so that it ends well.
    front: RefCell<Process>,
    others: RefCell<Vec<Other>>,
    uri: String,
    folder: PathBuf,
    bytes: u64,
    tls: Option<PathBuf>,
}

/// What is made of a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) replicas: u64,
    pub(super) bytes: u64,
    /// Bytes of each pool.
    pub(super) pool: u64,
    /// Pools are full of something, so that all of them has its place.
    pub(super) is_filled: bool,
    pub(super) tls: bool,
}

impl Set {
    pub(super) fn start(folder: &Folder, name: &str, plan: Plan) -> Result<Rc<Self>> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let tls = if plan.tls { Some(authority(&folder)?) } else { None };
        for replica in 1..=plan.replicas {
            Self::pool(&folder, replica, plan.pool, plan.is_filled)?;
        }
        let others =
            (2..=plan.replicas).map(|replica| Other::start(&folder, replica, plan.bytes, tls.as_deref(), None));
        let others = others.collect::<Result<Vec<Other>>>()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("front").args(words(&folder, 1, plan.bytes, tls.as_deref()));
        command.arg("--socket").arg(folder.join("socket"));
        for Other { peer, .. } in &others {
            command.arg("--peer").arg(format!("{}={}", peer.replica, peer.address));
        }
        let (front, uri) = Process::start(&mut command)?;
        let (front, others, bytes) = (RefCell::new(front), RefCell::new(others), plan.bytes);
        let set = Rc::new(Self { front, others, uri, folder, bytes, tls });
        set.until_in_sync()?;
        Ok(set)
    }

    fn pool(folder: &Path, replica: u64, bytes: u64, is_filled: bool) -> Result<()> {
        let path = folder.join(format!("pool-{replica}"));
        if is_filled {
            filled(&path, bytes)?;
        } else {
            std::fs::File::create(&path)?.set_len(bytes)?;
        }
        make_pool(&path, replica)
    }

    pub(super) fn way(&self) -> Way {
        Way::Nbd(self.uri.clone())
    }

    pub(super) fn target(self: &Rc<Self>, name: &'static str) -> Target {
        let others = self.others.borrow();
        let others = others.iter().filter_map(|other| Some(other.process.as_ref()?.child.id()));
        let servers = std::iter::once(self.front.borrow().child.id()).chain(others).collect();
        Target::new(name, self.way(), servers, vec![Box::new(self.clone())])
    }

    /// Kills the last replica.
    pub(super) fn kill_last(&self) -> Result<()> {
        let mut others = self.others.borrow_mut();
        let process = others.last_mut().context("there is another replica")?.process.take();
        let mut process = process.context("it runs")?;
        process.child.kill()?;
        Ok(())
    }

    /// Starts it again, where it was.
    pub(super) fn start_last(&self) -> Result<()> {
        let mut others = self.others.borrow_mut();
        let last = others.last_mut().context("there is another replica")?;
        let again = Some(last.peer.clone());
        *last = Other::start(&self.folder, last.peer.replica, self.bytes, self.tls.as_deref(), again)?;
        Ok(())
    }

    /// One more replica, on a node of its own, with a new pool.
    pub(super) fn add(&self, pool: u64) -> Result<()> {
        let mut others = self.others.borrow_mut();
        let replica = others.len() as u64 + 2;
        Self::pool(&self.folder, replica, pool, false)?;
        let other = Other::start(&self.folder, replica, self.bytes, self.tls.as_deref(), None)?;
        let line = format!("add {}={}", other.peer.replica, other.peer.address);
        others.push(other);
        self.front.borrow_mut().ask(&line).map(drop)
    }

    fn members(&self) -> Result<Vec<Value>> {
        let line = self.front.borrow_mut().ask("status")?;
        let status: Value = serde_json::from_str(&line).with_context(|| format!("understand {line}"))?;
        status["members"].as_array().cloned().context("its members")
    }

    /// Waits until the record has as many replicas in sync as are wanted.
    fn until(&self, what: &str, in_sync: impl Fn(usize, usize) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let members = self.members()?;
            let count = members.iter().filter(|member| member["inSync"] == true).count();
            if in_sync(count, members.len()) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{what} after {PATIENCE:?}: {members:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn until_in_sync(&self) -> Result<()> {
        let all = self.others.borrow().len() + 1;
        self.until("not all replicas are in sync", |in_sync, members| in_sync == all && members == all)
    }

    pub(super) fn until_degraded(&self) -> Result<()> {
        self.until("no replica is out of sync", |in_sync, members| in_sync < members)
    }

    /// Bytes that were sent to the last replica since its process was started.
    pub(super) fn sent_to_last(&self) -> Result<u64> {
        let members = self.members()?;
        members.last().and_then(|last| last["sentBytes"].as_u64()).context("what was sent")
    }
}

impl Other {
    fn start(folder: &Path, replica: u64, bytes: u64, tls: Option<&Path>, again: Option<Peer>) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("replica").args(words(folder, replica, bytes, tls));
        if let Some(peer) = again {
            command.arg("--listen").arg(peer.address.to_string());
        }
        let (process, address) = Process::start(&mut command)?;
        let address = address.parse().with_context(|| format!("where it listens: {address}"))?;
        Ok(Self { process: Some(process), peer: Peer { replica, address } })
    }
}

fn words(folder: &Path, replica: u64, bytes: u64, tls: Option<&Path>) -> Vec<String> {
    let pool = folder.join(format!("pool-{replica}")).display().to_string();
    let mut words = vec![pool, format!("--replica={replica}"), format!("--bytes={bytes}")];
    words.extend(tls.map(|folder| format!("--tls={}", folder.display())));
    words
}

/// A folder with a new authority.
fn authority(folder: &Path) -> Result<PathBuf> {
    use cluster::certificates::{CA_CERTIFICATE, CA_KEY, new_authority};
    let folder = folder.join("tls");
    std::fs::create_dir_all(&folder)?;
    let (certificate, key) = new_authority()?;
    std::fs::write(folder.join(CA_CERTIFICATE), certificate)?;
    std::fs::write(folder.join(CA_KEY), key)?;
    Ok(folder)
}
