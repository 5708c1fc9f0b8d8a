//! Of several that do the same, one works: the holder of a lease, as client-go has it.

use anyhow::Context;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::Duration;

/// How long a lease is held without being renewed.
const DURATION_S: i32 = 15;
/// How often it is renewed, or asked for.
const RETRY: Duration = Duration::from_secs(5);

/// A lease that is wanted.
pub(crate) struct Wanted {
    api: Api<Lease>,
    name: String,
    me: String,
}

impl Wanted {
    /// The lease of this name in the namespace of this pod.
    pub(crate) fn new(client: Client, name: String) -> anyhow::Result<Self> {
        let me = std::fs::read_to_string("/etc/hostname").context("read the name of this pod")?.trim().to_owned();
        Ok(Self { api: Api::default_namespaced(client), name, me })
    }

    /// Waits until this process holds it.
    pub(crate) async fn acquire(&self) {
        while !self.attempt().await {
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!(lease = self.name, "leading");
    }

    /// Renews it, and ends when that was not to be had for as long as it is held.
    pub(crate) async fn keep(&self) -> anyhow::Result<()> {
        let mut failures = 0;
        while failures < 3 {
            tokio::time::sleep(RETRY).await;
            failures = if self.attempt().await { 0 } else { failures + 1 };
        }
        anyhow::bail!("the lease {} was lost", self.name)
    }

    async fn attempt(&self) -> bool {
        match self.take().await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "not had");
                false
            }
        }
    }

    async fn take(&self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return Ok(self.api.create(&PostParams::default(), &lease).await.is_ok());
        };
        let spec = lease.spec.take().unwrap_or_default();
        let is_mine = spec.holder_identity.as_deref() == Some(&self.me);
        if !is_mine && !is_over(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(spec).filter(|_| is_mine)));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            // Another one was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, mine: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(DURATION_S),
            acquire_time: Some(mine.and_then(|mine| mine.acquire_time).unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn is_over(spec: &LeaseSpec) -> bool {
    let held = i64::from(spec.lease_duration_seconds.unwrap_or(0)).seconds();
    let Some(MicroTime(renewed)) = spec.renew_time else { return true };
    spec.holder_identity.as_deref().unwrap_or_default().is_empty() || renewed + held < Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_it_was_not_renewed() {
        let spec = |holder: &str, ago: i64| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(DURATION_S),
            renew_time: Some(MicroTime(Timestamp::now() - ago.seconds())),
            ..LeaseSpec::default()
        };
        assert!(!is_over(&spec("a", 5)));
        assert!(is_over(&spec("a", 20)));
        assert!(is_over(&spec("", 5)));
        assert!(is_over(&LeaseSpec::default()));
    }
}
