//! The others: servers, loop devices and file systems, each of which ends with its guard.

use crate::fio::Way;
use crate::medium::{Folder, filled};
use anyhow::{Context, Result, bail};
use std::any::Any;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that fio can be pointed at.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// The processes that serve it, if some do.
    servers: Vec<u32>,
    /// What serves it. Dropped in this order.
    _held: Vec<Box<dyn Any>>,
}

impl Target {
    pub(crate) fn new(name: &'static str, way: Way, servers: Vec<u32>, held: Vec<Box<dyn Any>>) -> Self {
        Self { name, way, servers, _held: held }
    }

    /// Seconds of processor time that its servers have had; none if there are none.
    pub(crate) fn processor(&self) -> Option<f64> {
        let times = self.servers.iter().map(|server| Self::processor_of(*server));
        if self.servers.is_empty() { None } else { times.sum() }
    }

    fn processor_of(server: u32) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).ok()?;
        // Behind the name, which may have anything in it: the 12th and 13th are hundredths in the program and in the kernel for it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let hundredths = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some((hundredths(11)? + hundredths(12)?) / 100.0)
    }
}

/// Another server.
pub(crate) struct Server(Child);

impl Server {
    fn start(mut command: Command, mut serves: impl FnMut() -> bool) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self(spawned.with_context(|| format!("start {name}"))?);
        let begun = Instant::now();
        while !serves() {
            if let Some(status) = server.0.try_wait()? {
                bail!("{name} has ended with {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name} does not serve after {PATIENCE:?}");
            }
            std::thread::yield_now();
        }
        Ok(server)
    }

    /// One that listens on a socket, which the command does not know yet.
    fn on_socket(command: Command, socket: &Path) -> Result<Self> {
        Self::start(command, || std::os::unix::net::UnixStream::connect(socket).is_ok())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // By name it would be others, too.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Runs a tool to its end; gives what it says.
fn tool(program: &str, words: &[&OsStr]) -> Result<String> {
    let output = Command::new(program).args(words).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device without the system's cache.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Result<Self> {
        let words = ["--find", "--show", "--direct-io=on", "-b", "4096"].map(OsStr::new);
        tool("losetup", &[&words[..], &[file.as_os_str()]].concat()).map(|path| Self(path.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = tool("losetup", &[OsStr::new("-d"), self.0.as_os_str()]);
    }
}

/// A file system that is mounted.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _gone = tool("umount", &[OsStr::new("-l"), self.0.as_os_str()]);
    }
}

fn nbd(socket: &Path) -> Way {
    Way::Nbd(format!("nbd+unix:///?socket={}", socket.display()))
}

pub(crate) fn nbdkit(folder: &Folder, file: &Path) -> Result<Target> {
    let socket = folder.join("nbdkit.sock");
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-U"]).arg(&socket).arg("file").arg(file);
    let server = Server::on_socket(command, &socket)?;
    Ok(Target::new("nbdkit file", nbd(&socket), vec![server.0.id()], vec![Box::new(server)]))
}

pub(crate) fn qemu_nbd(folder: &Folder, name: &'static str, format: &str, file: &Path) -> Result<Target> {
    let socket = folder.join(&format!("{format}.sock"));
    let mut command = Command::new("qemu-nbd");
    command.args(["-t", "-e", "8", "--cache=none", "--aio=threads", "--discard=unmap", "-f", format, "-k"]);
    command.arg(&socket).arg(file);
    let server = Server::on_socket(command, &socket)?;
    Ok(Target::new(name, nbd(&socket), vec![server.0.id()], vec![Box::new(server)]))
}

/// A file in qcow2's format, with the usual clusters of 64 KiB.
pub(crate) fn qcow2(folder: &Folder, bytes: u64) -> Result<PathBuf> {
    let path = folder.join("qcow2");
    let size = bytes.to_string();
    tool(
        "qemu-img",
        &["create", "-q", "-f", "qcow2"]
            .map(OsStr::new)
            .into_iter()
            .chain([path.as_os_str(), OsStr::new(&size)])
            .collect::<Vec<_>>(),
    )?;
    Ok(path)
}

/// A snapshot within a file that nobody has open.
pub(crate) fn qcow2_snapshot(file: &Path, name: &str) -> Result<()> {
    tool("qemu-img", &[OsStr::new("snapshot"), OsStr::new("-c"), OsStr::new(name), file.as_os_str()]).map(|_| ())
}

/// QEMU's daemon, which exports a file over another by FUSE, behind a loop device.
pub(crate) fn qemu_fuse(folder: &Folder, file: &Path) -> Result<Target> {
    let over = folder.join("export");
    std::fs::write(&over, "")?;
    let block = format!("driver=file,node-name=f,filename={},cache.direct=on,aio=threads", file.display());
    let export = format!("type=fuse,id=e,node-name=r,mountpoint={},writable=on", over.display());
    let mut command = Command::new("qemu-storage-daemon");
    command.args(["--blockdev", &block, "--blockdev", "driver=raw,node-name=r,file=f", "--export", &export]);
    let server = Server::start(command, || std::fs::metadata(&over).is_ok_and(|metadata| metadata.len() > 0))?;
    let mount = Mount(over.clone());
    let device = Loop::new(&over)?;
    let way = Way::Path(device.0.display().to_string());
    let pids = vec![server.0.id()];
    Ok(Target::new(
        "qemu-storage-daemon, FUSE + loop",
        way,
        pids,
        vec![Box::new(device), Box::new(mount), Box::new(server)],
    ))
}

pub(crate) fn plain_loop(file: &Path) -> Result<Target> {
    let device = Loop::new(file)?;
    Ok(Target::new("loop", Way::Path(device.0.display().to_string()), Vec::new(), vec![Box::new(device)]))
}

/// A file in a file system on a loop device.
pub(crate) fn file_system(folder: &Folder, name: &'static str, kind: &str, bytes: u64) -> Result<Target> {
    let image = folder.join(&format!("{kind}.image"));
    // Neither works with less, and one that writes elsewhere needs room for that.
    filled(&image, 2 * bytes + (512 << 20))?;
    let device = Loop::new(&image)?;
    tool(&format!("mkfs.{kind}"), &[OsStr::new("-f"), OsStr::new("-q"), device.0.as_os_str()])?;
    let point = folder.join(kind);
    std::fs::create_dir_all(&point)?;
    tool("mount", &[OsStr::new("-t"), OsStr::new(kind), device.0.as_os_str(), point.as_os_str()])?;
    let mount = Mount(point.clone());
    let way = Way::Path(point.join("file").display().to_string());
    Ok(Target::new(name, way, Vec::new(), vec![Box::new(mount), Box::new(device)]))
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A server that listens on a port, which the command does not know yet.
fn on_port(mut command: Command) -> Result<(Server, u16)> {
    let port = free_port()?;
    command.arg("-p").arg(port.to_string());
    let server = Server::start(command, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    Ok((server, port))
}

/// QEMU's daemon, which writes to all files and reads from the first; the others are served over the network.
pub(crate) fn quorum(folder: &Folder, name: &'static str, files: &[PathBuf; 3]) -> Result<Target> {
    let socket = folder.join("quorum.sock");
    let [here, others @ ..] = files;
    let mut blocks = vec![format!("driver=file,node-name=c0,filename={},cache.direct=on,aio=threads", here.display())];
    let mut servers = Vec::new();
    for (at, file) in (1..).zip(others) {
        let mut command = Command::new("qemu-nbd");
        command.args(["-t", "-e", "8", "-b", "127.0.0.1", "--cache=none", "--aio=threads", "-f", "raw"]).arg(file);
        let (server, port) = on_port(command)?;
        let place = format!("server.type=inet,server.host=127.0.0.1,server.port={port}");
        blocks.push(format!("driver=nbd,node-name=c{at},{place}"));
        servers.push(server);
    }
    let children = "children.0=c0,children.1=c1,children.2=c2";
    blocks.push(format!("driver=quorum,node-name=q,vote-threshold=3,read-pattern=fifo,{children}"));
    let mut command = Command::new("qemu-storage-daemon");
    command.args(blocks.iter().flat_map(|block| ["--blockdev", block]));
    command.arg("--nbd-server").arg(format!("addr.type=unix,addr.path={}", socket.display()));
    command.args(["--export", "type=nbd,id=e,node-name=q,name=q,writable=on"]);
    let front = Server::on_socket(command, &socket)?;
    let pids = std::iter::once(&front).chain(&servers).map(|server| server.0.id()).collect();
    let way = Way::Nbd(format!("nbd+unix:///q?socket={}", socket.display()));
    Ok(Target::new(name, way, pids, vec![Box::new(front), Box::new(servers)]))
}

/// Copies a full file over the network to another, with nothing else to do; gives bytes per second.
pub(crate) fn copy(folder: &Folder, bytes: u64) -> Result<f64> {
    let [from, to] = ["copy-from", "copy-to"].map(|name| folder.join(name));
    filled(&from, bytes)?;
    std::fs::File::create(&to)?.set_len(bytes)?;
    let serve = |file: &Path| {
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-i", "127.0.0.1", "file"]).arg(file);
        on_port(command)
    };
    let ((_from, source), (_to, target)) = (serve(&from)?, serve(&to)?);
    let place = |port| format!("nbd://127.0.0.1:{port}");
    let begun = Instant::now();
    tool("nbdcopy", &[OsStr::new("--flush"), OsStr::new(&place(source)), OsStr::new(&place(target))])?;
    let took = begun.elapsed();
    std::fs::remove_file(&from)?;
    std::fs::remove_file(&to)?;
    Ok(bytes as f64 / took.as_secs_f64())
}
