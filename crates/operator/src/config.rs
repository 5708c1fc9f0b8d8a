//! What an operator is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;

use crate::repositories::Stores;
use crate::rules::Containers;
use crate::turns::Bounds;

/// Everything that an operator is told; nothing is read from the environment below this.
#[derive(Clone)]
pub struct OperatorConfig {
    /// The namespace that the operator lives in: its lease is there.
    pub namespace: String,
    /// Name of this process among the operators, such as the name of its pod.
    pub identity: String,
    /// The image that mover pods run; the operator's own.
    pub image: String,
    /// Names of Secrets with which mover pods pull the image. They must exist in every namespace whose volumes are moved.
    pub pull_secrets: Vec<String>,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// Whether only the holder of the lease reconciles. Off only where there can be no second operator.
    pub leader_election: bool,
    /// All times and counts.
    pub limits: Limits,
    /// How locations become stores.
    pub stores: Arc<dyn Stores>,
    /// How commands get into containers.
    pub containers: Arc<dyn Containers>,
    /// What else works while this operator leads.
    pub companions: Vec<Arc<dyn Companion>>,
}

/// A controller of others: several of them need one lease, and not one each.
pub trait Companion: Send + Sync {
    /// Begins its work, which ends only by being dropped.
    fn begin(&self) -> BoxFuture<'static, ()>;

    /// Puts what it counts among the operator's metrics.
    fn register(&self, registry: &mut Registry);
}

/// Every time and every count of the operator, in one place, so that a test can shorten them and a reader can find them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Reconciles of one kind at a time. A run that waits for a slow store takes one place, so more than a few.
    pub reconciles_at_once: u16,
    /// After how long a run that is under way is looked at again when no event tells of it.
    pub poll: Duration,
    /// After how long something that went wrong on the way to the API server or a store is tried again.
    pub retry: Duration,
    /// After how long a conflict of two writers is looked at again: only the cache has to catch up.
    pub conflict_retry: Duration,
    /// How long a run tries to reach its location before it fails. A location is often back in minutes.
    pub location_patience: Duration,
    /// How often a location is probed when nothing changes.
    pub probe_interval: Duration,
    /// How soon a location that cannot be used is probed again.
    pub probe_retry: Duration,
    /// How long one probe may take; a store that hangs is a store that cannot be reached.
    pub probe_timeout: Duration,
    /// Mover pods of one run at a time: each reads a volume at full speed, and the application goes on beside it.
    pub movers_at_once: usize,
    /// Mover pods of all runs at a time.
    pub movers: Bounds,
    /// Movers that are started for one volume before it is given up.
    pub mover_attempts: u32,
    /// How long a mover pod may wait for its node, its volume and its image.
    pub mover_start_deadline: Duration,
    /// How long one mover may work; 24 hours move 10 TiB at 120 MiB/s.
    pub mover_deadline: Duration,
    /// How long a restored claim may take to be bound to its filled volume, and a replaced one to go, once either was asked for.
    pub claim_patience: Duration,
    /// How long a run waits for the end of what it made for its own use, such as movers: they end within a minute, or when their node is given up. What somebody holds with a
    /// finalizer is let go then, and goes by itself.
    pub end_patience: Duration,
    /// How long objects that the API server cannot take for the moment are tried again before they count as failed.
    pub object_patience: Duration,
    /// How soon after a step of a restore the next one is looked for: mostly somebody else has a small part to do in between.
    pub step_pause: Duration,
    /// What concerns the rules of applications.
    pub hooks: HookLimits,
    /// How much of a plan is listed in a status.
    pub plan: PlanLimits,
    /// Workloads listed in a status; all are counted, and waited for.
    pub workloads: usize,
    /// Missed items named in a status; all are in the ledger of the recovery point. Keeps the resource far below etcd's 1.5 MiB.
    pub missed_items: usize,
    /// Characters of one reason in a status, for the same cause.
    pub reason_chars: usize,
    /// How often things of runs that are gone are looked for.
    pub sweep_interval: Duration,
    /// Age from which a lease that is not renewed can be taken.
    pub lease_duration: Duration,
    /// How long renewing may fail before the holder stops by itself; shorter than `lease_duration`, so that two never work at once.
    pub lease_renew_deadline: Duration,
    /// Time between two tries to take or renew the lease.
    pub lease_retry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reconciles_at_once: 8,
            poll: Duration::from_secs(2),
            retry: Duration::from_secs(5),
            conflict_retry: Duration::from_millis(200),
            location_patience: Duration::from_secs(600),
            probe_interval: Duration::from_secs(300),
            probe_retry: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(60),
            movers_at_once: 4,
            movers: Bounds { cluster: 32, location: 16, node: 4 },
            mover_attempts: 3,
            mover_start_deadline: Duration::from_secs(300),
            mover_deadline: Duration::from_secs(24 * 3600),
            claim_patience: Duration::from_secs(120),
            end_patience: Duration::from_secs(300),
            object_patience: Duration::from_secs(120),
            step_pause: Duration::from_millis(100),
            hooks: HookLimits::default(),
            plan: PlanLimits::default(),
            workloads: 500,
            missed_items: 20,
            reason_chars: 1024,
            sweep_interval: Duration::from_secs(600),
            lease_duration: Duration::from_secs(15),
            lease_renew_deadline: Duration::from_secs(10),
            lease_retry: Duration::from_secs(2),
        }
    }
}

/// How much of the plan of a restore is listed in its status: with these, some 600 KiB at the worst, of the 1.5 MiB that etcd takes. The plan's hash
/// is over all of it.
#[derive(Clone, Debug)]
pub struct PlanLimits {
    /// Objects.
    pub objects: usize,
    /// Changes of fields, over all objects.
    pub changes: usize,
    /// Changes of fields of one object.
    pub changes_of_one: usize,
    /// Characters of one value.
    pub value_chars: usize,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self { objects: 500, changes: 1000, changes_of_one: 50, value_chars: 120 }
    }
}

/// Times and counts of commands in the containers of applications.
#[derive(Clone, Debug)]
pub struct HookLimits {
    /// How often a command that holds something is looked after.
    pub beat: Duration,
    /// After how long without that it is let go, in its container. Several beats, so that an API server that is away for a moment costs no backup; no longer than
    /// a database can stand still because an operator died.
    pub lease: Duration,
    /// How long a command may take to end by itself when it is let go.
    pub grace: Duration,
    /// How long after a failed try the next one begins.
    pub retry: Duration,
    /// How long the API server and the node may take to run a few lines in a container.
    pub exec_timeout: Duration,
    /// Commands of one rule at most, over all its pods. Each has a line in the status.
    pub commands: usize,
    /// Containers that are spoken to at the same time.
    pub at_once: usize,
}

impl Default for HookLimits {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(10),
            lease: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            exec_timeout: Duration::from_secs(15),
            commands: 256,
            at_once: 16,
        }
    }
}
