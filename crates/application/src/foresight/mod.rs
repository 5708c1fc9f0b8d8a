//! What would become of an object if it were restored now, with nothing changed.
//!
//! It is decided as [`crate::Applier`] decides, and the server is asked by dry runs: so what it fills in, and what it would refuse, is known
//! before anything is done.

mod diff;

use std::sync::Arc;

use kube::Client;
use kube::api::{PatchParams, PostParams};
use serde_json::Value;

use crate::access::Access;
use crate::apply::FIELD_MANAGER;
use crate::catalog::ApiCatalog;
use crate::clean::{self, RestoreOptions};
use crate::decide::{ReplacePolicy, Step, decide};
use crate::failure::Failure;
use crate::gitops;
use crate::json;
use crate::key::ObjectKey;
use crate::retry::Patience;
use crate::versions::{self, Spot};

pub use diff::Change;
pub(crate) use diff::differing;
use diff::overlaid;

/// What would become of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreseen {
    /// What would be done.
    pub will: Will,
    /// What keeps it as its own source says: the one that is there, or else the one that would be made.
    pub managed_by: Option<String>,
    /// Which state of the object that is there this speaks of; nothing if none is there.
    pub version: Option<String>,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Will {
    /// It would be made.
    Create,
    /// It would be made when the one that is there, and is being deleted, is gone.
    CreateAfterEnd,
    /// These fields would change.
    Update(Vec<Change>),
    /// What is there would be deleted, and it would be made anew, with these fields changed.
    Replace(Vec<Change>),
    /// What is there would stay, for this reason.
    Keep(String),
    /// The server would not take it, for this reason.
    Conflict(String),
}

/// Looks ahead, for one run.
pub struct Foresight {
    access: Access,
    run: String,
    policy: ReplacePolicy,
    options: RestoreOptions,
    catalog: Arc<ApiCatalog>,
}

impl Foresight {
    /// For a run with that policy, in a cluster that serves these kinds.
    pub fn new(
        client: Client,
        catalog: Arc<ApiCatalog>,
        run: impl Into<String>,
        policy: ReplacePolicy,
        options: RestoreOptions,
        patience: Patience,
    ) -> Self {
        Self { access: Access { client, patience }, run: run.into(), policy, options, catalog }
    }

    /// What would become of an object, cleaned and mapped.
    ///
    /// # Errors
    /// The server did not answer. What it would refuse is no error, but what would become of the object.
    pub async fn foresee(&self, key: &ObjectKey, object: &Value) -> Result<Foreseen, Failure> {
        // A kind that the cluster does not serve yet is one that the restore defines itself: that was checked before.
        let Ok(spot) = versions::find(&self.catalog, key) else {
            return Ok(Foreseen { will: Will::Create, managed_by: gitops::manager(object), version: None });
        };
        let fitted = spot.fit(object);
        let existing = self.access.get(&spot.path, &key.name).await?;
        let will = self.will(&spot, key, &fitted, existing.as_ref()).await?;
        let version = |there: &Value| {
            let of = |field: &str| json::text(there, &["metadata", field]).to_owned();
            format!("{}/{}", of("uid"), of("resourceVersion"))
        };
        Ok(Foreseen {
            will,
            managed_by: gitops::manager(existing.as_ref().unwrap_or(object)),
            version: existing.as_ref().map(version),
        })
    }

    async fn will(
        &self,
        spot: &Spot,
        key: &ObjectKey,
        object: &Value,
        existing: Option<&Value>,
    ) -> Result<Will, Failure> {
        match (decide(self.policy, &self.run, key, object, existing), existing) {
            (Step::Create, _) => self.create(&spot.path, key, object).await,
            (Step::AwaitEnd(_), _) => Ok(Will::CreateAfterEnd),
            (Step::Keep(why), _) => Ok(Will::Keep(why)),
            (Step::Done(_), _) => Ok(Will::Keep("this run has made it already".into())),
            (Step::Update, Some(existing)) => self.update(&spot.path, key, object, existing).await,
            (Step::Delete(_), Some(existing)) => {
                let mut before = existing.clone();
                clean::for_restore(key, &mut before, self.options);
                Ok(Will::Replace(differing(&before, object)))
            }
            (Step::Update | Step::Delete(_), None) => Ok(Will::Create),
        }
    }

    async fn create(&self, path: &str, key: &ObjectKey, object: &Value) -> Result<Will, Failure> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: true, ..PatchParams::default() };
        let applied = || self.access.apply(path, &key.name, &params, object);
        let answer = match self.access.patience.request(applied).await {
            Err(failure) if failure.is_apply_only() => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: true };
                self.access.patience.request(|| self.access.create(path, &params, object)).await
            }
            answer => answer,
        };
        match answer {
            Ok(_) => Ok(Will::Create),
            // Its namespace is yet to be made.
            Err(failure) if failure.is_not_found() || failure.is_no_dry_run() => Ok(Will::Create),
            Err(failure) if failure.retryable => Err(failure),
            Err(failure) => Ok(Will::Conflict(failure.reason)),
        }
    }

    async fn update(&self, path: &str, key: &ObjectKey, object: &Value, existing: &Value) -> Result<Will, Failure> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            dry_run: true,
            force: true,
            ..PatchParams::default()
        };
        let applied = || self.access.apply(path, &key.name, &params, object);
        match self.access.patience.request(applied).await {
            Ok(answer) => Ok(Will::Update(differing(&compared(existing), &compared(&answer)))),
            Err(failure) if failure.is_no_dry_run() => {
                Ok(Will::Update(overlaid(&compared(existing), &compared(object))))
            }
            Err(failure) if failure.retryable => Err(failure),
            Err(failure) => Ok(Will::Conflict(failure.reason)),
        }
    }
}

/// An object without what tells one life of it from another: only what an owner writes is compared.
fn compared(object: &Value) -> Value {
    let mut object = object.clone();
    clean::for_comparison(&mut object);
    object
}
