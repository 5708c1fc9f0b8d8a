//! What there is to know of a cluster: asked once, and judged without asking again.

use std::fmt::Debug;
use std::time::Duration;

use api::{StorageNode, Volume};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Endpoints, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::clocks::{self, Clocks};
use crate::error::Error;
use crate::verbs;

/// The namespace of the pods of the control plane, where it runs in pods.
const CONTROL_PLANE: &str = "kube-system";

/// Something that was asked for, or why it is not known.
pub(crate) type Known<T> = Result<T, String>;

/// Everything that is judged.
#[derive(Debug)]
pub(crate) struct Facts {
    /// As the server says it: `v1.20.2`.
    pub(crate) version: Known<String>,
    pub(crate) crds: Known<Vec<CustomResourceDefinition>>,
    /// Whether the server knows how much room nodes have for volumes, in the version that the scheduler reads.
    pub(crate) knows_capacity: Known<bool>,
    pub(crate) nodes: Known<Vec<Node>>,
    pub(crate) csi_nodes: Known<Vec<CSINode>>,
    /// Those of the control plane's namespace.
    pub(crate) pods: Known<Vec<Pod>>,
    /// Those of the nodes' daemons and their keepers.
    pub(crate) daemons: Known<Vec<Pod>>,
    /// Where the API server says that it is.
    pub(crate) api_servers: Known<Option<Endpoints>>,
    pub(crate) deployments: Known<Vec<Deployment>>,
    pub(crate) stateful_sets: Known<Vec<StatefulSet>>,
    pub(crate) daemon_sets: Known<Vec<DaemonSet>>,
    pub(crate) classes: Known<Vec<StorageClass>>,
    /// The drivers that have a class of snapshots; none if the kind is not known.
    pub(crate) snapshot_drivers: Known<Option<Vec<String>>>,
    pub(crate) persistent_volumes: Known<Vec<PersistentVolume>>,
    /// None if the kind is not known.
    pub(crate) volumes: Known<Option<Vec<Volume>>>,
    pub(crate) storage_nodes: Known<Option<Vec<StorageNode>>>,
    pub(crate) clocks: Clocks,
}

/// Asks for everything. What is not answered is not known; nothing else fails for it.
pub(crate) async fn gather(client: &Client, listen: Duration) -> Facts {
    let (clocks, facts) = tokio::join!(clocks::listen(client, listen), ask(client));
    Facts { clocks, ..facts }
}

async fn ask(client: &Client) -> Facts {
    let cluster = || client.clone();
    let endpoints: Api<Endpoints> = Api::namespaced(cluster(), "default");
    Facts {
        version: client.apiserver_version().await.map(|info| info.git_version).map_err(why),
        crds: all(Api::all(cluster())).await,
        knows_capacity: knows_capacity(client).await,
        nodes: all(Api::all(cluster())).await,
        csi_nodes: all(Api::all(cluster())).await,
        pods: all(Api::namespaced(cluster(), CONTROL_PLANE)).await,
        daemons: all(Api::namespaced(cluster(), api::STORAGE_NAMESPACE)).await,
        api_servers: endpoints.get_opt("kubernetes").await.map_err(why),
        deployments: all(Api::all(cluster())).await,
        stateful_sets: all(Api::all(cluster())).await,
        daemon_sets: all(Api::namespaced(cluster(), api::STORAGE_NAMESPACE)).await,
        classes: all(Api::all(cluster())).await,
        snapshot_drivers: snapshot_drivers(client).await,
        persistent_volumes: all(Api::all(cluster())).await,
        volumes: all_if_known(Api::all(cluster())).await,
        storage_nodes: all_if_known(Api::all(cluster())).await,
        clocks: Clocks::default(),
    }
}

async fn all<K>(api: Api<K>) -> Known<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    verbs::pages(&api).await.map_err(why)
}

/// The same for a kind that a server need not know.
async fn all_if_known<K>(api: Api<K>) -> Known<Option<Vec<K>>>
where
    K: Clone + Debug + DeserializeOwned,
{
    match verbs::pages(&api).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        found => found.map(Some).map_err(why),
    }
}

async fn knows_capacity(client: &Client) -> Known<bool> {
    let served = client.list_api_group_resources("storage.k8s.io/v1").await.map_err(why)?;
    Ok(served.resources.iter().any(|resource| resource.name == "csistoragecapacities"))
}

async fn snapshot_drivers(client: &Client) -> Known<Option<Vec<String>>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass"));
    let found = all_if_known(Api::<DynamicObject>::all_with(client.clone(), &kind)).await?;
    let driver = |class: &DynamicObject| class.data["driver"].as_str().map(str::to_owned);
    Ok(found.map(|classes| classes.iter().filter_map(driver).collect()))
}

/// Why something is not known, in the words of the server.
fn why(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => Error::new("ask").because(other).to_string(),
    }
}
