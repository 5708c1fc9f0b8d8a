//! Leadership: of several operators one reconciles, the holder of a Lease.
//!
//! Invariant: who could not renew for `lease_renew_deadline` has stopped before `lease_duration` lets another begin. What still slips
//! through a paused process meets the resource version on every status it writes, and the deterministic names of everything it makes.
//! Ages are measured on the own clock, from the moment a change of the lease was seen: clocks of two nodes are never compared.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::config::{Limits, OperatorConfig};
use crate::error::{During, Error};
use crate::metrics::Metrics;

/// Name of the lease.
pub const LEASE: &str = "orlop-operator";

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is none: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Its holder gave it up, or has not renewed it in time: take it.
    Take,
    /// Somebody else has it.
    Wait,
}

/// How a try to have the lease ended.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// It is ours from now on.
    Ours,
    /// Somebody else has it.
    Others,
    /// Somebody wrote it at the same time; the next look tells who.
    Raced,
}

/// Decides, knowing for how long the lease has been seen unchanged.
fn decide(spec: Option<&LeaseSpec>, me: &str, unchanged_for: Duration) -> Step {
    let Some(spec) = spec else { return Step::Create };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
    match holder {
        "" => Step::Take,
        _ if holder == me => Step::Renew,
        _ if unchanged_for >= Duration::from_secs(seconds) => Step::Take,
        _ => Step::Wait,
    }
}

/// One candidate for the lease.
struct Candidate {
    api: Api<Lease>,
    namespace: String,
    me: String,
    limits: Limits,
    /// The resource version that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    fn new(client: Client, config: &OperatorConfig) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            namespace: config.namespace.clone(),
            me: config.identity.clone(),
            limits: config.limits.clone(),
            seen: None,
        }
    }

    /// Notes what is there; for how long it has been so.
    fn observe(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(|l| l.metadata.resource_version.clone()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Tries to have the lease after this.
    async fn attempt(&mut self) -> Result<Attempt, Error> {
        let found = self.api.get_opt(LEASE).await.during(|| format!("read the Lease {}/{LEASE}", self.namespace))?;
        let unchanged_for = self.observe(found.as_ref());
        let step = decide(found.as_ref().map(|l| l.spec.as_ref().unwrap_or(&EMPTY)), &self.me, unchanged_for);
        if step == Step::Wait {
            return Ok(Attempt::Others);
        }
        let lease = self.lease(found, &step);
        let written = match step {
            Step::Create => self.api.create(&PostParams::default(), &lease).await,
            _ => self.api.replace(LEASE, &PostParams::default(), &lease).await,
        };
        match written {
            Ok(_) => Ok(Attempt::Ours),
            Err(kube::Error::Api(s)) if s.is_conflict() || s.is_already_exists() => Ok(Attempt::Raced),
            Err(error) => Err(error).during(|| format!("write the Lease {}/{LEASE}", self.namespace)),
        }
    }

    fn lease(&self, found: Option<Lease>, step: &Step) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_default();
        if *step != Step::Renew {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds =
            Some(i32::try_from(self.limits.lease_duration.as_secs().max(1)).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        lease
    }

    /// Waits until we have the lease. Gives the instant before it was asked for: others count its age from when it was written, which is
    /// after that, and may be long before the answer came. An answer that comes too late to lead by is none.
    async fn acquire(&mut self) -> Instant {
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(self.limits.lease_renew_deadline, self.attempt()).await {
                Ok(Ok(Attempt::Ours)) => return begun,
                Ok(Ok(Attempt::Others | Attempt::Raced)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be taken"),
                Err(_) => tracing::warn!("the lease could not be taken in time"),
            }
            tokio::time::sleep(self.limits.lease_retry).await;
        }
    }

    /// Keeps the lease, which was last asked for at that instant; returns when it is lost.
    async fn keep(&mut self, mut renewed: Instant) {
        loop {
            let left = self.limits.lease_renew_deadline.saturating_sub(renewed.elapsed());
            tokio::time::sleep(self.limits.lease_retry.min(left)).await;
            let left = self.limits.lease_renew_deadline.saturating_sub(renewed.elapsed());
            let begun = Instant::now();
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(Attempt::Ours)) => renewed = begun,
                Ok(Ok(Attempt::Others)) => return,
                Ok(Ok(Attempt::Raced)) => tracing::warn!("somebody else wrote the lease at the same time"),
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => tracing::warn!("the lease was not renewed in time"),
            }
            if renewed.elapsed() >= self.limits.lease_renew_deadline {
                return;
            }
        }
    }

    /// Gives the lease up, so that the next one need not wait for its age.
    async fn release(&mut self) -> Result<(), Error> {
        let doing = || format!("release the Lease {}/{LEASE}", self.namespace);
        let Some(mut lease) = self.api.get_opt(LEASE).await.during(doing)? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        self.api.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ()).during(doing)
    }
}

static EMPTY: LeaseSpec = LeaseSpec {
    acquire_time: None,
    holder_identity: None,
    lease_duration_seconds: None,
    lease_transitions: None,
    preferred_holder: None,
    renew_time: None,
    strategy: None,
};

/// Runs `work` whenever this process leads, until `shutdown`. When the lease is lost the work is dropped where it stands, then the
/// lease is tried for again.
pub async fn lead<F, W>(
    client: Client,
    config: &OperatorConfig,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    work: W,
) where
    W: Fn() -> F,
    F: Future<Output = ()>,
{
    let mut candidate = Candidate::new(client, config);
    loop {
        let begun = tokio::select! {
            begun = candidate.acquire() => begun,
            () = shutdown.cancelled() => return,
        };
        tracing::info!(identity = candidate.me, "this operator leads");
        metrics.set_leader(true);
        let stopped = tokio::select! {
            () = candidate.keep(begun) => false,
            () = work() => true,
            () = shutdown.cancelled() => true,
        };
        metrics.set_leader(false);
        if stopped {
            if let Err(error) = candidate.release().await {
                tracing::warn!(%error, "the lease was not released; the next operator waits for its age");
            }
            return;
        }
        tracing::warn!(identity = candidate.me, "this operator leads no more; everything under way is dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_from_nobody_or_from_the_dead() {
        let held = |holder: Option<&str>| LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: Some(15),
            ..EMPTY.clone()
        };
        let check = |spec: Option<LeaseSpec>, seconds: u64, expected: Step| {
            assert_eq!(
                decide(spec.as_ref(), "me", Duration::from_secs(seconds)),
                expected,
                "{spec:?} after {seconds} s"
            );
        };
        check(None, 0, Step::Create);
        check(Some(EMPTY.clone()), 0, Step::Take);
        check(Some(held(None)), 0, Step::Take);
        check(Some(held(Some(""))), 0, Step::Take);
        check(Some(held(Some("me"))), 100, Step::Renew);
        check(Some(held(Some("other"))), 14, Step::Wait);
        check(Some(held(Some("other"))), 15, Step::Take);
    }
}
