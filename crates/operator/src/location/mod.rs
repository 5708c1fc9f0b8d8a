//! Locations: probed when they or their Secrets change, and now and then.

mod apply;
mod gather;
mod plan;
mod status;
mod validate;

use std::future::ready;
use std::sync::Arc;

use api::{BackupLocation, RUN_LABEL};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};

use crate::context::{Context, try_again};
use crate::error::Error;
use crate::repositories::secret_names;

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    let client = context.client.clone();
    let controller = Controller::new(Api::<BackupLocation>::all(client.clone()), watcher::Config::default());
    let locations = controller.store();
    // Only names and versions of the Secrets are watched, and none that runs make.
    let of_others = watcher::Config::default().labels(&format!("!{RUN_LABEL}"));
    controller
        .with_config(context.controller_config())
        .watches(Api::<PartialObjectMeta<Secret>>::all(client), of_others, move |secret| {
            naming(&locations, &secret.namespace().unwrap_or_default(), &secret.name_any())
        })
        .run(reconcile, try_again, context.clone())
        .for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(gone)) = result {
                context.metrics.forget_location(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
            }
            ready(())
        })
        .await;
}

/// The locations that name a Secret.
fn naming(locations: &Store<BackupLocation>, namespace: &str, secret: &str) -> Vec<ObjectRef<BackupLocation>> {
    let names = |l: &BackupLocation| secret_names(l).iter().any(|(name, _)| *name == secret);
    let beside = |l: &BackupLocation| l.namespace().as_deref() == Some(namespace);
    let named = locations.state().into_iter().filter(|l| beside(l) && names(l));
    named.map(|l| ObjectRef::from_obj(&*l)).collect()
}

async fn reconcile(cached: Arc<BackupLocation>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(gathered) = gather::gather(&context, &cached).await? else {
        return Ok(Action::await_change());
    };
    let plan = plan::plan(&gathered, context.limits());
    let applied = apply::apply(&context, &gathered.location, plan).await?;
    status::write(&context, gathered, applied).await
}
