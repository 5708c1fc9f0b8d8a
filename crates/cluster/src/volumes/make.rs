//! Volumes with several replicas are made, waited for, and taken back.

use super::{InCluster, clone, failed};
use crate::error::{ask, code};
use api::{VOLUME_FINALIZER, Volume as Object, VolumeLimits, VolumeSpec};
use csi::{Error, Kind, NewVolume, Secret, Volume};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use node::crypt::{DataKey, Secret as KeySecret};
use std::time::{Duration, Instant};

/// How long a new volume is waited for until its replicas are placed: the controller looks at it at once, and another one begins within some seconds.
const PLACE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const PLACE_LOOK: Duration = Duration::from_millis(200);

impl InCluster {
    /// Waits until the controller has placed a volume. One that it cannot place is taken back, so that whoever asks again begins anew.
    pub(super) fn placed(&self, made: Object) -> Result<Volume, Error> {
        let id = made.name_any();
        match self.await_place(&id)? {
            Ok(placed) => Ok(placed),
            Err(why) => {
                self.delete_object(&made, false)?;
                Err(Error { kind: Kind::NoRoom, story: format!("make the volume {id}: {why}") })
            }
        }
    }

    /// Waits until the controller has placed a volume; or tells why it has not.
    pub(super) fn await_place(&self, id: &str) -> Result<Result<Volume, String>, Error> {
        let begin = Instant::now();
        while begin.elapsed() < PLACE_LIMIT {
            let Some(now) = self.object(id)? else {
                return Err(failed(format!("the Volume {id} was deleted while it was being placed")));
            };
            let status = now.status.clone().unwrap_or_default();
            if !status.replicas.is_empty() && clone::is_made(&now) {
                let record = self.record(&now)?;
                return Ok(Ok(self.told(&now, record.as_ref())));
            }
            if let Some(refused) = status.message.filter(|_| status.replicas.is_empty()) {
                return Ok(Err(refused));
            }
            std::thread::sleep(PLACE_LOOK);
        }
        let limit = PLACE_LIMIT.as_secs();
        Ok(Err(format!(
            "its replicas are not all placed and made after {limit} s; see that the operator and the daemons of their nodes run"
        )))
    }

    /// Deletes a volume, and no other that has its name by now; if it is so wanted, only as it was read. Tells whether it is gone.
    pub(super) fn delete_object(&self, object: &Object, is_as_read: bool) -> Result<bool, Error> {
        let (api, id) = (self.api(), object.name_any());
        let resource_version = object.meta().resource_version.clone().filter(|_| is_as_read);
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.runtime.block_on(ask(
            self.times.request,
            || format!("delete the Volume {id}"),
            api.delete(&id, &parameters),
        ));
        match deleted {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(409) && is_as_read => Ok(false),
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(true),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// What a new volume is to be.
    pub(super) fn spec(&self, new: &NewVolume, wrapped_key: Option<String>) -> VolumeSpec {
        VolumeSpec {
            bytes: new.bytes,
            replicas: new.replicas,
            // More than half of three, and one of two: the other must be able to go on alone.
            minimum_in_sync: new.replicas.div_ceil(2),
            preferred_node: Some(self.me.clone()),
            placement_strategy: new.placement.clone(),
            limits: VolumeLimits { iops: new.limits.iops, bytes_per_second: new.limits.bytes_per_second },
            wrapped_key,
            labels: new.labels.clone(),
            ..VolumeSpec::default()
        }
    }

    pub(super) fn make(&self, id: &str, spec: VolumeSpec) -> Result<Volume, Error> {
        let mut object = Object::new(id, spec);
        object.metadata.finalizers = Some(vec![VOLUME_FINALIZER.to_owned()]);
        let (api, asked) = (self.api(), PostParams::default());
        let made = ask(self.times.request, || format!("make the Volume {id}"), api.create(&asked, &object));
        match self.runtime.block_on(made) {
            Ok(made) => self.placed(made),
            Err(error) if code(&error) == Some(409) => Err(Error {
                kind: Kind::Busy,
                story: format!("there is a Volume {id} already, which is being made or deleted; ask again"),
            }),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// A new key, wrapped with a secret.
pub(super) fn wrapped(id: &str, secret: &Secret) -> Result<String, Error> {
    let refused = |error: &dyn std::error::Error| failed(format!("encrypt {id}: {error}"));
    let secret = KeySecret::new(secret.clone()).map_err(|error| refused(&error))?;
    let key = DataKey::random().and_then(|key| key.wrap(&secret)).map_err(|error| refused(&error))?;
    serde_json::to_string(&key).map_err(|error| refused(&error))
}
