//! The Kubernetes API as a record store, while nothing goes wrong.

use crate::support::kubernetes::{Plane, records_of};
use crate::support::{VOLUME, record};
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use records::form;
use records::kubernetes::KubernetesRecords;
use replication::record::Record;
use replication::record::store::{RecordStore, StoreError, SwapError, Version, Versioned, Watch};
use replication::testing;
use replication::units::VolumeId;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};

/// The suite asks for a store without the volumes 1 to 9 each time; here each of its parts has volumes of its own.
struct Part {
    records: KubernetesRecords,
    part: u32,
}

impl Part {
    fn volume(&self, volume: VolumeId) -> VolumeId {
        VolumeId((u128::from(self.part) << 64) | volume.0)
    }
}

impl RecordStore for Part {
    type Watch = <KubernetesRecords as RecordStore>::Watch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        self.records.get(self.volume(volume)).await
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        self.records.swap(self.volume(volume), expected, record).await
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        self.records.remove(self.volume(volume), expected).await
    }

    async fn watch(&self, volume: VolumeId) -> Result<Self::Watch, StoreError> {
        self.records.watch(self.volume(volume)).await
    }
}

#[tokio::test]
async fn the_api_passes_the_suite_of_record_stores() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let records = plane.records().await;
    let part = AtomicU32::new(0);
    let fresh = || Part { records: records.clone(), part: part.fetch_add(1, Ordering::Relaxed) };
    testing::record_store(fresh).await.unwrap_or_else(|what| panic!("{what}"));
    assert!(part.into_inner() >= 9);
}

#[tokio::test]
async fn a_record_is_an_object_with_columns_for_people() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    plane.records().await.swap(VOLUME, None, record(7)).await.unwrap();
    let path = "/apis/orlop.io/v1alpha1/volumerecords";
    let request =
        http::Request::get(path).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").body(vec![]);
    let table: Value = plane.client().request(request.unwrap()).await.unwrap();
    let names: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Attached", "In Sync", "Members", "Epoch", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..5], [json!("0000000000000000000000000000001f"), Value::Null, json!(2), json!(2), json!("0")]);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_refused_by_the_api_or_by_us() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let records = plane.records().await;
    records.swap(VOLUME, None, record(7)).await.unwrap();
    let objects: Api<api::VolumeRecord> = Api::all(plane.client());
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        objects.patch(&form::name(VOLUME), &PatchParams::default(), &patch).await
    };
    assert!(patch(json!({"epoch": "seven"})).await.is_err());
    assert!(patch(json!({"members": null})).await.is_err());
    patch(json!({"inSync": 1})).await.unwrap();
    let error = records.get(VOLUME).await.unwrap_err().to_string();
    assert!(error.contains("it counts 1 of 2 members as in sync, but lists 2 of 2"), "{error}");
    assert!(error.contains("volume 0000000000000000000000000000001f"), "{error}");
    assert!(records.watch(VOLUME).await.unwrap().next().await.is_err());
}

#[tokio::test]
async fn a_server_without_the_kind_and_an_account_without_rights_are_errors_and_no_absence() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::without_kinds().await;
    let records = plane.records().await;
    let check = async |records: &KubernetesRecords, says: &str| {
        let error = records.get(VOLUME).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        for expected in [None, Some(Version("7".into()))] {
            let swapped = records.swap(VOLUME, expected, record(1)).await;
            assert!(matches!(&swapped, Err(SwapError::Unknown { reason }) if reason.contains(says)), "{swapped:?}");
        }
        let removed = records.remove(VOLUME, Version("7".into())).await;
        assert!(matches!(removed, Err(SwapError::Unknown { .. })), "{removed:?}");
        let error = records.watch(VOLUME).await.unwrap().next().await.unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    };
    check(&records, "apply deploy/crds").await;
    plane.install().await;
    assert_eq!(records.get(VOLUME).await, Ok(None));
    let mut config = plane.config().await;
    config.auth_info.impersonate = Some("somebody".into());
    check(&records_of(config), "the right to volumerecords of orlop.io").await;
}

#[tokio::test]
async fn a_finalizer_that_keeps_a_record_is_told() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let records = plane.records().await;
    records.swap(VOLUME, None, record(1)).await.unwrap();
    let kind = kube::core::ApiResource::erase::<api::VolumeRecord>(&());
    let objects: Api<DynamicObject> = Api::all_with(plane.client(), &kind);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep"]}}));
    objects.patch(&form::name(VOLUME), &PatchParams::default(), &patch).await.unwrap();
    let version = records.get(VOLUME).await.unwrap().unwrap().version;
    let removed = records.remove(VOLUME, version).await.unwrap_err().to_string();
    assert!(removed.contains("example.com/keep"), "{removed}");
}
