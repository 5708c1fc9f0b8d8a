//! All waiting times.

use std::time::Duration;

/// How long things take and are waited for; the same on all nodes.
#[derive(Debug, Clone)]
pub struct Times {
    /// How often a node says that it lives.
    pub heartbeat: Duration,
    /// After how long without that it is taken for dead: its volumes may be taken over. Nothing is lost if it lives after all, since its leases and not this
    /// end what it serves; but who uses them there loses them.
    pub dead_after: Duration,
    /// After how long its storage is offline, if nobody else reaches it either: pods are moved off it. Longer than a daemon takes to be replaced.
    pub offline_after: Duration,
    /// How long a pod may take, beyond its grace period, to end on a node whose storage is offline: what it waits for may never come.
    pub pod_end: Duration,
    /// How long a dead node is waited for before its replicas are built elsewhere: long enough to start a machine anew, or to carry it to another place.
    pub rebuild_after: Duration,
    /// How often everything is looked at, should no event have told of it.
    pub look: Duration,
    /// How soon it is looked at again after an event; events that come together are handled together.
    pub settle: Duration,
    /// How often a node tells how much room it has, if that has changed.
    pub report: Duration,
    /// How long one request to the API server may take.
    pub request: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            dead_after: Duration::from_secs(8),
            offline_after: Duration::from_secs(30),
            pod_end: Duration::from_secs(10),
            rebuild_after: Duration::from_secs(600),
            look: Duration::from_secs(5),
            settle: Duration::from_millis(200),
            report: Duration::from_secs(30),
            request: Duration::from_secs(10),
        }
    }
}
