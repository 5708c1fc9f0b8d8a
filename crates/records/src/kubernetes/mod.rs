//! Records in the Kubernetes API: one `VolumeRecord` for each volume.
//!
//! A swap is a replacement that names the `resourceVersion` it is for; the API server compares and writes in one step of its store. Two things need care:
//!
//! * A replacement that changes nothing is none for the API server: it gives the version that there was. Each state therefore names the version that it
//!   has replaced ([`REPLACED`]), so that no two are the same.
//! * An answer of 404 may mean that the kind is not known. Only one that names the object is taken for its absence.

mod answers;
mod watch;

use crate::{Patience, form, unusable};
use answers::{failed_swap, is_absence, why};
use api::VolumeRecord;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, Config};
use replication::record::Record;
use replication::record::store::{RecordStore, StoreError, SwapError, Version, Versioned};
use replication::units::VolumeId;
use std::time::Duration;
use tokio::time::timeout;
pub use watch::KubernetesWatch;

/// On every record but the first of a volume: the `resourceVersion` of the state that this one has replaced.
pub const REPLACED: &str = "orlop.io/replaced-version";

/// Who writes, as `managedFields` names it.
const MANAGER: &str = "orlop-volumes";

/// Why records in Kubernetes cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("make a client of the Kubernetes API for the records of volumes: {reason}")]
pub struct ClientError {
    reason: String,
    source: kube::Error,
}

/// Records in the Kubernetes API.
#[derive(Clone)]
pub struct KubernetesRecords {
    api: Api<VolumeRecord>,
    patience: Patience,
}

impl KubernetesRecords {
    /// Records behind the API server that is configured.
    ///
    /// A configuration is asked for, not a client, since a client repeats what an overloaded server refused: a swap that was done and is then sent again would
    /// be told as a conflict.
    ///
    /// # Errors
    /// The configuration cannot be used, such as a certificate that cannot be read.
    pub fn new(mut config: Config, patience: Patience) -> Result<Self, ClientError> {
        config.default_retry = false;
        config.connect_timeout = Some(patience.request);
        let client =
            Client::try_from(config).map_err(|source| ClientError { reason: crate::chain(&source), source })?;
        Ok(Self { api: Api::all(client), patience })
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
        match timeout(self.patience.request, asked).await {
            Ok(answer) => answer.map_err(Failure::Kube),
            Err(_) => Err(Failure::Late(self.patience.request)),
        }
    }
}

/// A request that has no good answer.
#[derive(Debug)]
enum Failure {
    Kube(kube::Error),
    Late(Duration),
}

/// The record in an object, and its version.
fn versioned(volume: VolumeId, object: &VolumeRecord) -> Result<Versioned, StoreError> {
    let record = form::read(&object.spec).map_err(|why| unusable(volume, &why))?;
    Ok(Versioned { version: version(volume, &object.metadata)?, record })
}

fn version(volume: VolumeId, metadata: &ObjectMeta) -> Result<Version, StoreError> {
    let nameless =
        || StoreError { reason: format!("the API server gave no resourceVersion for volume {}", form::name(volume)) };
    metadata.resource_version.as_deref().map(|version| Version(version.into())).ok_or_else(nameless)
}

fn object(volume: VolumeId, expected: Option<&Version>, record: &Record) -> VolumeRecord {
    let mut object = VolumeRecord::new(&form::name(volume), form::written(record));
    if let Some(version) = expected {
        object.metadata.resource_version = Some(version.0.to_string());
        object.metadata.annotations = Some([(REPLACED.to_owned(), version.0.to_string())].into());
    }
    object
}

impl RecordStore for KubernetesRecords {
    type Watch = KubernetesWatch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        let name = form::name(volume);
        match self.in_time(self.api.get(&name)).await {
            Ok(object) => versioned(volume, &object).map(Some),
            Err(Failure::Kube(kube::Error::Api(status))) if is_absence(&status, &name) => Ok(None),
            Err(failure) => Err(StoreError { reason: why("read", &failure) }),
        }
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        let (name, object) = (form::name(volume), object(volume, expected.as_ref(), &record));
        let parameters = PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) };
        let answer = match expected {
            None => self.in_time(self.api.create(&parameters, &object)).await,
            Some(_) => self.in_time(self.api.replace(&name, &parameters, &object)).await,
        };
        let written = answer.map_err(|failure| failed_swap("write", &failure, &name))?;
        // It is done; how it is called is what is not known.
        version(volume, &written.metadata).map_err(|error| SwapError::Unknown { reason: error.reason })
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        let name = form::name(volume);
        let preconditions = Preconditions { resource_version: Some(expected.0.to_string()), uid: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let answer = self.in_time(self.api.delete(&name, &parameters)).await;
        match answer.map_err(|failure| failed_swap("remove", &failure, &name))?.left() {
            // Somebody has put a finalizer on it.
            Some(object) if object.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty()) => {
                let finalizers = object.metadata.finalizers.unwrap_or_default().join(", ");
                Err(SwapError::Unknown {
                    reason: format!("VolumeRecord {name} waits for its finalizers: {finalizers}"),
                })
            }
            _ => Ok(()),
        }
    }

    async fn watch(&self, volume: VolumeId) -> Result<KubernetesWatch, StoreError> {
        Ok(KubernetesWatch::new(self.clone(), volume))
    }
}
