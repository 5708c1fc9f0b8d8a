//! The objects of a recovery point, as they are to be made.

use std::collections::BTreeSet;

use api::{ApplicationRestore, ApplicationRestoreSpec, BackupLocation};
use application::{Change, Failure, Loss, ObjectKey, RestoreOptions, clean};
use futures::TryStreamExt;
use kube::{Client, ResourceExt};
use repository::table::Reader;
use serde_json::Value;

use super::inventory::names_kind;
use super::point::{self, Point};
use super::validate;
use crate::error::{During, Error};
use crate::objects;
use crate::repositories::secret_names;

/// Objects in memory at a time. Each may have 1.5 MiB, so this is 48 MiB at the worst.
pub(super) const OBJECTS_AT_ONCE: usize = 32;

/// Why an object is kept that the restore needs itself.
pub(super) const LIVES_ON: &str =
    "the restore reads the recovery point with it, so it stays as it is, whatever the policy";

/// An object as it is to be made, under its name at the target.
pub(super) struct Prepared {
    pub(super) key: ObjectKey,
    pub(super) object: Value,
    /// What the mapping takes away from it.
    pub(super) loss: Option<Loss>,
    /// What transformations changed in it.
    pub(super) changes: Vec<Change>,
    /// The status that is written back when it is made; `null` if one is wanted and the recovery point has none.
    pub(super) status: Option<Value>,
    /// The restore itself lives on the one that is there.
    pub(super) is_lived_on: bool,
}

/// Reads the objects of one restore.
pub(super) struct Preparer<'a> {
    restore: &'a ApplicationRestore,
    point: &'a Point,
    /// The namespaces that the restore goes to, by its spec as it is now.
    namespaces: BTreeSet<String>,
    /// What the restore itself lives on.
    livelihood: BTreeSet<ObjectKey>,
}

/// What a restore keeps of the ties to the old cluster.
pub(super) fn options(spec: &ApplicationRestoreSpec) -> RestoreOptions {
    RestoreOptions { keep_cluster_ips: spec.preserve_cluster_ips, keep_node_ports: spec.preserve_node_ports }
}

/// The location that a restore reads from, and the Secrets that the location names. They stay as they are whatever the policy: the recovery
/// point may have them as they were, with keys that were exchanged since, and nothing more could be read with these.
async fn livelihood(client: &Client, restore: &ApplicationRestore) -> Result<BTreeSet<ObjectKey>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let key = |group: &str, kind: &str, name: &str| ObjectKey {
        group: group.into(),
        version: String::new(),
        kind: kind.into(),
        namespace: Some(namespace.clone()),
        name: name.into(),
    };
    let name = &restore.spec.backup_location;
    let location: Option<BackupLocation> = objects::read(client, &namespace, name).await?;
    let secrets = location.iter().flat_map(secret_names).map(|(secret, _)| key("", "Secret", secret));
    Ok(secrets.chain([key(api::GROUP, "BackupLocation", name)]).collect())
}

impl<'a> Preparer<'a> {
    pub(super) async fn new(client: &Client, restore: &'a ApplicationRestore, point: &'a Point) -> Result<Self, Error> {
        let namespaces = validate::namespaces(&restore.spec, &point.facts.sources);
        Ok(Self { restore, point, namespaces, livelihood: livelihood(client, restore).await? })
    }

    /// Reads objects of one kind, no more than [`OBJECTS_AT_ONCE`], by their keys at the source.
    pub(super) async fn read(&self, keys: &[ObjectKey]) -> Result<Vec<Prepared>, Error> {
        let wanted: BTreeSet<Vec<u8>> = keys.iter().map(ObjectKey::encode).collect();
        let (Some(first), Some(last), Some(table)) = (wanted.first(), wanted.last(), self.point.document.objects)
        else {
            return Ok(Vec::new());
        };
        let stored: Vec<(Vec<u8>, Vec<u8>)> = Reader::new(&self.point.opened.repository, table)
            .scan(first)
            .try_take_while(|(key, _)| std::future::ready(Ok(key[..] <= last[..])))
            .try_filter(|(key, _)| std::future::ready(wanted.contains(&key[..])))
            .map_ok(|(key, value)| (key.to_vec(), value.to_vec()))
            .try_collect()
            .await
            .during(|| "read objects of the recovery point".into())?;
        if stored.len() != wanted.len() {
            let what =
                format!("{} objects of the kind {} are not there any more", wanted.len() - stored.len(), keys[0].kind);
            let object = "the table of objects of the recovery point".to_owned();
            return Err(repository::Error::Damaged { object, what })
                .during(|| "read objects of the recovery point".into());
        }
        stored.iter().map(|(key, value)| self.prepare(key, value)).collect()
    }

    fn prepare(&self, key: &[u8], value: &[u8]) -> Result<Prepared, Error> {
        let fitted = || -> Result<_, repository::Error> {
            let (key, mut object) = point::decode(key, value)?;
            let status = self.status(&key, &object);
            clean::for_restore(&key, &mut object, options(&self.restore.spec));
            let loss = self.point.mapping.loss(&key, &object);
            let name = point::named(self.point.mapping.apply(&mut object))?;
            point::check_target(&self.namespaces, &name)?;
            Ok((name, object, loss, status))
        };
        let (key, mut object, loss, status) = fitted().during(|| "read objects of the recovery point".into())?;
        let is_lived_on = self.lives_on(&key);
        let changes = match loss.filter(|loss| loss.is_whole) {
            Some(_) => Vec::new(),
            // That it can be changed was found out before the restore began, from the same object and the same transformations.
            None => self.transform(&key, &mut object)?,
        };
        Ok(Prepared { key, object, loss, changes, status, is_lived_on })
    }

    fn status(&self, key: &ObjectKey, stored: &Value) -> Option<Value> {
        // What Orlop's own objects say of themselves is acted upon by Orlop: it is nobody's to write but its.
        let is_wanted =
            key.group != api::GROUP && self.restore.spec.restore_status_for.iter().any(|kind| names_kind(kind, key));
        // A claim has the size of its volume there, which is no status of its own.
        let has_one =
            |status: &&Value| clean::is_custom(&key.group) && status.as_object().is_some_and(|s| !s.is_empty());
        is_wanted.then(|| stored.get("status").filter(has_one).cloned().unwrap_or_default())
    }

    fn transform(&self, key: &ObjectKey, object: &mut Value) -> Result<Vec<Change>, Error> {
        let transformed = self.point.transforms.apply(key, object).map_err(Failure::lasting);
        let changes = transformed.map(|transformed| transformed.changes);
        changes.map_err(|source| Error::Application { doing: format!("transform {key}"), source: source.into() })
    }

    fn lives_on(&self, key: &ObjectKey) -> bool {
        self.livelihood
            .iter()
            .any(|own| own.is(&key.group, &key.kind) && own.namespace == key.namespace && own.name == key.name)
    }
}
