//! What the tests share.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

pub(crate) use skips::require_block_devices as require;

/// A name that no other test, and no other run of this one, has.
pub(crate) fn unique(name: &str) -> String {
    format!("test-{}-{name}", std::process::id())
}

pub(crate) fn output(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).output().unwrap()
}

/// Runs a program that must succeed; what it says.
pub(crate) fn good(program: &str, words: &[&str]) -> String {
    let output = output(program, words);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    said
}

/// A file of so many bytes for a device, in a folder that goes with it.
pub(crate) fn image(folder: &Path, len: u64) -> PathBuf {
    let path = folder.join("image");
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// A folder with a file system on it, which is taken away.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(device: &Path, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        good("mount", &[device.to_str().unwrap(), folder.to_str().unwrap()]);
        Self(folder)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn unmount(self) {
        good("umount", &[self.path()]);
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test has failed; the device may answer with errors.
        output("umount", &["-l", self.path()]);
    }
}

/// Makes a file system on a block device.
pub(crate) fn make(kind: &str, device: &Path) {
    let device = device.to_str().unwrap();
    match kind {
        "ext4" => good("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", device]),
        _ => good("mkfs.xfs", &["-q", "-f", device]),
    };
}

/// Has a file system that is not mounted checked.
pub(crate) fn check(kind: &str, device: &Path) {
    let device = device.to_str().unwrap();
    match kind {
        "ext4" => good("fsck.ext4", &["-f", "-n", device]),
        _ => good("xfs_repair", &["-n", device]),
    };
}

/// A block device without the kernel's cache.
pub(crate) fn direct(device: &Path) -> File {
    const O_DIRECT: i32 = 0o40000;
    File::options().read(true).write(true).custom_flags(O_DIRECT).open(device).unwrap()
}

/// Reads and writes that a loop device has completed.
pub(crate) fn completed(device: &Path) -> u64 {
    let name = device.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
    fields[0] + fields[4]
}

/// The example as a process, which is killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(words: &[&str]) -> Self {
        // Examples lie beside the tests.
        let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/device");
        assert!(program.exists(), "{} is missing: cargo build -p fuse --examples", program.display());
        let mut command = Command::new(program);
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.line()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end by itself.
    pub(crate) fn wait(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A keeper as a process, in a folder.
pub(crate) fn keeper(folder: &Path) -> (Process, String) {
    let socket = folder.join("keeper").to_str().unwrap().to_owned();
    let mut process = Process::start(&["keeper", &socket]);
    assert_eq!(process.line(), "keeps");
    (process, socket)
}

/// A server of a file as a process, and the block device.
pub(crate) fn server(name: &str, file: &Path, socket: &str, how: &str) -> (Process, PathBuf) {
    let mut process = Process::start(&["serve", name, file.to_str().unwrap(), socket, how]);
    let line = process.line();
    let path = line.strip_prefix("attached ").unwrap_or_else(|| panic!("the server said {line:?}"));
    let path = PathBuf::from(path);
    (process, path)
}

/// Clears what a test that fails has left; made first, it goes last, after the servers.
pub(crate) struct Cleared(pub(crate) String);

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = fuse::Host::new(None).detach(&self.0);
    }
}
