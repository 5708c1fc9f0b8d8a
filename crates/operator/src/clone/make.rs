//! Reading the objects of the source, and making them in the destination.
//!
//! All of them are held at once, since they are read in the order of their kinds and made in that of what they depend on. The volumes' claims are there already.

use std::collections::BTreeMap;

use api::{ObjectOutcomes, VolumeClone};
use application::order::order;
use application::{
    Applied as Outcome, Applier, Capture, CaptureError, Captured, Found, Loss, ObjectKey, Patience, RestoreOptions,
    Rule, Wave, canonical, clean, discover, gitops,
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::sync::Arc;

use super::apply::{Applied, applier};
use super::facts::Gathered;
use super::validate::{failure, mapping, selection};
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::restore::{HELD_BACK, stands_on_volumes};
use crate::tally::{Tally, policy};

/// Bytes of the objects of one clone, as JSON: in memory they take some times as much, and the operator has 512 MiB. A namespace has rarely more than a tenth of it.
const MOST_BYTES: usize = 48 << 20;
/// Objects that are made before somebody looks whether the clone is still wanted.
const OBJECTS_AT_ONCE: usize = 64;

/// What became of the objects.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) outcomes: ObjectOutcomes,
    /// Of those that were skipped, how many by which rule.
    pub(super) skipped_by: BTreeMap<String, u64>,
}

/// Objects as they are to be made, by their keys in the destination.
struct Objects<'a> {
    gathered: &'a Gathered,
    volumes: &'a [VolumeClone],
    fitted: BTreeMap<ObjectKey, (Value, Option<Loss>)>,
    skipped_by: BTreeMap<String, u64>,
    tally: Tally,
    bytes: usize,
}

/// Makes the objects.
pub(super) async fn make(context: &Context, gathered: &Gathered, held_back: bool) -> Result<Applied, Error> {
    let volumes = gathered.status().volumes;
    let mut found = Objects {
        gathered,
        volumes: &volumes,
        fitted: BTreeMap::new(),
        skipped_by: BTreeMap::new(),
        tally: Tally::new(context.limits()),
        bytes: 0,
    };
    match found.read(context).await {
        Ok(()) => {}
        Err(CaptureError::Selection(error)) => return Ok(Applied::Failed(failure("InvalidSpec", error.to_string()))),
        Err(CaptureError::Unreachable(failure)) => {
            let doing = format!("read the objects of {}", gathered.run.spec.source_namespace);
            return Err(Error::Application { doing, source: failure.into() });
        }
    }
    if found.bytes > MOST_BYTES {
        let message = format!(
            "the objects of {} take more than {} MiB, which is too much for a clone; back it up and restore it with a namespaceMapping",
            gathered.run.spec.source_namespace,
            MOST_BYTES >> 20
        );
        return Ok(Applied::Failed(failure("TooLarge", message)));
    }
    let applier = applier(context, gathered, policy(gathered.run.spec.replace_policy)).await?;
    let Objects { mut fitted, mut tally, skipped_by, .. } = found;
    for (wave, keys) in order(fitted.keys().cloned()) {
        for some in keys.chunks(OBJECTS_AT_ONCE) {
            if is_deleted(context, gathered).await? {
                return Ok(Applied::Waited("is being deleted".into()));
            }
            let objects = some.iter().filter_map(|key| Some((key.clone(), fitted.remove(key)?))).collect();
            make_some(&applier, &mut tally, wave, objects, held_back).await;
        }
    }
    if let Some(why) = tally.passing.take().filter(|_| is_patient(gathered, gathered.now, context)) {
        return Ok(Applied::MadeInPart(why));
    }
    Ok(Applied::Made(Box::new(Made { outcomes: tally.outcomes, skipped_by })))
}

async fn make_some(
    applier: &Applier,
    tally: &mut Tally,
    wave: Wave,
    objects: Vec<(ObjectKey, (Value, Option<Loss>))>,
    held_back: bool,
) {
    if held_back && stands_on_volumes(wave) {
        for (key, _) in objects {
            tally.count(&key, Outcome::Failed { reason: HELD_BACK.into(), retryable: false }, None);
        }
        return;
    }
    let notes: Vec<_> = objects.iter().map(|(_, (object, loss))| (gitops::manager(object), *loss)).collect();
    let made = stream::iter(objects.into_iter().map(|(key, (object, _))| (key, object)));
    let outcomes: Vec<_> = applier.apply_each(made).collect().await;
    for ((key, outcome), (manager, loss)) in outcomes.into_iter().zip(notes) {
        if !matches!(outcome, Outcome::Kept { .. } | Outcome::Failed { .. }) {
            tally.note_manager(manager);
        }
        tally.count(&key, outcome, loss);
    }
}

/// Whether what cannot be made for the moment is tried again.
fn is_patient(gathered: &Gathered, now: Timestamp, context: &Context) -> bool {
    let status = gathered.status();
    let since = status.stages.last().map_or(now, |stage| stage.started_at.0);
    now.duration_since(since).unsigned_abs() < context.limits().object_patience
}

async fn is_deleted(context: &Context, gathered: &Gathered) -> Result<bool, Error> {
    let run = &gathered.run;
    let namespace = run.namespace().unwrap_or_default();
    let now = objects::read::<api::ApplicationClone>(&context.client, &namespace, &run.name_any()).await?;
    Ok(now.is_none_or(|now| now.uid() != run.uid() || now.metadata.deletion_timestamp.is_some()))
}

impl Objects<'_> {
    async fn read(&mut self, context: &Context) -> Result<(), CaptureError> {
        let patience = Patience::default();
        let catalog = Arc::new(discover(&context.client, &patience).await?);
        let selection = selection(&self.gathered.run);
        let mut capture = Capture::start(context.client.clone(), catalog, selection, patience).await?;
        while let Some(captured) = capture.next().await? {
            self.take(captured);
            if self.bytes > MOST_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, Captured { key, found }: Captured) {
        // What no restore makes is not of the application, but of the cluster; a clone is in the same one.
        if Wave::of(&key).is_none() {
            return;
        }
        match found {
            Found::Skipped(rule) => self.skip(rule),
            Found::Missed(reason) => self.tally.count(&key, Outcome::Failed { reason, retryable: false }, None),
            Found::Stored(object) => self.fit(&key, object),
        }
    }

    /// Counts an object that a rule leaves out. They are many, and ordinary: no word is lost about each.
    fn skip(&mut self, rule: Rule) {
        *self.skipped_by.entry(rule.name().to_owned()).or_default() += 1;
        self.tally.outcomes.wanted += 1;
        self.tally.outcomes.skipped += 1;
    }

    fn fit(&mut self, key: &ObjectKey, mut object: Value) {
        if key.is("", "PersistentVolumeClaim") {
            if self.volumes.iter().any(|volume| volume.claim == key.name) {
                return;
            }
            if object["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty()) {
                let reason = "it got its volume after the volumes were listed, so its data is not here".into();
                self.tally.count(key, Outcome::Failed { reason, retryable: false }, None);
                return;
            }
        }
        clean::for_restore(key, &mut object, RestoreOptions::default());
        let mapping = mapping(&self.gathered.run);
        let loss = mapping.loss(key, &object);
        match mapping.apply(&mut object) {
            Ok(name) if loss.is_some_and(|loss| loss.is_whole) => {
                *self.skipped_by.entry(Rule::MovedService.name().to_owned()).or_default() += 1;
                self.tally.skip(&name, Rule::MovedService);
            }
            Ok(name) => {
                self.bytes += canonical::to_bytes(&object).len();
                self.fitted.insert(name, (object, loss));
            }
            Err(error) => {
                let reason = error.to_string();
                self.tally.count(key, Outcome::Failed { reason, retryable: false }, None);
            }
        }
    }
}
