//! Volumes: made, grown, limited, rolled back, trimmed, deleted.

use crate::attachments::{FrontEnd, Place};
use crate::crypt::{DataKey, Secret, WrappedKey};
use crate::error::{Error, Kind, Result, stored};
use crate::node::{Node, check_name, now, split};
use crate::proto;
use crate::qos::Limits;
use crate::records::{Labels, Record};
use crate::store::{Store, blocks_for};
use std::collections::HashMap;
use std::sync::Arc;
use volume::{BLOCK, State, VolumeInfo};
use zeroize::Zeroizing;

impl Node {
    pub(crate) fn create_volume(&self, request: &proto::CreateVolumeRequest) -> Result<proto::Volume> {
        let name = &request.name;
        check_name(name)?;
        let labels = labels(&request.labels)?;
        let _changing = self.change();
        let (store, blocks) = (self.store(&request.pool)?, blocks_for(request.bytes));
        let limits = limits(request.limits.as_ref());
        if let Ok((there, volume)) = self.volume(name) {
            return self.created_before(request, blocks, there, &volume);
        }
        let what = || format!("create the volume {name}");
        let key = match request.secret.as_slice() {
            [] => None,
            bytes => {
                let secret = secret(bytes, what)?;
                let wrapped = DataKey::random().and_then(|key| key.wrap(&secret));
                Some(wrapped.map_err(|e| Error::new(Kind::Failed, what()).because(e))?)
            }
        };
        let id = key.as_ref().map(WrappedKey::id);
        let record = Record { created: Some(now()), key: id, limits, of: None, labels };
        store.note(|records| records.intend(name, record, key))?;
        let made = store.pool.create_volume(name, blocks).map_err(stored(what()));
        store.follow(now())?;
        made?;
        self.get_volume(name)
    }

    /// Asked again, a volume that is what is wanted is a success.
    fn created_before(
        &self,
        request: &proto::CreateVolumeRequest,
        blocks: u64,
        store: &Arc<Store>,
        volume: &VolumeInfo,
    ) -> Result<proto::Volume> {
        let record = store.record(volume.id.0);
        let differs = if volume.blocks != blocks {
            Some(format!("has {} bytes", volume.blocks * BLOCK as u64))
        } else if !request.pool.is_empty() && request.pool != store.name {
            Some(format!("lies in the pool {}", store.name))
        } else if record.key.is_some() == request.secret.is_empty() {
            Some(if record.key.is_some() { "is encrypted" } else { "is not encrypted" }.to_owned())
        } else {
            None
        };
        match differs {
            None => Ok(self.describe_volume(store, volume)),
            Some(how) => {
                let what = format!("create the volume {}: there is one, and it {how}", request.name);
                Err(Error::new(Kind::Exists, what))
            }
        }
    }

    pub(crate) fn get_volume(&self, name: &str) -> Result<proto::Volume> {
        let (store, volume) = self.volume(name)?;
        Ok(self.describe_volume(store, &volume))
    }

    pub(crate) fn list_volumes(&self) -> Vec<proto::Volume> {
        let of = |store: &Arc<Store>| -> Vec<_> {
            store.volumes().iter().map(|volume| self.describe_volume(store, volume)).collect()
        };
        let mut volumes: Vec<_> = self.stores.iter().flat_map(of).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    }

    fn describe_volume(&self, store: &Arc<Store>, volume: &VolumeInfo) -> proto::Volume {
        let record = store.record(volume.id.0);
        let origin = volume.origin.and_then(|origin| {
            let (of, snapshot) = store.snapshots().into_iter().find(|(_, snapshot)| snapshot.id == origin)?;
            Some(format!("{of}@{}", snapshot.name))
        });
        proto::Volume {
            name: volume.name.clone(),
            pool: store.name.clone(),
            bytes: volume.blocks * BLOCK as u64,
            origin: origin.unwrap_or_default(),
            created: record.created.unwrap_or(0),
            limits: Some(told_limits(record.limits)),
            encryption: encryption(store, &record).into(),
            attachment: self.place(&volume.name).map(told_place),
            labels: record.labels.into_iter().collect(),
        }
    }

    pub(crate) fn delete_volume(&self, name: &str, with_snapshots: bool) -> Result<()> {
        let _changing = self.change();
        self.refuse_attached(name, "delete")?;
        // Its snapshots are there also when the volume is gone, or another one has its name.
        let of = |store: &Arc<Store>| {
            let snapshots = store.snapshots().into_iter().filter(|(of, _)| with_snapshots && of == name);
            snapshots.map(|(_, snapshot)| (store.clone(), snapshot)).collect::<Vec<_>>()
        };
        let snapshots: Vec<_> = self.stores.iter().flat_map(of).collect();
        for (_, snapshot) in &snapshots {
            self.refuse_attached(&format!("{name}@{}", snapshot.name), "delete")?;
        }
        for (store, snapshot) in snapshots {
            let what = format!("delete the snapshot {name}@{}", snapshot.name);
            store.pool.delete(State::Snapshot(snapshot.id)).map_err(stored(what))?;
            store.follow(now())?;
        }
        let Ok((store, volume)) = self.volume(name) else { return Ok(()) };
        store.pool.delete(State::Volume(volume.id)).map_err(stored(format!("delete the volume {name}")))?;
        store.follow(now())
    }

    pub(crate) fn grow_volume(&self, name: &str, bytes: u64) -> Result<proto::Volume> {
        let _changing = self.change();
        let (store, volume) = self.volume(name)?;
        let blocks = blocks_for(bytes);
        if blocks != volume.blocks {
            store.pool.resize(volume.id, blocks).map_err(stored(format!("make the volume {name} larger")))?;
        }
        // Also when it has the size already: the kernel may not have been told, because the process ended before.
        if let Some(attachments) = &self.attachments {
            let target = self.target(name)?.target();
            attachments.grown(&target.name, &target.source.label())?;
        }
        self.get_volume(name)
    }

    pub(crate) fn set_limits(&self, name: &str, wanted: Option<&proto::Limits>) -> Result<proto::Volume> {
        let _changing = self.change();
        let (store, volume) = self.volume(name)?;
        let limits = limits(wanted);
        store.note(|records| records.set_limits(volume.id.0, limits))?;
        if let Some(attachments) = &self.attachments {
            attachments.limit(name, limits);
        }
        self.get_volume(name)
    }

    pub(crate) fn set_labels(&self, name: &str, changed: &HashMap<String, String>) -> Result<proto::Volume> {
        let changed = labels(changed)?;
        let _changing = self.change();
        let (store, volume) = self.volume(name)?;
        store.note(|records| records.set_labels(volume.id.0, &changed))?;
        self.get_volume(name)
    }

    pub(crate) fn roll_back(&self, snapshot: &str) -> Result<proto::Volume> {
        let (name, _) = split(snapshot)?;
        let _changing = self.change();
        let (store, to) = self.snapshot(snapshot)?;
        let (_, volume) = self.volume(name)?;
        self.refuse_attached(name, "roll back")?;
        let record = store.record(volume.id.0);
        // The snapshot may be of an earlier volume of this name, with another key.
        let key = store.record(to.id.0).key;
        store.note(|records| records.intend(name, Record { key, ..record }, None))?;
        let done = store.pool.roll_back(volume.id, to.id).map_err(stored(format!("roll {name} back to {snapshot}")));
        store.follow(now())?;
        done?;
        self.get_volume(name)
    }

    pub(crate) fn clone_snapshot(&self, request: &proto::CloneSnapshotRequest) -> Result<proto::Volume> {
        let name = &request.name;
        check_name(name)?;
        let labels = labels(&request.labels)?;
        let _changing = self.change();
        let (store, snapshot) = self.snapshot(&request.snapshot)?;
        if let Ok((_, volume)) = self.volume(name) {
            if volume.origin == Some(snapshot.id) {
                return self.get_volume(name);
            }
            let what = format!("clone {}: there is a volume {name}, and it is another", request.snapshot);
            return Err(Error::new(Kind::Exists, what));
        }
        let key = store.record(snapshot.id.0).key;
        let limits = limits(request.limits.as_ref());
        let record = Record { created: Some(now()), key, limits, of: None, labels };
        store.note(|records| records.intend(name, record, None))?;
        let made = store.pool.clone_snapshot(snapshot.id, name);
        let made = made.map_err(stored(format!("clone {} as {name}", request.snapshot)));
        store.follow(now())?;
        made?;
        self.get_volume(name)
    }

    /// The key of something encrypted, unwrapped; nothing for what is not.
    pub(crate) fn unwrap_key(&self, store: &Store, id: u64, name: &str, secret: &[u8]) -> Result<Option<DataKey>> {
        let Some(wrapped) = self.wrapped_key(store, id, name)? else {
            if secret.is_empty() {
                return Ok(None);
            }
            return Err(Error::new(Kind::Precondition, format!("{name} is not encrypted; leave the secret out")));
        };
        if secret.is_empty() {
            return Err(Error::new(Kind::Denied, format!("{name} is encrypted; its secret is needed")));
        }
        let what = || format!("unwrap the key of {name}");
        let key = wrapped.unwrap(&self::secret(secret, what)?);
        key.map(Some).map_err(|e| Error::new(Kind::Denied, what()).because(e))
    }

    fn wrapped_key(&self, store: &Store, id: u64, name: &str) -> Result<Option<WrappedKey>> {
        let Some(key) = store.record(id).key else { return Ok(None) };
        let wrapped = store.recorded(|records| records.key(key).cloned());
        let destroyed =
            || Error::new(Kind::Precondition, format!("the key of {name} was destroyed; nobody can read it any more"));
        wrapped.map(Some).ok_or_else(destroyed)
    }

    pub(crate) fn change_secret(&self, name: &str, old: &[u8], new: &[u8]) -> Result<()> {
        let _changing = self.change();
        let target = self.target(name)?;
        let id = id_of(target.state);
        let Some(wrapped) = self.wrapped_key(&target.store, id, name)? else {
            return Err(Error::new(Kind::Precondition, format!("{name} is not encrypted")));
        };
        let what = || format!("wrap the key of {name} with another secret");
        let rewrapped = wrapped
            .rewrap(&secret(old, what)?, &secret(new, what)?)
            .map_err(|e| Error::new(Kind::Denied, what()).because(e))?;
        target.store.note(|records| records.rewrap(rewrapped))
    }

    pub(crate) fn destroy_key(&self, name: &str) -> Result<()> {
        let _changing = self.change();
        let target = self.target(name)?;
        let Some(key) = target.store.record(id_of(target.state)).key else {
            return Err(Error::new(Kind::Precondition, format!("{name} is not encrypted; delete it to be rid of it")));
        };
        let users = target.store.recorded(|records| records.with_key(key));
        let volumes =
            target.store.volumes().into_iter().filter(|volume| users.contains(&volume.id.0)).map(|volume| volume.name);
        let snapshots = target.store.snapshots().into_iter().filter(|(_, snapshot)| users.contains(&snapshot.id.0));
        let snapshots = snapshots.map(|(of, snapshot)| format!("{of}@{}", snapshot.name));
        for user in volumes.chain(snapshots) {
            self.refuse_attached(&user, "destroy the key of")?;
        }
        target.store.note(|records| records.destroy(key))
    }
}

/// A secret out of a request.
fn secret(bytes: &[u8], what: impl FnOnce() -> String) -> Result<Secret> {
    Secret::new(Zeroizing::new(bytes.to_vec())).map_err(|e| Error::new(Kind::Invalid, what()).because(e))
}

pub(crate) fn id_of(state: State) -> u64 {
    match state {
        State::Volume(id) => id.0,
        State::Snapshot(id) => id.0,
    }
}

pub(crate) fn encryption(store: &Store, record: &Record) -> proto::Encryption {
    match record.key {
        None => proto::Encryption::None,
        Some(key) if store.recorded(|records| records.key(key).is_some()) => proto::Encryption::Aes256Xts,
        Some(_) => proto::Encryption::KeyDestroyed,
    }
}

pub(crate) fn told_place(place: Place) -> proto::Attachment {
    let front_end = match place.front_end {
        FrontEnd::Device => proto::FrontEnd::Device,
        FrontEnd::Nbd | FrontEnd::Tcp(_) => proto::FrontEnd::Nbd,
    };
    proto::Attachment { front_end: front_end.into(), place: place.place, read_only: place.read_only }
}

/// Labels out of a request.
pub(crate) fn labels(wanted: &HashMap<String, String>) -> Result<Labels> {
    const MOST: usize = 64;
    const MOST_BYTES: usize = 8192;
    let bytes: usize = wanted.iter().map(|(key, value)| key.len() + value.len()).sum();
    if wanted.len() > MOST || bytes > MOST_BYTES {
        let what = format!("note {} labels of {bytes} bytes: {MOST} of {MOST_BYTES} bytes are the most", wanted.len());
        return Err(Error::new(Kind::Invalid, what));
    }
    Ok(wanted.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn limits(wanted: Option<&proto::Limits>) -> Limits {
    let wanted = wanted.copied().unwrap_or_default();
    Limits { iops: wanted.iops.try_into().ok(), bytes_per_second: wanted.bytes_per_second.try_into().ok() }
}

fn told_limits(limits: Limits) -> proto::Limits {
    let number = |limit: Option<std::num::NonZeroU64>| limit.map_or(0, std::num::NonZeroU64::get);
    proto::Limits { iops: number(limits.iops), bytes_per_second: number(limits.bytes_per_second) }
}
