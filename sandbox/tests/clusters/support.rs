//! Small helpers of the test: kubectl, waiting, and a clock.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sandbox::{Cluster, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// How long anything may take that comes true by itself: a lost node, 20 s, with room for a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(300);

/// Prints how long each step took.
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn step(&mut self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

/// Runs kubectl with the words of a line and returns what it printed.
/// Something of the machine's that nodes have nothing to do with.
pub(crate) struct ForeignMount(tempfile::TempDir);

impl ForeignMount {
    pub(crate) const NAME: &str = "orlop-foreign-mount";

    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(Self::NAME).tempdir_in("/dev/shm")?;
        let status =
            std::process::Command::new("mount").args(["-t", "tmpfs", Self::NAME]).arg(directory.path()).status()?;
        ensure!(status.success(), "mount ended with {status}");
        Ok(Self(directory))
    }
}

impl Drop for ForeignMount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

pub(crate) async fn kubectl(cluster: &Cluster, line: &str) -> Result<String> {
    kubectl_with(cluster, line, "").await
}

pub(crate) async fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    kubectl_with(cluster, "apply -f -", manifest).await.map(drop)
}

async fn kubectl_with(cluster: &Cluster, line: &str, input: &str) -> Result<String> {
    let mut child = Command::new(cluster.programs_path().await?.join("kubectl"))
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig_path())
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl's input")?;
    stdin.write_all(input.as_bytes()).await.context("write to kubectl")?;
    drop(stdin);
    let output = child.wait_with_output().await.context("wait for kubectl")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", line, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !look().await.with_context(|| what.to_owned())? {
        if start.elapsed() > LIMIT {
            bail!("{what}: not within {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

pub(crate) fn succeeds<T, E>(result: std::result::Result<T, E>) -> bool {
    result.is_ok()
}

pub(crate) async fn ping(from: &Node<'_>, to: Ipv4Addr) -> sandbox::Result<String> {
    from.exec(&["busybox", "ping", "-c", "1", "-W", "1", &to.to_string()]).await
}

pub(crate) async fn node_is(cluster: &Cluster, node: &Node<'_>, ready: &str) -> Result<bool> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    Ok(kubectl(cluster, &format!("get node {node} -o {path}")).await? == ready)
}

pub(crate) async fn pod_on(cluster: &Cluster, app: &str, node: &str) -> Result<String> {
    pod_field(cluster, app, node, "metadata.name").await
}

pub(crate) async fn pod_address(cluster: &Cluster, app: &str, node: &str) -> Result<String> {
    pod_field(cluster, app, node, "status.podIP").await
}

async fn pod_field(cluster: &Cluster, app: &str, node: &str, field: &str) -> Result<String> {
    let path = format!("jsonpath={{.items[?(@.spec.nodeName==\"{node}\")].{field}}}");
    let value = kubectl(cluster, &format!("get pods -l app={app} -o {path}")).await?;
    if value.is_empty() {
        bail!("no pod of {app} is on {node}");
    }
    Ok(value)
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) async fn http_get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
