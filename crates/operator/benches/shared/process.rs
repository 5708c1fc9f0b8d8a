//! The operator as a process of its own, so that its peak of memory is its own: a bench starts itself again.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use operator::{Limits, OperatorConfig};

use crate::support::{self, ADMIN, Folders, World};

/// First argument of the process that is the operator; the kubeconfig and the folder of the buckets follow.
const OPERATOR: &str = "operator";

/// Measures, or is the operator with these limits.
pub fn main<F: Future<Output = Result<()>>>(limits: Limits, measure: impl FnOnce() -> F) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [OPERATOR, kubeconfig, buckets] => runtime.block_on(operate(kubeconfig.as_ref(), buckets.as_ref(), limits)),
        // A test runner asks what there is: nothing that it should run.
        ["--list", ..] => Ok(()),
        _ => runtime.block_on(measure()),
    }
}

/// Starts the operator.
pub fn start(world: &World) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg(OPERATOR)
        .arg(world.plane.kubeconfig_path())
        .arg(world.buckets())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the operator")
}

/// Ends the operator; gives the most memory that it has had, in KiB.
pub fn end(mut operator: Child) -> Result<u64> {
    drop(operator.stdin.take());
    let output = operator.wait_with_output().context("wait for the operator")?;
    ensure!(output.status.success(), "the operator ended with {}", output.status);
    String::from_utf8(output.stdout)?.trim().parse().context("read the operator's peak")
}

/// The operator, until its standard input ends; then it tells its peak.
async fn operate(kubeconfig: &Path, buckets: &Path, limits: Limits) -> Result<()> {
    sandbox::control_plane::install_crypto_provider();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?;
    let containers = Arc::new(operator::rules::OfCluster::new(client.clone(), limits.hooks.exec_timeout));
    let config = OperatorConfig {
        companions: Vec::new(),
        namespace: ADMIN.into(),
        identity: "operator-1".into(),
        image: "orlop:bench".into(),
        pull_secrets: Vec::new(),
        listen: ([127, 0, 0, 1], 0).into(),
        leader_election: true,
        limits,
        stores: Arc::new(Folders(buckets.to_owned())),
        containers,
    };
    let operator = support::start(client, config);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    operator.stop().await;
    writeln!(std::io::stdout(), "{}", peak_kib()?)?;
    Ok(())
}

/// The most memory that this process has had, as the kernel counts it, in KiB.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells no VmHWM")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("read VmHWM")
}
