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
    absent::absent_fields,
    access::Access,
    catalog::ApiCatalog,
    decide::{Action, ReplacePolicy, Step, decide, was_made_plainly},
    discover::discover,
    failure::Failure,
    json,
    key::ObjectKey,
    retry::Patience,
    versions::{self, Spot},
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
    /// It is there, made by this run, but without some fields of the backup, which this cluster does not know.
    Reduced {
        /// Whether it was there before, and was deleted.
        replaced: bool,
        /// The fields that it lacks.
        fields: Vec<String>,
    },
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

impl Applied {
    /// What became of an object of which the server's answer lacks these fields.
    fn lacking(action: Action, fields: Vec<String>) -> Self {
        if fields.is_empty() { action.into() } else { Self::Reduced { replaced: action == Action::Replaced, fields } }
    }
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
    pub(crate) access: Access,
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

    /// Puts objects into the cluster, several at a time; each comes with its key in this cluster, which [`crate::Mapping::apply`]
    /// gives. Outcomes come in the order of the objects.
    pub fn apply_each<'a>(
        &'a self,
        objects: impl Stream<Item = (ObjectKey, Value)> + 'a,
    ) -> impl Stream<Item = (ObjectKey, Applied)> + 'a {
        objects
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
        let spot = self.spot(key).await?;
        let fitted = spot.fit(object);
        let (path, object) = (spot.path.as_str(), &*fitted);
        for _ in 0..MOST_LOOKS {
            let existing = self.access.look(path, &key.name).await?;
            match decide(self.policy, &self.run, key, object, existing.as_ref()) {
                Step::Create => {
                    let action = if *lock(replaced) { Action::Replaced } else { Action::Created };
                    let applied = self.create(path, key, object, action).await?;
                    self.await_established(path, key, object).await?;
                    return Ok(applied);
                }
                Step::Update => {
                    self.update(path, key, &Self::noted(object, &Action::Updated.note(&self.run))).await?;
                    return Ok(Applied::Updated);
                }
                Step::Keep(why) => {
                    self.await_established(path, key, object).await?;
                    return Ok(Applied::Kept { why });
                }
                Step::Done(action) => {
                    self.await_established(path, key, object).await?;
                    let there = existing.as_ref().filter(|existing| was_made_plainly(existing));
                    let fields = there.map(|there| absent_fields(object, there)).unwrap_or_default();
                    return Ok(Applied::lacking(action, fields));
                }
                Step::Delete(uid) => {
                    let params = DeleteParams {
                        propagation_policy: Some(PropagationPolicy::Background),
                        preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                        ..DeleteParams::default()
                    };
                    // Before it is done, for the answer may be lost.
                    *lock(replaced) = true;
                    self.access.delete(path, &key.name, &params).await?;
                    self.await_end(path, &key.name, &uid).await?;
                }
                Step::AwaitEnd(uid) => self.await_end(path, &key.name, &uid).await?,
            }
        }
        Err(Failure::passing("others delete and make it again all the time"))
    }

    /// Creates an object. Applied without force, so that one which somebody else has made meanwhile is not overwritten: that is a
    /// conflict, and the next attempt finds it.
    async fn create(&self, path: &str, key: &ObjectKey, object: &Value, action: Action) -> Result<Applied, Failure> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let noted = Self::noted(object, &action.note(&self.run));
        match self.access.apply(path, &key.name, &params, &noted).await {
            // Server-side apply refuses what a plain creation takes: lists with equal keys (an environment variable given twice), and,
            // on older servers, fields that are newer than they are (validation rules in a CRD), which a creation leaves out and we name.
            Err(failure) if failure.is_apply_only() => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                let noted = Self::noted(object, &action.plain_note(&self.run));
                let answer = self.access.create(path, &params, &noted).await?;
                Ok(Applied::lacking(action, absent_fields(object, &answer)))
            }
            answer => answer.map(|_| action.into()),
        }
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

    /// Where the object is put, if the cluster serves its kind at the version of the backup, or at one that it can be rewritten to.
    pub(crate) async fn spot(&self, key: &ObjectKey) -> Result<Spot, Failure> {
        let catalog = lock(&self.catalog).clone();
        let answer = versions::find(&catalog, key);
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
        versions::find(&current, key).map_err(|failure| Failure { retryable: true, ..failure })
    }

    fn noted(object: &Value, note: &str) -> Value {
        let mut object = object.clone();
        json::set(&mut object, &["metadata", "annotations", RESTORED_BY], note.into());
        object
    }
}

/// Locks, also after a panic of another holder: what is held here is replaced as a whole, and never half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
