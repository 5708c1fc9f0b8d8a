//! Transformations: looked at when they are made or changed, so that what is wrong with one is known before a restore needs it.
//!
//! What a restore does with one does not hang on this: it checks the spec itself, and its objects with it.

use std::future::ready;
use std::sync::Arc;

use api::{FieldError, ResourceTransformation, ResourceTransformationStatus, TransformationPhase};
use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};

use crate::conditions::{Answer, READY, Says, set, shorten};
use crate::context::{Context, try_again};
use crate::error::Error;
use crate::objects;

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    let transformations = Api::<ResourceTransformation>::all(context.client.clone());
    Controller::new(transformations, watcher::Config::default())
        .with_config(context.controller_config())
        .run(reconcile, try_again, context)
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(cached: Arc<ResourceTransformation>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
    let Some(mut now) = objects::read::<ResourceTransformation>(&context.client, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    let old = now.status.take().unwrap_or_default();
    let new =
        next(&old, now.metadata.generation, &now.spec.validate(), context.limits().reason_chars, Timestamp::now());
    if new != old && now.metadata.deletion_timestamp.is_none() {
        let (phase, message) = (new.phase, new.message.clone().unwrap_or_default());
        now.status = Some(new);
        objects::write_status(&context.client, &now).await?;
        if phase == TransformationPhase::Failed {
            context.events.warning(&now, "Check", "InvalidSpec", &message).await;
        }
    }
    Ok(Action::await_change())
}

fn next(
    old: &ResourceTransformationStatus,
    generation: Option<i64>,
    wrong: &[FieldError],
    reason_chars: usize,
    now: Timestamp,
) -> ResourceTransformationStatus {
    let mut new = ResourceTransformationStatus { observed_generation: generation, ..old.clone() };
    let sentences: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let (phase, answer, reason, message) = match sentences.is_empty() {
        true => (TransformationPhase::Ready, Answer::Yes, "Valid", "it can be used".to_owned()),
        false => (TransformationPhase::Failed, Answer::No, "InvalidSpec", shorten(&sentences.join("; "), reason_chars)),
    };
    new.phase = phase;
    new.message = Some(message.clone());
    set(&mut new.conditions, Says { type_: READY, answer, reason: reason.into(), message }, generation, now);
    new
}
