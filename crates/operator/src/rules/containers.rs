//! The way into a container.

use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::plan::Seen;
use super::script;

/// What the scripts answer at most, with room to spare; a container that says more is not believed.
const MOST_BYTES: u64 = 16 * 1024;

/// A container of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its uid: another pod of that name is not meant.
    pub uid: String,
    /// The container.
    pub container: String,
}

/// What came of running something in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It ran to its end; what it wrote.
    Output(String),
    /// The pod is not there any more, or does not run.
    Gone,
    /// The container cannot run it; why.
    Unable(String),
    /// It is not known whether it ran; why.
    Unknown(String),
}

/// Runs things in containers.
#[async_trait]
pub trait Containers: Send + Sync {
    /// Runs a command in a container, to its end, with nothing to read.
    async fn run(&self, target: &Target, argv: Vec<String>) -> Ran;
}

/// Containers of a cluster.
pub struct OfCluster {
    client: Client,
    timeout: Duration,
}

impl OfCluster {
    /// Those that the API server leads to; one command may take so long.
    #[must_use]
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    async fn exec(&self, target: &Target, argv: Vec<String>) -> Result<Ran, kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &target.namespace);
        let Some(pod) = pods.get_opt(&target.pod).await? else { return Ok(Ran::Gone) };
        let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if pod.metadata.uid.as_ref() != Some(&target.uid) || !runs {
            return Ok(Ran::Gone);
        }
        let params = AttachParams::default().container(&target.container).stdin(false).stdout(true).stderr(true);
        let mut process = pods.exec(&target.pod, argv, &params).await?;
        let (out, err) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let (out, err) = futures::join!(text(out), text(err));
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let said = if err.trim().is_empty() { out.clone() } else { err };
        Ok(match status {
            None => Ran::Unknown("the connection ended before the command".into()),
            Some(status) if status.status.as_deref() == Some("Success") => Ran::Output(out),
            Some(status) => {
                let message = status.message.unwrap_or_default();
                Ran::Unable([message.trim(), said.trim()].join(": ").trim_matches([':', ' ']).to_owned())
            }
        })
    }
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before it broke off is all there is; whether the command ended well is said elsewhere.
        let _ = (&mut stream).take(MOST_BYTES).read_to_end(&mut bytes).await;
        // The rest is read, too: a connection that is not read stands still.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[async_trait]
impl Containers for OfCluster {
    async fn run(&self, target: &Target, argv: Vec<String>) -> Ran {
        match tokio::time::timeout(self.timeout, self.exec(target, argv)).await {
            Ok(Ok(ran)) => ran,
            Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                Ran::Unable(status.message)
            }
            Ok(Err(error)) => Ran::Unknown(error.to_string()),
            Err(_) => Ran::Unknown(format!("there was no answer for {} s", self.timeout.as_secs())),
        }
    }
}

/// Runs one of the scripts, and reads what it tells.
pub(super) async fn ask(containers: &dyn Containers, target: &Target, argv: Vec<String>) -> Seen {
    match containers.run(target, argv).await {
        Ran::Gone => Seen::Gone,
        Ran::Unknown(why) => Seen::Unknown(why),
        Ran::Unable(why) => Seen::Told(script::Told::Unable(why)),
        Ran::Output(output) => match script::read(&output) {
            Some(told) => Seen::Told(told),
            None => {
                let begin: String = output.chars().take(100).collect();
                Seen::Told(script::Told::Unable(format!("its shell does not work as one should; it said {begin:?}")))
            }
        },
    }
}

/// Runs scripts in several containers, a bounded number at a time.
pub(super) async fn ask_all(
    containers: &dyn Containers,
    asks: Vec<(usize, Target, Vec<String>)>,
    at_once: usize,
) -> Vec<(usize, Seen)> {
    let all = asks
        .into_iter()
        .map(|(index, target, argv)| async move { (index, ask(containers, &target, argv).await) }.boxed());
    futures::stream::iter(all).buffer_unordered(at_once.max(1)).collect().await
}
