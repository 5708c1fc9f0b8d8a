//! The end of what runs made of snapshots.

use std::collections::BTreeSet;

use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};

use super::{contents, is_unknown, kind, snapshots};
use crate::error::{During, Error};

/// Asks for the end of all snapshots of runs that are not spared, and says which are still there. One that was made known in another namespace goes first, then what
/// made it known there: a driver never has a snapshot deleted that somebody still sees.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn end(
    client: &Client,
    selector: &str,
    spares: impl Fn(&DynamicObject) -> bool,
) -> Result<Vec<String>, Error> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind("VolumeSnapshot", "volumesnapshots"));
    let is_import = |object: &DynamicObject| object.data["spec"]["source"]["volumeSnapshotContentName"].is_string();
    let found = labelled(&all, "VolumeSnapshots", selector, &spares).await?;
    let (imports, taken): (Vec<_>, Vec<_>) = found.into_iter().partition(is_import);
    let contents = labelled(&contents(client), "VolumeSnapshotContents", selector, &spares).await?;
    // What belongs together has one name. Somebody who holds one of them holds up none of the others.
    let mut left = Vec::new();
    let mut names = BTreeSet::new();
    for group in [imports, contents, taken] {
        let goes = group.into_iter().filter(|object| !names.contains(&object.name_any())).collect();
        let stays: Vec<Still> = remove(client, goes).await?;
        names.extend(stays.iter().map(|still| still.name.clone()));
        left.extend(stays.into_iter().map(|still| still.title));
    }
    Ok(left)
}

/// What is still there.
struct Still {
    name: String,
    title: String,
}

async fn labelled(
    api: &Api<DynamicObject>,
    what: &str,
    selector: &str,
    spares: impl Fn(&DynamicObject) -> bool,
) -> Result<Vec<DynamicObject>, Error> {
    match api.list(&ListParams::default().labels(selector)).await {
        Ok(list) => Ok(list.items.into_iter().filter(|object| !spares(object)).collect()),
        Err(kube::Error::Api(status)) if is_unknown(&status) => Ok(Vec::new()),
        Err(error) => Err(error).during(|| format!("list the {what} with the label {selector}")),
    }
}

/// Asks for the end of snapshots, or contents; those that are still there.
async fn remove(client: &Client, found: Vec<DynamicObject>) -> Result<Vec<Still>, Error> {
    let mut left = Vec::new();
    for object in found {
        let name = object.name_any();
        let (api, title) = match object.namespace() {
            Some(namespace) => (snapshots(client, &namespace), format!("VolumeSnapshot {namespace}/{name}")),
            None => (contents(client), format!("VolumeSnapshotContent {name}")),
        };
        if object.metadata.deletion_timestamp.is_none() {
            match api.delete(&name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => continue,
                other => drop(other.during(|| format!("delete the {title}"))?),
            }
        }
        let now = api.get_opt(&name).await.during(|| format!("read the {title}"))?;
        if now.is_some_and(|now| now.uid() == object.uid()) {
            left.push(Still { name, title });
        }
    }
    Ok(left)
}
