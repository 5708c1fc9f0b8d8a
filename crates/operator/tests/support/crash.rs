//! Operators that are killed at a write.
//!
//! Fault model: the operator's n-th write either never reaches the API server, or is done and its answer lost; then the operator is killed
//! where it is, and another one is started. Movers go on meanwhile. Everything else works.

use std::time::Duration;

use kube::Client;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, RequestRecord, Rule, Verb};

use super::{PATIENCE, World, start};

/// Set to anything: every write is tried, and not a sample.
const ALL_VARIABLE: &str = "ORLOP_CRASH_ALL";
/// Writes that are tried otherwise.
const SAMPLE: u64 = 6;
/// Verbs of writes.
const WRITES: [Verb; 4] = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];

/// A proxy for operators that are to be killed.
pub struct Crashes<'a> {
    world: &'a World,
    proxy: FaultProxy,
    client: Client,
    seed: u64,
}

impl<'a> Crashes<'a> {
    pub async fn new(world: &'a World) -> Self {
        let plan = Plan::from_environment();
        let seed = plan.seed();
        let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
        let client = proxy.client().await.unwrap();
        Self { world, proxy, client, seed }
    }

    fn number(&self) -> u64 {
        self.proxy.requests().last().map_or(0, |r| r.number)
    }

    /// Lets a run go through without faults; how many writes it took.
    pub async fn count(&self, begin: impl Future<Output = ()>, end: impl Future<Output = ()>) -> u64 {
        let before = self.number();
        let operator = start(self.client.clone(), self.world.config());
        begin.await;
        end.await;
        operator.kill().await;
        let writes = self.proxy.requests().into_iter().filter(|r| r.number > before && WRITES.contains(&r.verb));
        writes.count().try_into().unwrap()
    }

    /// The writes to be tried, of so many: all of them, or a sample by the seed.
    pub fn chosen(&self, writes: u64) -> Vec<u64> {
        if std::env::var_os(ALL_VARIABLE).is_some() {
            return (1..=writes).collect();
        }
        let stride = writes.div_ceil(SAMPLE).max(1);
        (0..SAMPLE).map(|i| 1 + i * stride + (self.seed.rotate_left(u32::try_from(i).unwrap() * 8)) % stride).collect()
    }

    /// Kills the operator at its n-th write and starts another; whether the run took that many writes.
    pub async fn at(&self, n: u64, fault: Fault, begin: impl Future<Output = ()>, end: impl AsyncFn() -> ()) -> bool {
        let before = self.number();
        let lost = fault == Fault::LoseAnswer;
        self.proxy.set_plan(Plan::seeded(self.seed).with(Rule::any(fault).for_verbs(&WRITES).nth(n)));
        let mut config = self.world.config();
        // So that the operator does not try again before it is killed.
        config.limits.retry = Duration::from_secs(5);
        let operator = start(self.client.clone(), config);
        begin.await;
        let faulted =
            |r: &RequestRecord| r.number > before && r.fault.is_some() && (!lost || r.upstream_status.is_some());
        let reached = tokio::select! {
            record = self.proxy.wait_for(PATIENCE, faulted) => {
                eprintln!("killed at write {n}: {}", record.unwrap());
                true
            }
            () = end() => false,
        };
        operator.kill().await;
        self.proxy.heal();
        if reached {
            let operator = start(self.client.clone(), self.world.config());
            end().await;
            operator.kill().await;
        }
        reached
    }
}
