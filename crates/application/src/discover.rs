//! Asking a cluster what kinds it has.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

use crate::{
    catalog::{ApiCatalog, GroupVersion},
    failure::Failure,
    retry::Patience,
};

/// Descriptions asked for at a time. A cluster has some thirty to a hundred; more at once would only meet the server's own limits.
const DESCRIPTIONS_AT_ONCE: usize = 8;

/// Discovers every kind of a cluster, custom ones included.
///
/// A group that cannot be described does not fail the others: it is in [`ApiCatalog::broken`], and a capture lists it as missed.
pub async fn discover(client: &Client, patience: &Patience) -> Result<ApiCatalog, Failure> {
    let core = patience.request(|| async { Ok(client.list_core_api_versions().await?) }).await?;
    let groups = patience.request(|| async { Ok(client.list_api_groups().await?) }).await?;
    let core = core.versions.into_iter().map(|version| (String::new(), version, true));
    let grouped = groups.groups.into_iter().flat_map(|group| {
        let preferred = group.preferred_version.map(|preferred| preferred.version);
        group.versions.into_iter().map(move |served| {
            let is_preferred = preferred.as_deref() == Some(served.version.as_str());
            (group.name.clone(), served.version, is_preferred)
        })
    });
    let wanted: Vec<_> = core.chain(grouped).collect();
    let discovered = stream::iter(wanted)
        .map(|(group, version, preferred)| async move {
            let resources = match patience.request(|| describe(client, &group, &version)).await {
                Ok(list) => Ok(list),
                Err(failure) if failure.was_answered() => Err(failure.reason),
                Err(failure) => return Err(failure),
            };
            Ok(GroupVersion { group, version, preferred, resources })
        })
        .buffered(DESCRIPTIONS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(ApiCatalog::build(discovered))
}

async fn describe(client: &Client, group: &str, version: &str) -> Result<APIResourceList, Failure> {
    Ok(if group.is_empty() {
        client.list_core_api_resources(version).await?
    } else {
        client.list_api_group_resources(&format!("{group}/{version}")).await?
    })
}
