//! Removes from given clusters what the scenarios made there; Orlop itself stays.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Secret};
use kube::api::DeleteParams;
use kube::{Api, Client};

use crate::environment::Environment;
use crate::{demo, pods, shop};

/// For a namespace with running pods to be gone.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) async fn given(environment: &Environment) -> anyhow::Result<()> {
    for site in [&environment.east, &environment.west] {
        one(&site.client).await.with_context(|| format!("tidy up in {}", site.name))?;
    }
    Ok(())
}

async fn one(client: &Client) -> anyhow::Result<()> {
    let admin = api::ADMIN_NAMESPACE;
    delete(Api::<api::ApplicationRestore>::namespaced(client.clone(), admin), demo::RESTORE).await?;
    delete(Api::<api::ApplicationBackup>::namespaced(client.clone(), admin), demo::BACKUP).await?;
    delete(Api::<api::BackupLocation>::namespaced(client.clone(), admin), demo::LOCATION).await?;
    delete(Api::<Secret>::namespaced(client.clone(), admin), &format!("orlop-location-{}", demo::LOCATION)).await?;
    for namespace in [shop::NAMESPACE, demo::RESTORED, "files"] {
        delete(Api::<Namespace>::all(client.clone()), namespace).await?;
    }
    delete(Api::<PersistentVolume>::all(client.clone()), "broken").await
}

/// Deletes an object, if it is there, and waits until it is gone.
async fn delete<K>(api: Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        deleted => drop(deleted.with_context(|| format!("delete {name}"))?),
    }
    pods::wait_for(&format!("the end of {name}"), LIMIT, || async {
        Ok(api.get_opt(name).await?.is_none().then_some(()))
    })
    .await
}
