//! An API server with the kind of records.

use super::{PATIENCE, patient};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, CustomResourceExt};
use records::kubernetes::KubernetesRecords;
use sandbox::control_plane::ControlPlane;
use std::time::{Duration, Instant};

/// A control plane; it ends with this.
pub(crate) struct Plane(pub(crate) ControlPlane);

pub(crate) fn records_of(config: Config) -> KubernetesRecords {
    KubernetesRecords::new(config, patient()).unwrap()
}

/// Records behind what a kubeconfig names.
pub(crate) async fn records_at(kubeconfig: &Kubeconfig) -> KubernetesRecords {
    records_of(Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await.unwrap())
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let plane = Self::without_kinds().await;
        plane.install().await;
        plane
    }

    pub(crate) async fn without_kinds() -> Self {
        Self(ControlPlane::start().await.unwrap())
    }

    /// Installs the kind, and waits until it is served.
    pub(crate) async fn install(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client());
        definitions.create(&PostParams::default(), &api::VolumeRecord::crd()).await.unwrap();
        let objects: Api<api::VolumeRecord> = Api::all(self.client());
        let end = Instant::now() + PATIENCE;
        while objects.list(&kube::api::ListParams::default()).await.is_err() {
            assert!(Instant::now() < end, "the kind is not served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.0.client()
    }

    pub(crate) async fn config(&self) -> Config {
        Config::from_custom_kubeconfig(self.0.kubeconfig().clone(), &KubeConfigOptions::default()).await.unwrap()
    }

    pub(crate) async fn records(&self) -> KubernetesRecords {
        records_of(self.config().await)
    }
}
