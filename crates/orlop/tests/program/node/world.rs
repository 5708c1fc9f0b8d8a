//! A node with a pool, in folders that go with it.

use crate::support::{Ran, orlop};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use tempfile::TempDir;

pub(crate) use skips::require_block_devices as require;

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

/// Has Python talk to an export as `h`, and gives what it prints: with Debian's Python, which has the module.
pub(crate) fn nbdsh(uri: &str, script: &str) -> String {
    good("env", &["PATH=/usr/bin:/bin", "nbdsh", "-u", uri, "-c", script])
}

/// A pool, and perhaps a node that has it open.
pub(crate) struct World {
    /// Not in memory, as a pool's folder is on most nodes.
    disk: TempDir,
    /// In memory, as /run is.
    runtime: TempDir,
    size: &'static str,
    listen: Option<u16>,
    /// It is a CSI driver, too.
    is_driver: bool,
    /// More of what it is told.
    more: Vec<String>,
    node: Option<Child>,
}

impl World {
    /// With a pool of so many bytes and no node.
    pub(crate) fn with_pool(size: &'static str) -> Self {
        let runtime = tempfile::tempdir_in("/dev/shm").unwrap();
        let (disk, more) = (tempfile::tempdir().unwrap(), Vec::new());
        let world = Self { disk, runtime, size, listen: None, is_driver: false, more, node: None };
        orlop().args(["store", "format", "--size", size]).arg(world.pool()).assert().success();
        world
    }

    /// With a node that runs.
    pub(crate) fn with_node(size: &'static str) -> Self {
        let mut world = Self::with_pool(size);
        world.start();
        world
    }

    /// With a node that runs, and is told more.
    pub(crate) fn with_node_told(size: &'static str, words: &[&str]) -> Self {
        let mut world = Self::with_pool(size);
        world.more = words.iter().map(|word| (*word).to_owned()).collect();
        world.start();
        world
    }

    /// With a node that runs, and is a CSI driver on `csi.sock` of its folder.
    pub(crate) fn with_driver(size: &'static str) -> Self {
        let mut world = Self::with_pool(size);
        world.is_driver = true;
        world.start();
        world
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.disk.path().join("pool")
    }

    pub(crate) fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.disk.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        for name in ["ORLOP_RUNTIME_DIR", "ORLOP_LISTEN", "CSI_ENDPOINT", "NODE_NAME", "RUST_LOG"] {
            command.env_remove(name);
        }
        let pool = format!("{},size={}", self.pool().display(), self.size);
        command.arg("node").args(["--pool", &pool]).arg("--runtime-dir").arg(self.runtime()).args(&self.more);
        if self.is_driver {
            let endpoint = format!("unix://{}/csi.sock", self.runtime().display());
            command.args(["--csi-endpoint", &endpoint, "--node-name", "here"]);
            command.arg("--kubelet-dir").arg(self.runtime().join("kubelet"));
        }
        command
    }

    /// Starts the node, and waits until it answers. It serves its metrics, too; where is told by [`World::metrics`].
    pub(crate) fn start(&mut self) {
        let mut command = self.command();
        command.args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        // What it says is read to its end, or it would wait for who reads it.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("node: {line}");
                let _told = sender.send(line);
            }
        });
        let mut port = None;
        let served = receiver.iter().find(|line| {
            if let Some((_, after)) = line.split_once("127.0.0.1:") {
                let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
                port = digits.parse().ok();
            }
            line.contains("the control API is served")
        });
        assert!(served.is_some(), "the node ended: {:?}", child.wait());
        (self.node, self.listen) = (Some(child), port);
    }

    /// Starts a second node on the same pool and folder, which must fail; what it says.
    pub(crate) fn start_another(&self) -> Ran {
        self.command().output().unwrap().into()
    }

    /// Starts a node with more arguments, which must fail; what it says.
    pub(crate) fn start_with(&self, words: &[&str]) -> Ran {
        self.command().args(words).output().unwrap().into()
    }

    /// The pool is to have this size when the node starts the next time.
    pub(crate) fn resize(&mut self, size: &'static str) {
        self.size = size;
    }

    /// Ends the node as an upgrade does.
    pub(crate) fn stop(&mut self) {
        let mut child = self.node.take().unwrap();
        good("kill", &["-TERM", &child.id().to_string()]);
        assert!(child.wait().unwrap().success());
    }

    /// Ends the node as a crash does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.node.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the node.
    pub(crate) fn volume(&self, words: &[&str]) -> Ran {
        orlop().args(["volume", "--runtime-dir"]).arg(self.runtime()).args(words).output().unwrap().into()
    }

    /// Asks the pool, which no node has open.
    pub(crate) fn offline(&self, words: &[&str]) -> Ran {
        orlop().args(["volume", "--store"]).arg(self.pool()).args(words).output().unwrap().into()
    }

    /// Attaches something, and tells where.
    pub(crate) fn attach(&self, words: &[&str]) -> String {
        let told = self.volume(&[&["attach"], words, &["-o", "json"]].concat()).json();
        told["place"].as_str().unwrap().to_owned()
    }

    pub(crate) fn show(&self, name: &str) -> Value {
        self.volume(&["show", name, "-o", "json"]).json()
    }

    /// What the node tells Prometheus.
    pub(crate) fn metrics(&self) -> String {
        good("curl", &["-sf", &format!("http://127.0.0.1:{}/metrics", self.listen.unwrap())])
    }

    /// The pool, when no node has it open, is sound.
    pub(crate) fn is_sound(&self) {
        orlop().args(["store", "check", "--read-data"]).arg(self.pool()).assert().success();
    }

    /// The processes that keep devices for this world.
    pub(crate) fn keepers(&self) -> Vec<String> {
        let ours = self.runtime().to_str().unwrap().to_owned();
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let keeps = |process: &String| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            words.get(1).is_some_and(|word| *word == b"keeper") && words.contains(&ours.as_bytes())
        };
        processes.filter(keeps).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in ["target", "staging"] {
            // Of a driver whose test has failed.
            output("umount", &["-l", "-q", self.runtime().join(name).to_str().unwrap()]);
        }
        if self.node.is_some() {
            let names = |words: &[&str]| {
                let listed = self.volume(words).stdout;
                listed.lines().map(str::to_owned).collect::<Vec<_>>()
            };
            let all = [names(&["list", "-o", "name"]), names(&["list", "--snapshots", "-o", "name"])].concat();
            all.iter().for_each(|name| drop(self.volume(&["detach", name])));
        }
        if let Some(mut node) = self.node.take() {
            let _ended = output("kill", &["-TERM", &node.id().to_string()]);
            let _ended = node.wait();
        }
        for keeper in self.keepers() {
            output("kill", &["-TERM", &keeper]);
        }
    }
}

/// A folder with a file system on it, which is taken away.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(device: &str, folder: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        good("mount", &["-o", options, device, folder.to_str().unwrap()]);
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
