//! What all reconciles share.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::controller::{Action, Config};
use kube::{Api, Client, Resource, ResourceExt};

use crate::backup::memory::Memory;
use crate::cleanup::{self, Waits};
use crate::config::{Limits, OperatorConfig};
use crate::error::Error;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::repositories::Repositories;
use crate::turns::Turns;

/// The namespace whose uid tells one cluster from another: every cluster has it, for as long as it lives.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// What all reconciles share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was started with.
    pub config: OperatorConfig,
    /// Opened repositories.
    pub repositories: Repositories,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What people are told.
    pub events: Events,
    /// What is remembered of backups, to save work.
    pub(crate) backups: Memory,
    /// Since when runs wait for the end of what they made.
    pub(crate) waits: Waits,
    /// Whose mover is next.
    pub(crate) turns: Turns,
    /// Held from looking at the other runs that make objects to having begun, so that two that share a namespace cannot both begin.
    pub(crate) admission: Arc<tokio::sync::Mutex<()>>,
    /// Tells this cluster from every other one.
    pub cluster_id: String,
}

impl Context {
    /// Puts it together.
    #[must_use]
    pub fn new(client: Client, config: OperatorConfig, metrics: Arc<Metrics>, cluster_id: String) -> Self {
        let events = Events::new(client.clone(), &config.identity);
        let repositories = Repositories::new(config.stores.clone());
        let turns = Turns::new(config.limits.movers, config.limits.poll);
        Self {
            client,
            config,
            repositories,
            metrics,
            events,
            backups: Memory::default(),
            waits: Waits::default(),
            turns,
            admission: Arc::default(),
            cluster_id,
        }
    }

    /// All times and counts.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// How the controllers run.
    #[must_use]
    pub fn controller_config(&self) -> Config {
        Config::default().concurrency(self.limits().reconciles_at_once)
    }
}

/// When something that went wrong is tried again. For the `error_policy` of every controller: logs and counts it.
pub fn try_again<K: Resource<DynamicType = ()>>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.reconcile_error(&K::kind(&()), error);
    if error.is_conflict() {
        return Action::requeue(context.limits().conflict_retry);
    }
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    tracing::warn!(kind = %K::kind(&()), namespace, name = object.name_any(), %error, "tried again later");
    Action::requeue(context.limits().retry)
}

/// Waits for the API server, and asks it which cluster it is.
pub async fn cluster_id(client: &Client, limits: &Limits) -> String {
    loop {
        match Api::<Namespace>::all(client.clone()).get(CLUSTER_NAMESPACE).await {
            Ok(namespace) => {
                if let Some(uid) = namespace.uid() {
                    return uid;
                }
                tracing::warn!("the namespace {CLUSTER_NAMESPACE} has no uid");
            }
            Err(error) => tracing::warn!(%error, "the API server does not say which cluster this is"),
        }
        tokio::time::sleep(limits.retry).await;
    }
}

/// Removes what runs that are gone have left, now and then, for ever.
pub async fn sweep(context: Arc<Context>) {
    loop {
        let wait: Duration = match cleanup::sweep(&context.client).await {
            Ok(()) => context.limits().sweep_interval,
            Err(error) => {
                tracing::warn!(%error, "what runs that are gone have left was not looked for");
                context.limits().retry
            }
        };
        tokio::time::sleep(wait).await;
    }
}
