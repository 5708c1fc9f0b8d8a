//! Plays the containers: a command runs in a shell of this machine, for pods that the API server says are running.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use operator::rules::{Containers, Ran, Target};
use serde_json::json;

use super::{World, until};

/// Shells of this machine in the place of containers.
pub struct Shells {
    client: Client,
    /// Nothing gets through while this is set.
    pub is_cut: AtomicBool,
}

impl Shells {
    pub fn new(client: Client) -> Self {
        Self { client, is_cut: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Containers for Shells {
    async fn run(&self, target: &Target, argv: Vec<String>) -> Ran {
        if self.is_cut.load(Ordering::Relaxed) {
            return Ran::Unknown("the test has cut the way".into());
        }
        let pod = Api::<Pod>::namespaced(self.client.clone(), &target.namespace).get_opt(&target.pod).await;
        let phase = match pod {
            Ok(pod) => pod.and_then(|pod| pod.status?.phase),
            Err(error) => return Ran::Unknown(error.to_string()),
        };
        if phase.as_deref() != Some("Running") {
            return Ran::Gone;
        }
        let output = tokio::process::Command::new(&argv[0])
            .args(&argv[1..])
            .env("POD", &target.pod)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        Ran::Output(String::from_utf8(output.stdout).unwrap())
    }
}

impl World {
    /// A pod of an application that runs, as far as the API server knows.
    pub async fn running_pod(&self, namespace: &str, name: &str, app: &str) {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"nodeName": super::kubelet::NODE, "containers": [{"name": "db", "image": "db:1"}, {"name": "side", "image": "s:1"}]},
        });
        let (pods, pod): (Api<Pod>, Pod) = (self.api(namespace), super::parse(pod));
        // In a namespace that was made a moment ago, older servers wait for a token of its account.
        until("the pod to be taken", || async { pods.create(&PostParams::default(), &pod).await.ok() }).await;
        let status = json!({"status": {"phase": "Running"}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
}
