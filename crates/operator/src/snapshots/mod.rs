//! Snapshots of volumes by whatever CSI driver has them: `snapshot.storage.k8s.io/v1`, which need not be there.
//!
//! The kinds are custom resources of another project, so they are read as what they are on the server, and only the fields that matter here.

mod end;
mod import;

use std::collections::BTreeMap;

use api::RUN_LABEL;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::error::{During, Error};

pub(crate) use end::end;
pub(crate) use import::{Import, import, imported};

/// The annotation of the class that is meant when none is named.
const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind), plural)
}

fn contents(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &kind("VolumeSnapshotContent", "volumesnapshotcontents"))
}

fn snapshots(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind("VolumeSnapshot", "volumesnapshots"))
}

/// A class of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Its name.
    pub name: String,
    /// The CSI driver.
    pub driver: String,
    /// Whether it is the one that is meant when none is named.
    pub is_default: bool,
    /// Whether a snapshot of it goes when its resource goes.
    pub deletes: bool,
}

/// What a snapshot is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The instant that its data is of; there once it is taken.
    pub cut_at: Option<Timestamp>,
    /// Whether volumes can be made from it.
    pub is_ready: bool,
    /// How large a volume made from it has to be, as Kubernetes writes sizes.
    pub restore_size: Option<String>,
    /// What the driver says went wrong. It may try again.
    pub error: Option<String>,
}

/// The classes of the cluster; none where it has no snapshots.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn classes(client: &Client) -> Result<Vec<Class>, Error> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind("VolumeSnapshotClass", "volumesnapshotclasses"));
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.iter().map(class).collect()),
        Err(kube::Error::Api(status)) if is_unknown(&status) => Ok(Vec::new()),
        Err(error) => Err(error).during(|| "list the classes of volume snapshots".into()),
    }
}

/// Whether the server knows no such kind: then it answers with a page, and not with a status of its own.
fn is_unknown(status: &Status) -> bool {
    status.code == 404
}

fn class(object: &DynamicObject) -> Class {
    let text = |field: &str| object.data[field].as_str().unwrap_or_default().to_owned();
    Class {
        name: object.name_any(),
        driver: text("driver"),
        is_default: object.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true"),
        deletes: text("deletionPolicy") == "Delete",
    }
}

/// The class for the volumes of a driver: the one that is named for it, or else the default one, or else the only one. Nothing if there is none that
/// could be meant.
pub(crate) fn choose<'a>(
    classes: &'a [Class],
    driver: &str,
    named: &BTreeMap<String, String>,
) -> Result<Option<&'a Class>, String> {
    if let Some(name) = named.get(driver) {
        let found = classes
            .iter()
            .find(|class| class.name == *name)
            .ok_or_else(|| format!("there is no VolumeSnapshotClass {name}"))?;
        if found.driver != driver {
            return Err(format!("the VolumeSnapshotClass {name} is of the driver {}, not {driver}", found.driver));
        }
        if !found.deletes {
            return Err(format!(
                "the VolumeSnapshotClass {name} keeps its snapshots for ever; name one with deletionPolicy Delete"
            ));
        }
        return Ok(Some(found));
    }
    let fit: Vec<&Class> = classes.iter().filter(|class| class.driver == driver && class.deletes).collect();
    Ok(fit.iter().find(|class| class.is_default).or(if fit.len() == 1 { fit.first() } else { None }).copied())
}

/// The driver of a volume, if it is a CSI volume.
pub(crate) fn driver(volume: &PersistentVolume) -> Option<&str> {
    Some(volume.spec.as_ref()?.csi.as_ref()?.driver.as_str())
}

/// Reads a snapshot.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<Snapshot>, Error> {
    let found = snapshots(client, namespace).get_opt(name).await;
    let found = found.during(|| format!("read the VolumeSnapshot {namespace}/{name}"))?;
    Ok(found.map(|object| snapshot(&object.data["status"])))
}

fn snapshot(status: &Value) -> Snapshot {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    // A time without content is that of somebody who was not done yet.
    let is_taken = status["boundVolumeSnapshotContentName"].is_string();
    Snapshot {
        cut_at: status["creationTime"].as_str().and_then(|time| time.parse().ok()).filter(|_| is_taken),
        is_ready: is_taken && status["readyToUse"] == json!(true),
        restore_size: text(&status["restoreSize"]),
        error: text(&status["error"]["message"]),
    }
}

/// Asks for a snapshot of a claim.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn take(
    client: &Client,
    run_uid: &str,
    namespace: &str,
    name: &str,
    claim: &str,
    class: &str,
) -> Result<(), Error> {
    let manifest = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(run_uid)},
        "spec": {"volumeSnapshotClassName": class, "source": {"persistentVolumeClaimName": claim}},
    });
    create(&snapshots(client, namespace), manifest, || format!("create the VolumeSnapshot {namespace}/{name}")).await
}

/// A claim for a volume made from a snapshot: like the one that the snapshot is of.
pub(crate) fn claim_from(
    run_uid: &str,
    name: &str,
    source: &PersistentVolumeClaim,
    snapshot_name: &str,
    snapshot: &Snapshot,
) -> Result<PersistentVolumeClaim, serde_json::Error> {
    let spec = source.spec.clone().unwrap_or_default();
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": source.namespace(),
            "labels": labels(run_uid),
        },
        "spec": {
            "accessModes": spec.access_modes.filter(|modes| !modes.is_empty()).unwrap_or_else(|| vec!["ReadWriteOnce".into()]),
            "storageClassName": spec.storage_class_name,
            "volumeMode": spec.volume_mode,
            "resources": {"requests": {"storage": size(source, snapshot)}},
            "dataSource": data_source(snapshot_name),
        },
    }))
}

/// The source of a claim's volume that is made from a snapshot.
pub(crate) fn data_source(snapshot: &str) -> Value {
    json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot})
}

/// How large a volume made from the snapshot of a claim is.
pub(crate) fn size(source: &PersistentVolumeClaim, snapshot: &Snapshot) -> String {
    let capacity = source.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage").cloned());
    let requested =
        || source.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage").cloned());
    let size = snapshot.restore_size.clone().filter(|size| !is_zero(size));
    let size = size.or_else(|| capacity.or_else(requested).map(|quantity| quantity.0));
    size.unwrap_or_else(|| "1Gi".into())
}

/// Some drivers do not know the size, and say 0.
fn is_zero(size: &str) -> bool {
    size.trim_start_matches(['0', '.']).chars().all(char::is_alphabetic)
}

fn labels(run_uid: &str) -> Value {
    json!({RUN_LABEL: run_uid, "app.kubernetes.io/managed-by": "orlop"})
}

/// Makes an object. That it exists already is success: names are deterministic.
async fn create(api: &Api<DynamicObject>, manifest: Value, doing: impl Fn() -> String) -> Result<(), Error> {
    let object: DynamicObject = serde_json::from_value(manifest).during(&doing)?;
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).during(doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, driver: &str, is_default: bool, deletes: bool) -> Class {
        Class { name: name.into(), driver: driver.into(), is_default, deletes }
    }

    #[test]
    fn the_class_that_is_meant_is_chosen() {
        let classes = [
            class("fast", "disk", false, true),
            class("slow", "disk", true, true),
            class("kept", "tape", true, false),
            class("only", "block", false, true),
            class("one", "two", false, true),
            class("other", "two", false, true),
        ];
        let check = |driver: &str, named: &[(&str, &str)], expected: Result<Option<&str>, &str>| {
            let named = named.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let chosen = choose(&classes, driver, &named).map(|class| class.map(|class| class.name.as_str()));
            match (&chosen, expected) {
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
                (chosen, expected) => assert_eq!(chosen.as_ref().ok(), expected.as_ref().ok(), "{driver} {chosen:?}"),
            }
        };
        check("disk", &[], Ok(Some("slow")));
        check("disk", &[("disk", "fast")], Ok(Some("fast")));
        check("disk", &[("disk", "only")], Err("of the driver block"));
        check("disk", &[("disk", "gone")], Err("no VolumeSnapshotClass gone"));
        check("tape", &[], Ok(None));
        check("tape", &[("tape", "kept")], Err("deletionPolicy Delete"));
        check("block", &[], Ok(Some("only")));
        check("two", &[], Ok(None));
        check("none", &[], Ok(None));
    }

    #[test]
    fn a_snapshot_is_taken_when_it_has_content_and_a_time() {
        let check = |status: Value, taken: bool, ready: bool| {
            let found = snapshot(&status);
            assert_eq!((found.cut_at.is_some(), found.is_ready), (taken, ready), "{status}");
        };
        let time = "2026-11-26T10:00:00Z";
        check(Value::Null, false, false);
        check(json!({"creationTime": time}), false, false);
        check(json!({"boundVolumeSnapshotContentName": "c", "readyToUse": false}), false, false);
        check(json!({"boundVolumeSnapshotContentName": "c", "creationTime": time, "readyToUse": false}), true, false);
        check(json!({"boundVolumeSnapshotContentName": "c", "creationTime": time, "readyToUse": true}), true, true);
        assert_eq!(snapshot(&json!({"error": {"message": "no space"}})).error.as_deref(), Some("no space"));
    }

    #[test]
    fn a_volume_from_a_snapshot_is_as_large_as_it_has_to_be() {
        let source: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "data", "namespace": "shop"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "disk", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"capacity": {"storage": "2Gi"}},
        }))
        .expect("the test's claim is a claim");
        let check = |size: Option<&str>, expected: &str| {
            let snapshot = Snapshot { restore_size: size.map(Into::into), ..Snapshot::default() };
            let claim = claim_from("u", "c", &source, "s", &snapshot).expect("it is a claim");
            let spec = claim.spec.expect("it has a spec");
            let requests = spec.resources.and_then(|resources| resources.requests).expect("it has a size");
            assert_eq!(requests["storage"].0, expected);
            assert_eq!(spec.data_source.map(|source| source.name).as_deref(), Some("s"));
        };
        check(Some("3Gi"), "3Gi");
        check(Some("0"), "2Gi");
        check(None, "2Gi");
    }
}
