//! Operators that are killed at a write.
//!
//! Fault model: the operator's n-th write either never reaches the API server, or is done and its answer lost; then the operator is killed
//! where it is, and another one is started. Movers go on meanwhile. Everything else works.
//!
//! Which writes are tried follows from a run without faults: all of them, or one of each stage. Each of them must be reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::LocationPhase;

use kube::Client;
use operator::OperatorConfig;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, RequestRecord, Rule, Verb};

use super::{ADMIN, PATIENCE, World, start};

/// Set to anything: every write is tried, and not a sample.
const ALL_VARIABLE: &str = "ORLOP_CRASH_ALL";
/// Writes that a run may take less than another one, as when nobody looks just while a mover waits.
const FEWER: u64 = 4;
/// Part of the path of events. A stage that begins is told by one, so they divide the writes of a run into stages.
const EVENTS: &str = "/events.k8s.io/";
/// Verbs of writes.
const WRITES: [Verb; 4] = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];

/// A proxy for operators that are to be killed.
pub struct Crashes<'a> {
    world: &'a World,
    proxy: FaultProxy,
    client: Client,
    seed: u64,
    /// Runs so far that were to be disturbed.
    runs: AtomicU64,
}

impl<'a> Crashes<'a> {
    /// The location has been looked at when this returns, so that what an operator writes about it is the same in each run.
    pub async fn new(world: &'a World) -> Self {
        let operator = start(world.client.clone(), world.config());
        world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
        operator.kill().await;
        let plan = Plan::from_environment();
        let seed = plan.seed();
        let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
        let client = proxy.client().await.unwrap();
        Self { world, proxy, client, seed, runs: AtomicU64::new(0) }
    }

    fn number(&self) -> u64 {
        self.proxy.requests().last().map_or(0, |r| r.number)
    }

    /// How operators are started that are to be killed: nothing is looked at again without need, so that runs take the same writes.
    fn config(&self) -> OperatorConfig {
        let mut config = self.world.config();
        config.limits.probe_interval = Duration::from_secs(3600);
        config
    }

    /// Lets a run go through without faults; its writes.
    pub async fn calm(&self, begin: impl Future<Output = ()>, end: impl Future<Output = ()>) -> Vec<RequestRecord> {
        let before = self.number();
        let operator = start(self.client.clone(), self.config());
        begin.await;
        end.await;
        operator.kill().await;
        let is_write = |r: &RequestRecord| r.number > before && WRITES.contains(&r.verb);
        self.proxy.requests().into_iter().filter(is_write).collect()
    }

    /// The numbers of the writes to be tried, of those of a calm run: all of them, or by the seed one of each stage.
    pub fn chosen(&self, writes: &[RequestRecord]) -> Vec<u64> {
        let all: Vec<u64> = (1..).take(writes.len()).collect();
        if std::env::var_os(ALL_VARIABLE).is_some() {
            return all;
        }
        let numbered: Vec<_> = all.into_iter().zip(writes).collect();
        let stages = numbered.split_inclusive(|(_, write)| write.path.contains(EVENTS));
        let one = |(i, stage): (usize, &[(u64, &RequestRecord)])| {
            let draw = self.seed.rotate_left(u32::try_from(i % 8).unwrap() * 8);
            stage[usize::try_from(draw % stage.len() as u64).unwrap()].0
        };
        stages.enumerate().map(one).collect()
    }

    /// Kills the operator of a run at the writes that are chosen of those of a calm run, of which each stage has one: before each is done, and after. Each time
    /// another operator brings the run to its end; what must be so then is checked with the name of the run and how it came about.
    pub async fn everywhere(
        &self,
        stages: usize,
        begin: impl AsyncFn(&str) -> () + Copy,
        end: impl AsyncFn(&str) -> () + Copy,
        check: impl AsyncFn(&str, &str) -> (),
    ) {
        let writes = self.calm(begin("calm"), end("calm")).await;
        check("calm", "without a fault").await;
        assert!(writes.len() > 2 * stages, "{stages} stages take more writes than {writes:#?}");
        let chosen = self.chosen(&writes);
        assert!(chosen.len() >= stages, "each of {stages} stages has a write: {chosen:?} of {writes:#?}");
        for n in chosen {
            for fault in [Fault::LoseAnswer, Fault::Reset] {
                let name = self.kill_at(n, &fault, begin, end).await;
                check(&name, &format!("write {n} of {}, {fault}", writes.len())).await;
            }
        }
    }

    /// Lets a run begin, kills the operator at its n-th write, and lets another one bring the run to its end. Runs are given their names;
    /// the name of this one. One that ends before its n-th write is followed by another that is killed a little earlier.
    pub async fn kill_at(
        &self,
        n: u64,
        fault: &Fault,
        begin: impl AsyncFn(&str) -> (),
        end: impl AsyncFn(&str) -> (),
    ) -> String {
        let earliest = n.saturating_sub(FEWER).max(1);
        for n in (earliest..=n).rev() {
            let name = format!("crash-{}", self.runs.fetch_add(1, Ordering::Relaxed));
            let rule = Rule::any(fault.clone()).for_verbs(&WRITES).nth(n);
            if self.at(rule, fault, begin(&name), async || end(&name).await).await {
                return name;
            }
        }
        panic!("none of the writes {earliest} to {n} was reached");
    }

    /// Kills the operator at the write that a rule is for, and starts another; whether there was such a write.
    pub async fn at(
        &self,
        rule: Rule,
        fault: &Fault,
        begin: impl Future<Output = ()>,
        end: impl AsyncFn() -> (),
    ) -> bool {
        let before = self.number();
        let lost = *fault == Fault::LoseAnswer;
        self.proxy.set_plan(Plan::seeded(self.seed).with(rule));
        let mut config = self.config();
        // So that the operator does not try again before it is killed.
        config.limits.retry = Duration::from_secs(5);
        let operator = start(self.client.clone(), config);
        begin.await;
        let faulted =
            |r: &RequestRecord| r.number > before && r.fault.is_some() && (!lost || r.upstream_status.is_some());
        let reached = tokio::select! {
            record = self.proxy.wait_for(PATIENCE, faulted) => {
                eprintln!("killed at {}", record.unwrap());
                true
            }
            () = end() => false,
        };
        operator.kill().await;
        self.proxy.heal();
        if reached {
            let operator = start(self.client.clone(), self.config());
            end().await;
            operator.kill().await;
        }
        reached
    }
}
