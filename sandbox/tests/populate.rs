//! The generator of objects makes what it says, and makes it fast.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;
use sandbox::control_plane::ControlPlane;
use sandbox::{populate, require_assets};

#[tokio::test]
async fn as_many_objects_are_made_as_were_asked_for() {
    const COUNT: usize = 1_500;
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let started = Instant::now();
    let population = populate::objects(&client, COUNT).await.unwrap();
    eprintln!("{COUNT} objects in {:?}: {population:?}", started.elapsed());

    assert_eq!(population.namespaces, ["populated-0", "populated-1"]);
    assert_eq!(population.kinds.values().sum::<usize>(), COUNT);
    assert_eq!(population.kinds.len(), 9);
    let all = ListParams::default();
    let maps = Api::<ConfigMap>::all(client.clone()).list(&all.clone().labels("app")).await.unwrap();
    assert_eq!(maps.items.len(), population.kinds["ConfigMap"]);
    let deployments = Api::<Deployment>::all(client.clone()).list(&all).await.unwrap();
    assert_eq!(deployments.items.len(), population.kinds["Deployment"]);
    let secrets = Api::<Secret>::namespaced(client, "populated-1").list(&all).await.unwrap();
    assert_eq!(secrets.items.len(), 50);
    let sizes: std::collections::BTreeSet<_> =
        secrets.items.iter().map(|secret| secret.data.as_ref().unwrap()["token"].0.len()).collect();
    assert!(sizes.len() > 40, "sizes do not vary: {sizes:?}");
}
