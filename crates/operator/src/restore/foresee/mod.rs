//! What a restore would do now: its plan, made without changing anything.

mod compare;
mod rate;
mod tally;

use std::sync::Arc;

use api::{ApplicationRestore, GitOpsHold, PlannedAction, RestorePlan, Rule, VolumePlan};
use application::{Foreseen, Foresight, ObjectKey, Patience};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Restores;
use super::gather::Gathered;
use super::inventory::{Part, stands_on_volumes};
use super::make::{HELD_BACK, idle};
use super::point::Point;
use super::prepared::{self, LIVES_ON, OBJECTS_AT_ONCE, Prepared, Preparer};
use super::validate::{Refusal, TargetFacts};
use super::volume::view::WantedVolume;
use crate::error::{During, Error};
use crate::hold;
use crate::objects;
use tally::{Candidate, Tally};

/// Objects that the API server is asked about at the same time.
const ASKED_AT_ONCE: usize = 8;

/// What the restore would do now.
///
/// # Errors
/// The API server or the repository did not answer.
pub(super) async fn plan(
    restores: &Restores,
    gathered: &Gathered,
    point: &Point,
    target: &TargetFacts,
) -> Result<RestorePlan, Error> {
    let (context, restore) = (&restores.context, &gathered.restore);
    let limits = context.limits();
    let holds = match restore.spec.hold_git_ops {
        true => hold::find(&context.client, &point.facts.kept, objects::scope(restore)).await?,
        false => Vec::new(),
    };
    let terms = terms(restores, restore, point, &holds).await?;
    let mut tally = Tally::new(&limits.plan, limits.reason_chars, &terms);
    let volumes: Vec<VolumePlan> = point.volumes.iter().map(|wanted| volume(restore, target, wanted)).collect();
    // What stands on volumes is not made when one of them cannot be filled.
    let held_back = volumes.iter().any(|volume| volume.action == PlannedAction::Conflict);
    let preparer = Preparer::new(&context.client, restore, point).await?;
    let foresight = Foresight::new(
        context.client.clone(),
        Arc::new(target.catalog.clone()),
        gathered.uid.clone(),
        crate::tally::policy(restore.spec.replace_policy),
        prepared::options(&restore.spec),
        Patience::default(),
    );
    tally.left_alone(point.facts.inventory.left_alone);
    for (key, rule) in &point.facts.inventory.skipped {
        tally.left(&point.at_target(key), PlannedAction::Skip, &told(*rule));
    }
    for part in [Part::Foundations, Part::Resources] {
        for (wave, keys) in point.facts.inventory.part(part) {
            if held_back && stands_on_volumes(wave) {
                keys.iter().for_each(|key| tally.left(&point.at_target(key), PlannedAction::Conflict, HELD_BACK));
                continue;
            }
            for kind in keys.chunk_by(|a, b| (&a.group, &a.kind) == (&b.group, &b.kind)) {
                for some in kind.chunks(OBJECTS_AT_ONCE) {
                    let read = preparer.read(some).await?;
                    look_ahead(&foresight, read, &mut tally).await?;
                }
            }
        }
    }
    for (wanted, volume) in point.volumes.iter().zip(volumes) {
        tally.volume(volume, &wanted.manifest, &wanted.changes);
    }
    let mut plan = tally.finish(gathered.now);
    plan.holds = holds;
    plan.notes = idle(gathered, point).into_iter().map(|(field, why)| format!("{field}: {why}")).collect();
    plan.estimated_seconds = estimate(restores, &plan).await?;
    Ok(plan)
}

fn told(rule: application::Rule) -> String {
    format!("{}: {}", rule.name(), rule.why())
}

/// What decides beside the objects and the volumes what is done: rules with all that they run, transformations with all that they say.
async fn terms(
    restores: &Restores,
    restore: &ApplicationRestore,
    point: &Point,
    holds: &[GitOpsHold],
) -> Result<serde_json::Value, Error> {
    let (spec, namespace) = (&restore.spec, restore.namespace().unwrap_or_default());
    let mut rules = Vec::new();
    for name in [&spec.pre_exec_rule, &spec.post_exec_rule] {
        let rule = match name {
            Some(name) => objects::read::<Rule>(&restores.context.client, &namespace, name).await?,
            None => None,
        };
        rules.push(json!({"name": name, "spec": rule.map(|rule| rule.spec)}));
    }
    let transforms = point.transforms.kept.iter().map(|one| json!({"name": one.name, "specs": one.transform_specs}));
    Ok(json!({
        "recoveryPoint": point.facts.id,
        "replacePolicy": spec.replace_policy,
        "rules": rules,
        "restoreStatusFor": spec.restore_status_for,
        "holds": holds,
        "transforms": transforms.collect::<serde_json::Value>(),
    }))
}

async fn look_ahead(foresight: &Foresight, objects: Vec<Prepared>, tally: &mut Tally<'_>) -> Result<(), Error> {
    let mut asked = Vec::new();
    for one in objects {
        match one.loss.filter(|loss| loss.is_whole) {
            _ if one.is_lived_on => tally.left(&one.key, PlannedAction::Keep, LIVES_ON),
            Some(loss) => tally.left(&one.key, PlannedAction::Skip, &told(loss.rule)),
            None => asked.push(one),
        }
    }
    let answers: Vec<(Prepared, Foreseen)> = stream::iter(asked)
        .map(|one| async move {
            let foreseen =
                foresight.foresee(&one.key, &one.object).await.map_err(|failure| unforeseen(&one.key, failure))?;
            Ok::<_, Error>((one, foreseen))
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    for (one, foreseen) in answers {
        let candidate =
            Candidate { key: &one.key, object: &one.object, transformed: &one.changes, status: one.status.as_ref() };
        tally.object(&candidate, foreseen);
    }
    Ok(())
}

fn unforeseen(key: &ObjectKey, failure: application::Failure) -> Error {
    Error::Application { doing: format!("ask what would become of {key}"), source: failure.into() }
}

fn volume(restore: &ApplicationRestore, target: &TargetFacts, wanted: &WantedVolume) -> VolumePlan {
    let is_there = target.claims.contains(&(wanted.namespace.clone(), wanted.claim.clone()));
    let replaces = restore.spec.replace_policy == api::ReplacePolicy::Delete;
    let (action, reason) = match (&wanted.source, is_there) {
        (_, true) if !replaces => (PlannedAction::Keep, Some("the claim exists, and its data stays".to_owned())),
        (Err(why), _) => (PlannedAction::Conflict, Some(why.clone())),
        (Ok(_), true) => (PlannedAction::Replace, None),
        (Ok(_), false) => (PlannedAction::Create, None),
    };
    let (files, bytes) = wanted.source.as_ref().map_or((0, 0), |root| (root.files, root.bytes));
    VolumePlan {
        namespace: wanted.namespace.clone(),
        claim: wanted.claim.clone(),
        action,
        reason,
        image: wanted.is_image(),
        files,
        bytes,
        transformed: Vec::new(),
    }
}

/// How long the volumes would take, by what earlier restores of this cluster took.
async fn estimate(restores: &Restores, plan: &RestorePlan) -> Result<Option<u64>, Error> {
    let all = Api::<ApplicationRestore>::all(restores.context.client.clone()).list(&ListParams::default()).await;
    let all = all.during(|| "list the restores".into())?;
    let volumes = all.iter().filter_map(|restore| restore.status.as_ref()).flat_map(|status| &status.volumes);
    Ok(rate::seconds(rate::of(volumes), plan, restores.context.limits().movers_at_once))
}

/// Why a restore does not do what it would do now: it is to do another plan.
pub(super) async fn refusal(
    restores: &Restores,
    gathered: &Gathered,
    hash: &str,
    now: &RestorePlan,
) -> Result<Option<Refusal>, Error> {
    if now.hash == hash {
        return Ok(None);
    }
    let namespace = gathered.restore.namespace().unwrap_or_default();
    let all = Api::<ApplicationRestore>::namespaced(restores.context.client.clone(), &namespace);
    let all = all.list(&ListParams::default()).await.during(|| format!("list the restores of {namespace}"))?;
    let plans = all.items.into_iter().filter_map(|restore| restore.status?.plan);
    let then = plans.into_iter().find(|plan| plan.hash == hash);
    Ok(Some(Refusal::new("PlanChanged", compare::differences(hash, then.as_ref(), now))))
}
