//! Records in etcd, 3.4 or later: one key for each volume.
//!
//! A swap is a transaction that compares the key's `mod_revision`, which is also the version. Reads are linearizable, and every request is refused by a member
//! that has no leader, so that one that was left behind is not asked in vain.
//!
//! There are several endpoints; one of them is used until it does not answer. A read then goes to the next. A swap does not: it may have been done, so the
//! next request alone goes there.

mod config;
mod members;
mod watch;

/// The messages and services of `proto/etcd.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
pub(crate) mod wire {
    tonic::include_proto!("etcdserverpb");
}

use crate::{form, unusable};
pub use config::{ConfigError, EtcdConfig, Password, Tls, User};
use members::{Members, why};
use replication::record::Record;
use replication::record::store::{RecordStore, StoreError, SwapError, Version, Versioned};
use replication::units::VolumeId;
use std::sync::Arc;
pub use watch::EtcdWatch;
use wire::compare::{CompareTarget, TargetUnion};
use wire::request_op::Request as Operation;
use wire::{Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest};

/// Records in etcd.
#[derive(Clone)]
pub struct EtcdRecords {
    members: Arc<Members>,
    prefix: Arc<str>,
}

impl EtcdRecords {
    /// Records at the endpoints that are configured. They are connected to when they are first needed.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let prefix = config.prefix.as_str().into();
        Ok(Self { members: Arc::new(Members::new(config)?), prefix })
    }

    fn key(&self, volume: VolumeId) -> Vec<u8> {
        format!("{}{}", self.prefix, form::name(volume)).into_bytes()
    }

    async fn read(&self, volume: VolumeId) -> Result<RangeResponse, StoreError> {
        let request = RangeRequest { key: self.key(volume) };
        let asked = self.members.read(|mut caller| {
            let request = request.clone();
            async move { caller.range(request).await }
        });
        asked.await.map_err(|status| StoreError { reason: why("read a record", &status) })
    }

    /// Does something to a key if its last change is the one that is named; the revision of it, if it was done.
    async fn change_if(&self, key: Vec<u8>, revision: i64, operation: Operation) -> Result<i64, SwapError> {
        let compare = Compare {
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        };
        let request = TxnRequest { compare: vec![compare], success: vec![RequestOp { request: Some(operation) }] };
        let asked = self.members.once(|mut caller| {
            let request = request.clone();
            async move { caller.txn(request).await }
        });
        let unknown = |reason| SwapError::Unknown { reason };
        let answer = asked.await.map_err(|status| unknown(why("change a record", &status)))?;
        if !answer.succeeded {
            return Err(SwapError::Conflict);
        }
        answer.header.map(|header| header.revision).ok_or_else(|| unknown("etcd gave no revision".into()))
    }
}

/// A version is a revision above 0; what is none was never given by this store, so no key has it.
fn revision(version: &Version) -> Result<i64, SwapError> {
    version.0.parse().ok().filter(|revision| *revision > 0).ok_or(SwapError::Conflict)
}

fn version(revision: i64) -> Version {
    Version(revision.to_string().into())
}

fn versioned(volume: VolumeId, pair: &KeyValue) -> Result<Versioned, StoreError> {
    let spec = serde_json::from_slice(&pair.value).map_err(|error| StoreError {
        reason: format!("the value of volume {} is no record: {error}", form::name(volume)),
    })?;
    let record = form::read(&spec).map_err(|why| unusable(volume, &why))?;
    Ok(Versioned { version: version(pair.mod_revision), record })
}

impl RecordStore for EtcdRecords {
    type Watch = EtcdWatch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        self.read(volume).await?.kvs.first().map(|pair| versioned(volume, pair)).transpose()
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        let expected = expected.as_ref().map_or(Ok(0), revision)?;
        let value = serde_json::to_vec(&form::written(&record))
            .map_err(|error| SwapError::Unknown { reason: format!("write a record as JSON: {error}") })?;
        let key = self.key(volume);
        let put = Operation::RequestPut(PutRequest { key: key.clone(), value });
        self.change_if(key, expected, put).await.map(version)
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        let (key, expected) = (self.key(volume), revision(&expected)?);
        let delete = Operation::RequestDeleteRange(DeleteRangeRequest { key: key.clone() });
        self.change_if(key, expected, delete).await.map(|_| ())
    }

    async fn watch(&self, volume: VolumeId) -> Result<EtcdWatch, StoreError> {
        Ok(EtcdWatch::new(self.clone(), volume))
    }
}
