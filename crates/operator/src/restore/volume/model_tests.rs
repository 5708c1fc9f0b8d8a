//! The steps against a small model of a cluster.
//!
//! Fault model: before each step the operator may have been started anew, so that only what is in the cluster and the last written
//! status is known; a step may be lost, done without its status being written, or done twice. Mover pods are never scheduled, fail
//! half way, are taken away at any moment, even after they did everything. A node is cut off: its mover goes by force only, and may write
//! on for ever. The control plane binds, provisions and deletes when it likes, now and then too late for the operator's patience. A
//! person deletes the run, or the temporary claim, or makes a claim of the wanted name. What never happens: two operators at once, and a
//! control plane that does nothing for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::step::{Step, discard, next};
use super::view::{Disk, Filled, Filling, Mover, MoverState, Target, Terms, View};

const FILLED: Filled = Filled { files: 1, bytes: 1 };
/// Steps in which every run must have ended, whatever happened to it.
const STEPS: usize = 3_000;
const RUNS: u64 = 3_000;
/// How long the operator waits for the control plane.
const PATIENCE: Duration = Duration::from_secs(100);

/// A small generator of numbers; all that is asked of it is that a seed gives the same run again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Empty,
    Partial,
    Full,
}

#[derive(Clone, Debug)]
struct Claim {
    uid: u32,
    ours: bool,
    /// The volume that it names.
    volume: Option<u32>,
    bound: bool,
    filled: bool,
    deleted: bool,
}

impl Claim {
    fn new(uid: u32, volume: Option<u32>) -> Self {
        Claim { uid, ours: true, volume, bound: false, filled: false, deleted: false }
    }
}

#[derive(Clone, Debug)]
struct Pv {
    policy: &'static str,
    held: Option<&'static str>,
    promised: u32,
    content: Content,
    /// The claim that was noted as the one that it replaces.
    replaces: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pod {
    Waiting,
    Running,
    Done,
    Failed {
        tainted: bool,
    },
    Ending,
    /// On a node that is cut off: it should have ended long ago, and nobody knows whether it has.
    Lost,
}

/// What the operator's status keeps.
#[derive(Clone, Debug, Default)]
struct Status {
    attempts: u32,
    missed: bool,
    done: bool,
    skipped: bool,
}

struct World {
    chance: Chance,
    clock: i64,
    uids: u32,
    policy: api::ReplacePolicy,
    unschedulable: bool,
    target: Option<Claim>,
    filling: Option<Claim>,
    pvs: BTreeMap<u32, Pv>,
    pod: Option<(u32, Pod)>,
    status: Status,
    /// The run is being deleted.
    ending: bool,
    /// A claim of somebody else's was deleted for the volume.
    replaced: bool,
    /// Volumes that a mover may still write to that nobody sees any more.
    haunted: Vec<u32>,
    /// The operator has waited long enough for the control plane.
    impatient: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let policy = [api::ReplacePolicy::Retain, api::ReplacePolicy::Delete][usize::from(chance.one_in(2))];
        let exists = chance.one_in(3);
        let old = Claim { ours: false, bound: true, ..Claim::new(1, None) };
        // As it is decided when a run begins.
        let status = Status { skipped: exists && policy != api::ReplacePolicy::Delete, ..Status::default() };
        World {
            unschedulable: chance.one_in(10),
            chance,
            clock: 1,
            uids: 1,
            policy,
            target: exists.then_some(old),
            filling: None,
            pvs: BTreeMap::new(),
            pod: None,
            status,
            ending: false,
            replaced: false,
            haunted: Vec::new(),
            impatient: false,
        }
    }

    fn uid(&mut self) -> u32 {
        self.uids += 1;
        self.uids
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock).expect("a small number of seconds is a timestamp")
    }

    fn view(&self) -> View {
        let deleted = |claim: &Claim| claim.deleted.then(|| self.now());
        View {
            target: self.target.as_ref().map(|t| Target {
                uid: t.uid.to_string(),
                ours: t.ours,
                bound: t.bound,
                deleted: deleted(t),
                users: Vec::new(),
            }),
            filling: self.filling.as_ref().map(|f| Filling {
                uid: f.uid.to_string(),
                filled: f.filled.then_some(FILLED),
                deleted: deleted(f),
            }),
            disk: self.named().and_then(|id| self.pvs.get(&id).map(|pv| disk(id, pv))),
            stray: self
                .pvs
                .iter()
                .find(|(id, pv)| pv.held.is_some() && !self.names(**id))
                .map(|(id, pv)| disk(*id, pv)),
            mover: self.pod.map(|(attempt, pod)| Mover { attempt, state: self.state(pod), goes: pod == Pod::Ending }),
            waited: if self.impatient { 2 * PATIENCE } else { Duration::ZERO },
        }
    }

    /// The volume that the claim of ours names, or else the temporary claim.
    fn named(&self) -> Option<u32> {
        let ours = self.target.as_ref().filter(|t| t.ours);
        ours.or(self.filling.as_ref()).and_then(|claim| claim.volume)
    }

    fn names(&self, volume: u32) -> bool {
        [&self.target, &self.filling].into_iter().flatten().any(|claim| claim.volume == Some(volume))
    }

    fn state(&self, pod: Pod) -> MoverState {
        match pod {
            Pod::Waiting if self.clock > 500 => MoverState::NeverStarted { why: "no node".into() },
            Pod::Waiting => MoverState::Waiting { why: "no node".into() },
            Pod::Running => MoverState::Running,
            Pod::Done => MoverState::Done(FILLED),
            Pod::Failed { tainted } => MoverState::Failed { reason: "failed".into(), retryable: true, tainted },
            Pod::Ending => MoverState::Ending { overdue: false },
            Pod::Lost => MoverState::Ending { overdue: true },
        }
    }

    /// One look and one step of the operator.
    fn operate(&mut self) {
        let view = self.view();
        let attempts = self.status.attempts.max(self.pod.map_or(0, |(attempt, _)| attempt));
        let terms = Terms { policy: self.policy, attempts, max_attempts: 3, claim_deadline: PATIENCE };
        let over = self.ending || self.status.missed || self.status.done || self.status.skipped;
        let step = if over { discard(&view, PATIENCE) } else { Some(next(&view, &terms)) };
        let Some(step) = step else { return };
        if self.chance.one_in(8) {
            return;
        }
        self.perform(&step);
        if self.chance.one_in(8) {
            self.perform(&step);
        }
        if self.chance.one_in(8) {
            return;
        }
        self.status.attempts = attempts;
        match step {
            Step::StartMover { attempt } => self.status.attempts = attempt,
            Step::Miss(_) => self.status.missed = true,
            Step::Done => self.status.done = true,
            _ => {}
        }
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::MakeFilling if self.filling.is_none() => {
                let uid = self.uid();
                self.filling = Some(Claim::new(uid, None));
            }
            Step::StartMover { attempt } if self.pod.is_none() => self.pod = Some((*attempt, Pod::Waiting)),
            Step::RemoveMovers => match self.pod {
                Some((_, Pod::Lost)) => self.pod = None,
                pod => self.pod = pod.map(|(attempt, _)| (attempt, Pod::Ending)),
            },
            Step::NoteFilled(_) => self.filling.iter_mut().for_each(|f| f.filled = true),
            Step::RemoveTarget { uid } => self.remove_target(uid),
            Step::RemoveFilling { uid } => delete(&mut self.filling, uid),
            Step::MakeTarget { disk } if self.target.is_none() => self.make_target(number(disk)),
            Step::Hold { disk, replaces, .. } => self.change(disk, |pv| {
                pv.held.get_or_insert(pv.policy);
                pv.policy = "Retain";
                pv.replaces = replaces.as_deref().map(number);
            }),
            Step::Promise { disk, claim_uid } => self.change(disk, |pv| pv.promised = number(claim_uid)),
            Step::Release { disk, policy } => self.change(disk, |pv| {
                (pv.held, pv.replaces) = (None, None);
                pv.policy = if policy == "Delete" { "Delete" } else { "Retain" };
            }),
            _ => {}
        }
    }

    fn change(&mut self, volume: &str, how: impl FnOnce(&mut Pv)) {
        if let Some(pv) = self.pvs.get_mut(&number(volume)) {
            how(pv);
        }
    }

    fn make_target(&mut self, volume: u32) {
        let content = self.pvs.get(&volume).map(|pv| pv.content);
        assert_eq!(content, Some(Content::Full), "an unfilled volume is handed over");
        assert!(self.pod.is_none(), "a volume is handed over under a mover");
        assert!(!self.haunted.contains(&volume), "a volume is handed over that a lost mover may write to");
        let uid = self.uid();
        self.target = Some(Claim::new(uid, Some(volume)));
    }

    fn remove_target(&mut self, uid: &str) {
        let is_it = |claim: &&Claim| claim.uid.to_string() == uid;
        let others = self.target.as_ref().filter(is_it).is_some_and(|claim| !claim.ours);
        if others {
            let noted =
                |pv: &Pv| pv.policy == "Retain" && pv.content == Content::Full && pv.replaces == Some(number(uid));
            assert!(self.pvs.values().any(noted), "the old claim goes before there is a noted copy");
            self.replaced = true;
        }
        delete(&mut self.target, uid);
    }

    /// What everybody else does at one instant.
    fn others(&mut self) {
        self.clock += 1;
        if self.chance.one_in(4) {
            self.haunt();
        }
        self.impatient = self.chance.one_in(200);
        match self.chance.below(6) {
            0 => self.provision(),
            1 => self.bind(),
            2 => self.reclaim(),
            3 => self.kubelet(),
            4 if self.chance.one_in(60) => self.ending = true,
            4 if self.chance.one_in(60) => self.filling.iter_mut().for_each(|f| f.deleted = true),
            4 if self.target.is_none() && self.chance.one_in(60) => {
                let claim = Claim::new(self.uid(), None);
                self.target = Some(Claim { ours: false, bound: true, ..claim });
            }
            _ => {}
        }
        if self.filling.as_ref().is_some_and(|f| f.deleted) && self.pod.is_none() {
            self.filling = None;
        }
        if self.target.as_ref().is_some_and(|t| t.deleted) {
            self.target = None;
        }
    }

    fn provision(&mut self) {
        let fresh = self.filling.as_ref().is_some_and(|f| f.volume.is_none() && !f.deleted);
        if fresh {
            let id = self.uid();
            let filling = self.filling.as_mut().expect("it was just looked at");
            (filling.volume, filling.bound) = (Some(id), true);
            let promised = filling.uid;
            let pv = Pv { policy: "Delete", held: None, promised, content: Content::Empty, replaces: None };
            self.pvs.insert(id, pv);
        }
    }

    fn bind(&mut self) {
        let Some(target) = self.target.as_mut().filter(|t| t.ours) else { return };
        let pv = target.volume.and_then(|id| self.pvs.get(&id)).filter(|pv| pv.promised == target.uid);
        if let Some(pv) = pv {
            target.bound = true;
            assert_eq!(pv.content, Content::Full, "an unfilled volume is bound");
        }
    }

    fn reclaim(&mut self) {
        let held = |pv: &Pv| [&self.target, &self.filling].into_iter().flatten().any(|claim| claim.uid == pv.promised);
        let ours = self.target.as_ref().filter(|t| t.ours && t.bound).and_then(|t| t.volume);
        let lost: Vec<u32> =
            self.pvs.iter().filter(|(_, pv)| pv.policy == "Delete" && !held(pv)).map(|(id, _)| *id).collect();
        for id in lost {
            assert_ne!(ours, Some(id), "a volume that was handed over is deleted");
            self.pvs.remove(&id);
        }
    }

    fn kubelet(&mut self) {
        let Some((attempt, pod)) = self.pod else { return };
        if pod == Pod::Lost {
            return; // nobody hears of it
        }
        if pod == Pod::Running && self.chance.one_in(12) {
            self.pod = Some((attempt, Pod::Lost));
            self.haunted.extend(self.filling.as_ref().and_then(|f| f.volume));
            return;
        }
        if self.chance.one_in(12) {
            self.pod = None; // evicted and collected, at whatever moment
            return;
        }
        let next = match pod {
            Pod::Waiting if self.unschedulable || self.filled_disk().is_none() => pod,
            Pod::Waiting => Pod::Running,
            Pod::Running => self.fill(),
            Pod::Ending => {
                self.pod = None;
                return;
            }
            over => over,
        };
        self.pod = Some((attempt, next));
    }

    /// Lost movers write.
    fn haunt(&mut self) {
        for volume in &self.haunted {
            if let Some(pv) = self.pvs.get_mut(volume) {
                pv.content = Content::Partial;
            }
        }
    }

    /// The volume that a mover has mounted.
    fn filled_disk(&mut self) -> Option<&mut Pv> {
        let volume = self.filling.as_ref().and_then(|f| f.volume)?;
        self.pvs.get_mut(&volume)
    }

    fn fill(&mut self) -> Pod {
        let fails = self.chance.one_in(4);
        let volume = self.filling.as_ref().and_then(|f| f.volume);
        assert!(volume.is_none_or(|volume| !self.haunted.contains(&volume)), "two movers write to one volume");
        let Some(pv) = self.filled_disk() else { return Pod::Failed { tainted: false } };
        match (pv.content, fails) {
            (Content::Full, _) => Pod::Failed { tainted: true },
            (_, true) => {
                pv.content = Content::Partial;
                Pod::Failed { tainted: false }
            }
            (_, false) => {
                pv.content = Content::Full;
                Pod::Done
            }
        }
    }

    fn is_over(&self) -> bool {
        let decided = self.ending || self.status.missed || self.status.done || self.status.skipped;
        let ours = self.target.as_ref().filter(|t| t.ours).and_then(|t| t.volume);
        decided
            // Somebody who is impatient goes on, and what is temporary goes later.
            && discard(&View { waited: Duration::ZERO, ..self.view() }, PATIENCE).is_none()
            && self.pvs.iter().all(|(id, pv)| ours == Some(*id) || self.is_kept(pv))
    }

    /// A copy that is kept since the claim that it was to replace is gone.
    fn is_kept(&self, pv: &Pv) -> bool {
        self.replaced && pv.content == Content::Full && (pv.policy, pv.held) == ("Retain", None)
    }

    fn check_end(&self) {
        assert!(self.pod.is_none() && self.filling.is_none(), "something temporary is left");
        let ours = self.target.as_ref().filter(|t| t.ours);
        if let Some(target) = ours {
            let pv =
                target.volume.and_then(|id| self.pvs.get(&id)).expect("a claim that was handed over has its volume");
            assert!(target.bound && pv.content == Content::Full, "the claim is not whole");
            assert_eq!((pv.policy, pv.held), ("Delete", None), "the volume is not as it was");
        }
        assert!(!self.status.done || ours.is_some(), "done without a claim");
        let copies = ours.is_some() || self.pvs.values().any(|pv| self.is_kept(pv));
        assert!(!self.replaced || copies, "the old claim is gone, and so is what was to replace it");
        assert!(
            !self.status.skipped || self.target.as_ref().is_some_and(|t| !t.ours),
            "the claim that exists was touched"
        );
    }
}

fn disk(id: u32, pv: &Pv) -> Disk {
    Disk {
        name: id.to_string(),
        policy: pv.policy.into(),
        made_for_us: true,
        original: pv.held.map(Into::into),
        promised: Some(pv.promised.to_string()),
        replaces: pv.replaces.map(|uid| uid.to_string()),
    }
}

fn number(uid: &str) -> u32 {
    uid.parse().expect("names are numbers here")
}

fn delete(claim: &mut Option<Claim>, uid: &str) {
    claim.iter_mut().filter(|c| c.uid.to_string() == uid).for_each(|c| c.deleted = true);
}

fn run(seed: u64) -> Status {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        if world.is_over() {
            world.check_end();
            return world.status;
        }
        match world.chance.below(2) {
            0 => world.operate(),
            _ => world.others(),
        }
    }
    panic!("seed {seed}: the run did not end: {:?} {:?}", world.view(), world.status);
}

#[test]
fn whatever_happens_a_volume_is_handed_over_whole_or_not_at_all() {
    let seed = std::env::var("ORLOP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("seeds {seed}..{} (ORLOP_SEED={seed})", seed + RUNS);
    let ends: Vec<_> = (seed..seed + RUNS)
        .map(|seed| {
            println!("seed {seed}");
            run(seed)
        })
        .collect();
    let count = |pick: fn(&Status) -> bool| ends.iter().filter(|s| pick(s)).count();
    let (done, missed, skipped) = (count(|s| s.done), count(|s| s.missed), count(|s| s.skipped));
    println!("{done} done, {missed} missed, {skipped} skipped");
    assert!(done > 500 && missed > 100 && skipped > 100, "the model no longer reaches every end");
}
