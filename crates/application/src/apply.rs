//! Putting objects of a backup into a cluster, so that doing it twice does it once.
//!
//! An object is created and updated by server-side apply under a field manager of its own. Every object that a run makes or
//! changes carries the run's name; when the run comes by again (after a crash, or because an answer was lost) it finds its name,
//! and reports what it did the first time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt};
use kube::{
    Client,
    api::{DeleteParams, PatchParams, PostParams, Preconditions, PropagationPolicy},
};
use serde_json::Value;

use crate::{
    access::Access,
    catalog::ApiCatalog,
    decide::{Action, ReplacePolicy, Step, decide},
    discover::discover,
    failure::Failure,
    json,
    key::ObjectKey,
    retry::Patience,
};

/// The field manager of everything that a restore writes.
pub const FIELD_MANAGER: &str = "orlop-restore";
/// The annotation that names the run that made or changed an object, and what it did.
pub const RESTORED_BY: &str = "orlop.io/restored-by";
/// Objects applied at a time. API servers let a client have some tens of requests in flight; more only queue there.
const APPLIES_AT_ONCE: usize = 8;
/// How often an attempt looks at an object that others keep changing, before it counts as failed.
const MOST_LOOKS: u32 = 8;

/// What became of an object of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was not there, and is now.
    Created,
    /// It was there, and has the fields of the backup now.
    Updated,
    /// It was there, was deleted, and is there again as in the backup.
    Replaced,
    /// Something of its name is there, and stays as it is.
    Kept {
        /// Why.
        why: String,
    },
    /// It is not there as it should be.
    Failed {
        /// What happened, and what to do.
        reason: String,
        /// Whether a later run may succeed with nothing changed.
        retryable: bool,
    },
}

impl From<Action> for Applied {
    fn from(action: Action) -> Self {
        match action {
            Action::Created => Self::Created,
            Action::Updated => Self::Updated,
            Action::Replaced => Self::Replaced,
        }
    }
}

/// Puts objects into one cluster, on behalf of one run.
pub struct Applier {
    access: Access,
    run: String,
    policy: ReplacePolicy,
    catalog: Mutex<Arc<ApiCatalog>>,
    /// One discovery at a time; others wait for what it finds.
    discovery: tokio::sync::Mutex<()>,
    /// Groups and kinds that this run defined: the server may take a moment to serve them.
    defined: Mutex<BTreeSet<(String, String)>>,
}

impl Applier {
    /// An applier for a run. The run's name must be its own for ever (a uid is): by it a run knows its objects.
    pub fn new(
        client: Client,
        catalog: Arc<ApiCatalog>,
        run: impl Into<String>,
        policy: ReplacePolicy,
        patience: Patience,
    ) -> Self {
        Self {
            access: Access { client, patience },
            run: run.into(),
            policy,
            catalog: Mutex::new(catalog),
            discovery: tokio::sync::Mutex::new(()),
            defined: Mutex::new(BTreeSet::new()),
        }
    }

    /// Puts objects into the cluster, several at a time. Outcomes come in the order of the objects.
    pub fn apply_each<'a>(
        &'a self,
        objects: impl Stream<Item = Value> + 'a,
    ) -> impl Stream<Item = (ObjectKey, Applied)> + 'a {
        let named = objects.filter_map(|object| async move { ObjectKey::of(&object).ok().map(|key| (key, object)) });
        named
            .map(move |(key, object)| async move {
                let applied = self.apply(&key, &object).await;
                (key, applied)
            })
            .buffered(APPLIES_AT_ONCE)
    }

    /// Puts an object, cleaned and mapped, into the cluster.
    pub async fn apply(&self, key: &ObjectKey, object: &Value) -> Applied {
        let replaced = Mutex::new(false);
        match self.access.patience.request(|| self.attempt(key, object, &replaced)).await {
            Ok(applied) => applied,
            Err(failure) => Applied::Failed { reason: failure.reason, retryable: failure.retryable },
        }
    }

    /// One attempt: looks, decides, acts, and looks again where that is due. `replaced` outlives it, so that an attempt after one
    /// that deleted the old object tells a replacement from a creation.
    async fn attempt(&self, key: &ObjectKey, object: &Value, replaced: &Mutex<bool>) -> Result<Applied, Failure> {
        let path = self.path(key).await?;
        for _ in 0..MOST_LOOKS {
            let existing = self.access.look(&path, &key.name).await?;
            match decide(self.policy, &self.run, key, object, existing.as_ref()) {
                Step::Create => {
                    let action = if *lock(replaced) { Action::Replaced } else { Action::Created };
                    self.create(&path, key, &self.noted(object, action)).await?;
                    self.await_established(&path, key, object).await?;
                    return Ok(action.into());
                }
                Step::Update => {
                    self.update(&path, key, &self.noted(object, Action::Updated)).await?;
                    return Ok(Applied::Updated);
                }
                Step::Keep(why) => {
                    self.await_established(&path, key, object).await?;
                    return Ok(Applied::Kept { why });
                }
                Step::Done(action) => {
                    self.await_established(&path, key, object).await?;
                    return Ok(action.into());
                }
                Step::Delete(uid) => {
                    let params = DeleteParams {
                        propagation_policy: Some(PropagationPolicy::Background),
                        preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                        ..DeleteParams::default()
                    };
                    self.access.delete(&path, &key.name, &params).await?;
                    *lock(replaced) = true;
                    self.await_end(&path, &key.name, &uid).await?;
                }
                Step::AwaitEnd(uid) => self.await_end(&path, &key.name, &uid).await?,
            }
        }
        Err(Failure::passing("others delete and make it again all the time"))
    }

    /// Creates an object. Applied without force, so that one which somebody else has made meanwhile is not overwritten: that is a
    /// conflict, and the next attempt finds it.
    async fn create(&self, path: &str, key: &ObjectKey, object: &Value) -> Result<(), Failure> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match self.access.apply(path, &key.name, &params, object).await {
            // Server-side apply refuses lists with equal keys (an environment variable given twice), which a plain creation takes.
            Err(failure) if failure.reason.contains("duplicate entries for key") => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                self.access.create(path, &params, object).await?;
            }
            answer => drop(answer?),
        }
        Ok(())
    }

    async fn update(&self, path: &str, key: &ObjectKey, object: &Value) -> Result<(), Failure> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), force: true, ..PatchParams::default() };
        match self.access.apply(path, &key.name, &params, object).await {
            Err(failure) if failure.code == Some(422) => Err(Failure {
                reason: format!(
                    "{} (where a field cannot change, replacePolicy Delete replaces the object)",
                    failure.reason
                ),
                ..failure
            }),
            answer => answer.map(drop),
        }
    }

    /// Waits until a life of an object is over.
    async fn await_end(&self, path: &str, name: &str, uid: &str) -> Result<(), Failure> {
        let patience = &self.access.patience;
        let holders = Mutex::new(String::new());
        let look = || async {
            let existing = self.access.look(path, name).await?;
            let Some(existing) = existing.filter(|existing| json::text(existing, &["metadata", "uid"]) == uid) else {
                return Ok(Some(()));
            };
            let finalizers = json::list(&existing, &["metadata", "finalizers"]).iter().filter_map(Value::as_str);
            *lock(&holders) = finalizers.collect::<Vec<_>>().join(", ");
            Ok(None)
        };
        if patience.until(patience.gone_within, look).await?.is_some() {
            return Ok(());
        }
        let holders = lock(&holders).clone();
        let seconds = patience.gone_within.as_secs();
        Err(Failure::lasting(match holders.as_str() {
            "" => format!("the object that it replaces is still there {seconds} s after it was deleted"),
            _ => format!(
                "the object that it replaces is held by the finalizers {holders} {seconds} s after it was deleted: end what they wait for"
            ),
        }))
    }

    /// Waits until a definition is established; anything else is at once.
    async fn await_established(&self, path: &str, key: &ObjectKey, object: &Value) -> Result<(), Failure> {
        if !key.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            return Ok(());
        }
        let kind = json::text(object, &["spec", "names", "kind"]).to_owned();
        lock(&self.defined).insert((json::text(object, &["spec", "group"]).to_owned(), kind));
        let patience = &self.access.patience;
        let look = || async {
            let definition = self.access.look(path, &key.name).await?;
            let condition = |name: &str| {
                let conditions = json::list(definition.as_ref().unwrap_or(&Value::Null), &["status", "conditions"]);
                conditions.iter().find(|condition| json::text(condition, &["type"]) == name).cloned()
            };
            if let Some(refused) = condition("NamesAccepted").filter(|c| json::text(c, &["status"]) == "False") {
                let message = json::text(&refused, &["message"]);
                return Err(Failure::lasting(format!(
                    "the cluster does not accept the names of the definition: {message}"
                )));
            }
            Ok(condition("Established").filter(|c| json::text(c, &["status"]) == "True").map(drop))
        };
        let established = patience.until(patience.established_within, look).await?;
        let seconds = patience.established_within.as_secs();
        established.ok_or_else(|| Failure::passing(format!("the definition is not established after {seconds} s")))
    }

    /// The path of an object's kind, if the cluster serves it at the version of the backup.
    async fn path(&self, key: &ObjectKey) -> Result<String, Failure> {
        let catalog = lock(&self.catalog).clone();
        let answer = find(&catalog, key);
        if answer.is_ok() || !lock(&self.defined).contains(&(key.group.clone(), key.kind.clone())) {
            return answer;
        }
        // The run has defined this kind since the cluster was last asked.
        let discovery = self.discovery.lock().await;
        let current = lock(&self.catalog).clone();
        let current = if Arc::ptr_eq(&catalog, &current) {
            let fresh = Arc::new(discover(&self.access.client, &self.access.patience).await?);
            *lock(&self.catalog) = fresh.clone();
            fresh
        } else {
            current
        };
        drop(discovery);
        find(&current, key).map_err(|failure| Failure { retryable: true, ..failure })
    }

    fn noted(&self, object: &Value, action: Action) -> Value {
        let mut object = object.clone();
        json::set(&mut object, &["metadata", "annotations", RESTORED_BY], action.note(&self.run).into());
        object
    }
}

/// The path of an object's kind, or what is missing.
fn find(catalog: &ApiCatalog, key: &ObjectKey) -> Result<String, Failure> {
    let name = if key.group.is_empty() { key.kind.clone() } else { format!("{}.{}", key.kind, key.group) };
    let Some(kind) = catalog.get(&key.group, &key.kind) else {
        return Err(Failure::lasting(format!(
            "the kind {name} is not known to this cluster: install what defines it (a CRD or an aggregated API), then restore again"
        )));
    };
    if !kind.versions.contains(&key.version) {
        return Err(Failure::lasting(format!(
            "this cluster serves {name} in {} only, and the backup has it in {}: install a release that serves both",
            kind.versions.join(", "),
            key.version
        )));
    }
    if kind.namespaced != key.namespace.is_some() {
        let scope = if kind.namespaced { "in namespaces" } else { "in cluster scope" };
        return Err(Failure::lasting(format!("{name} lives {scope} in this cluster, and in the backup it does not")));
    }
    Ok(kind.path(&key.version, key.namespace.as_deref()))
}

/// Locks, also after a panic of another holder: what is held here is replaced as a whole, and never half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::served;

    #[test]
    fn what_the_cluster_lacks_is_named() {
        let verbs: &[&str] = &["create", "get", "list"];
        let catalog = ApiCatalog::build(vec![served(
            "example.com",
            "v2",
            true,
            &[("Widget", "widgets", true, verbs), ("Zone", "zones", false, verbs)],
        )]);
        let check = |version: &str, kind: &str, namespace: Option<&str>, expected: Result<&str, &str>| {
            let key = ObjectKey {
                group: "example.com".into(),
                version: version.into(),
                kind: kind.into(),
                namespace: namespace.map(Into::into),
                name: "x".into(),
            };
            let found = find(&catalog, &key).map_err(|failure| failure.reason);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check("v2", "Widget", Some("shop"), Ok("/apis/example.com/v2/namespaces/shop/widgets"));
        check("v2", "Zone", None, Ok("/apis/example.com/v2/zones"));
        check(
            "v1",
            "Widget",
            Some("shop"),
            Err(
                "this cluster serves Widget.example.com in v2 only, and the backup has it in v1: install a release that serves both",
            ),
        );
        check(
            "v1",
            "Gadget",
            Some("shop"),
            Err(
                "the kind Gadget.example.com is not known to this cluster: install what defines it (a CRD or an aggregated API), then restore again",
            ),
        );
        check(
            "v2",
            "Zone",
            Some("shop"),
            Err("Zone.example.com lives in cluster scope in this cluster, and in the backup it does not"),
        );
    }
}
