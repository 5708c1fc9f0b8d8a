//! Asking the API server whether it takes what transformations make, before anything is made.

use std::sync::Arc;

use api::Missed;
use application::{Change, ObjectKey, Patience, Trial};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use serde_json::Value;

use super::Restores;
use super::gather::Gathered;
use super::point::Point;
use super::prepared::{OBJECTS_AT_ONCE, Preparer};
use super::validate::{NamespaceState, Refusal, TargetFacts, transform_refusal};
use crate::error::Error;
use crate::mover_pod;

/// Objects that the API server is asked about at the same time.
const ASKED_AT_ONCE: usize = 8;

/// An object that is asked about.
type Asked = (ObjectKey, Value, Vec<Change>);

/// Why the restore does not begin: the cluster would not take what its transformations make.
///
/// # Errors
/// The API server or the repository did not answer.
pub(super) async fn refusal(
    restores: &Restores,
    gathered: &Gathered,
    point: &Point,
    target: &TargetFacts,
) -> Result<Option<Refusal>, Error> {
    let mut troubles = Vec::new();
    let asking = Asking::new(restores, gathered, target);
    let claims = point.volumes.iter().filter(|wanted| !wanted.changes.is_empty()).filter_map(|wanted| {
        let key = ObjectKey::of(&wanted.manifest).ok()?;
        Some((key, wanted.manifest.clone(), wanted.changes.clone()))
    });
    troubles.extend(asking.each(claims.collect()).await?);
    let keys: Vec<ObjectKey> = point.facts.transformed.objects.iter().cloned().collect();
    if !keys.is_empty() {
        let preparer = Preparer::new(&restores.context.client, &gathered.restore, point).await?;
        for kind in keys.chunk_by(|a, b| (&a.group, &a.kind) == (&b.group, &b.kind)) {
            for some in kind.chunks(OBJECTS_AT_ONCE) {
                let read = preparer.read(some).await?.into_iter().filter(|one| !one.is_lived_on);
                troubles.extend(asking.each(read.map(|one| (one.key, one.object, one.changes)).collect()).await?);
            }
        }
    }
    Ok(transform_refusal(
        "TransformRefused",
        "would not be taken by the cluster as transformations make them",
        &troubles,
    ))
}

struct Asking<'a> {
    trial: Trial,
    target: &'a TargetFacts,
    /// The namespace of the restore: what goes into a namespace that is yet to be made is tried there.
    namespace: String,
}

impl<'a> Asking<'a> {
    fn new(restores: &Restores, gathered: &Gathered, target: &'a TargetFacts) -> Self {
        let catalog = Arc::new(target.catalog.clone());
        let name = format!("orlop-try-{}", mover_pod::short(&gathered.uid));
        Self {
            trial: Trial::new(restores.context.client.clone(), catalog, name, Patience::default()),
            target,
            namespace: gathered.restore.namespace().unwrap_or_default(),
        }
    }

    /// Asks about each; those that would not be taken.
    async fn each(&self, objects: Vec<Asked>) -> Result<Vec<Missed>, Error> {
        let answers = stream::iter(objects).map(|(key, object, changes)| async move {
            let asked = self.trial.refusal(&key, &object, &changes, self.where_to_try(&key)).await;
            match asked {
                Ok(reason) => Ok(reason.map(|reason| Missed { item: key.to_string(), reason })),
                Err(source) => {
                    let doing = format!("ask whether the cluster takes {key}");
                    Err(Error::Application { doing, source: source.into() })
                }
            }
        });
        answers.buffered(ASKED_AT_ONCE).try_filter_map(|trouble| async { Ok(trouble) }).try_collect().await
    }

    fn where_to_try<'b>(&'b self, key: &'b ObjectKey) -> &'b str {
        let is_there = |namespace: &&str| self.target.namespaces.get(*namespace) == Some(&NamespaceState::Active);
        key.namespace.as_deref().filter(is_there).unwrap_or(&self.namespace)
    }
}
