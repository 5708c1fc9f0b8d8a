//! Pods as a person with kubectl uses them: run a command, read a log, wait for something.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, ListParams, LogParams};
use kube::{Api, Client};
use tokio::io::AsyncReadExt;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// Waits until `condition` gives something; `what` and the last error are named when it does not in time.
///
/// # Errors
/// The condition did not come true in time.
pub async fn wait_for<T, F>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = tokio::time::Instant::now() + limit;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(e) => format!(": {e:#}"),
        };
        if tokio::time::Instant::now() > end {
            bail!("{what}: not within {} s{last}", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first running and ready pod with these labels.
///
/// # Errors
/// There is none in time.
pub async fn ready_pod(client: &Client, namespace: &str, labels: &str, limit: Duration) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    wait_for(&format!("a ready pod {labels} in {namespace}"), limit, || async {
        let found = pods.list(&ListParams::default().labels(labels)).await?;
        Ok(found.items.into_iter().find(is_ready).and_then(|p| p.metadata.name))
    })
    .await
}

/// It is ready, and is not being deleted.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Runs a command in a pod and gives what it printed.
///
/// # Errors
/// The command could not be run or ended with another status than 0; what it printed as errors is said.
pub async fn run(client: &Client, namespace: &str, pod: &str, command: &[&str]) -> anyhow::Result<String> {
    run_with(AttachParams::default(), client, namespace, pod, command).await
}

/// The same, in a container of several.
///
/// # Errors
/// As of [`run`].
pub async fn run_in(
    container: &str,
    client: &Client,
    namespace: &str,
    pod: &str,
    command: &[&str],
) -> anyhow::Result<String> {
    run_with(AttachParams::default().container(container), client, namespace, pod, command).await
}

async fn run_with(
    params: AttachParams,
    client: &Client,
    namespace: &str,
    pod: &str,
    command: &[&str],
) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = params.stdin(false).stdout(true).stderr(true);
    let mut process = pods
        .exec(pod, command.iter().copied(), &params)
        .await
        .with_context(|| format!("run {} in {pod}", command[0]))?;
    let mut stdout = process.stdout().context("no standard output")?;
    let mut stderr = process.stderr().context("no standard error")?;
    let status = process.take_status().context("no status")?;
    let (mut out, mut err) = (String::new(), String::new());
    let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
    a.and(b).context("read what the command prints")?;
    let status = status.await.context("the connection ended before the command did")?;
    if status.status.as_deref() != Some("Success") {
        bail!("{} in {pod}: {} {}", command.join(" "), status.message.unwrap_or_default(), err.trim());
    }
    Ok(out)
}

/// The log of a pod.
///
/// # Errors
/// The log cannot be read.
pub async fn log(client: &Client, namespace: &str, pod: &str, tail: Option<i64>) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.logs(pod, &LogParams { tail_lines: tail, ..Default::default() })
        .await
        .with_context(|| format!("read the log of {pod}"))
}
