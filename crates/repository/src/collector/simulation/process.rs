//! Processes: what a writer does between its operations, and how the operations of any of them travel.

use super::random::Random;
use super::silence;
use super::world::{Request, World};
use crate::collector::collect::{Collected, Refused};
use crate::collector::machine::{Answer, Machine, Next, Object, Operation, PointRecord, Port};
use crate::collector::points::{NotPublished, counts, publish};
use crate::collector::rules::Rules;
use crate::collector::sessions::{Begin, begin, parents};
use crate::ids::{PackId, PointId, SessionId};
use crate::layout::{ObjectName, RunId};
use jiff::Timestamp;

/// What ended.
#[derive(Debug)]
pub(super) enum End {
    /// A run that published its point, or why it did not.
    Wrote(PointId, Result<(), NotPublished>),
    /// A run that did not begin.
    NotBegun,
    Forgot,
    Collected(Result<Collected, Refused>),
}

/// What a writer does.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) point: PointId,
    /// How many packs each of its sessions writes.
    pub(super) packs: Vec<u32>,
    /// Which of the points there are it would like as a parent.
    pub(super) parent: Option<usize>,
}

/// Writes and publishes one point, with one session or several.
pub(super) async fn write(port: Port, rules: Rules, script: Script, started: Timestamp) -> End {
    let mut point = PointRecord { id: script.point.clone(), sessions: Vec::new(), document: None, packs: Vec::new() };
    for count in &script.packs {
        let wanted = Begin {
            point: script.point.clone(),
            host: "simulated".to_owned(),
            started,
            alone: false,
            silence: silence(6),
        };
        let Ok(session) = begin(port.clone(), rules, wanted).await else { return End::NotBegun };
        if let Some(choice) = script.parent {
            point.packs.extend(parent_packs(&port, rules, session, choice).await);
        }
        for sequence in 0..*count {
            let pack = PackId { epoch: session.epoch, writer: session.writer, sequence };
            port.create(Object::Other(ObjectName::Pack(pack))).await;
            point.packs.push(pack);
        }
        let run = RunId { epoch: session.epoch, writer: session.writer, sequence: 0 };
        port.create(Object::Other(ObjectName::Run(run))).await;
        point.sessions.push(session);
    }
    End::Wrote(script.point, publish(port, point).await)
}

async fn parent_packs(port: &Port, rules: Rules, session: SessionId, choice: usize) -> Vec<PackId> {
    let points = port.list(crate::collector::machine::Folder::Points).await;
    if points.is_empty() {
        return Vec::new();
    }
    let ObjectName::Point(id) = points[choice % points.len()].name.clone() else { return Vec::new() };
    let allowed = parents(port.clone(), rules, session).await;
    match port.read(ObjectName::Point(id.clone())).await {
        Ok(Some(Object::Point(point)))
            if allowed.allow(&id, &point.sessions, session) && counts(port, &point.sessions).await =>
        {
            point.packs
        }
        _ => Vec::new(),
    }
}

/// A request of a process, and what came of it.
struct Pending {
    request: Request,
    answer: Option<Answer>,
}

/// A process.
pub(super) struct Process {
    machine: Machine<End>,
    pending: Vec<Pending>,
    /// Several operations were handed out together.
    each: bool,
    pub(super) stalled: bool,
    /// Sessions of it that have begun, as far as its requests show, and how many signs of life they have given.
    pub(super) sessions: Vec<SessionId>,
    pub(super) beats: u32,
}

impl Process {
    /// Starts; a process that needs nothing has ended at once.
    #[allow(clippy::result_large_err, reason = "a process that ends at once is looked at, and not passed on")]
    pub(super) fn start(machine: Machine<End>) -> Result<Self, End> {
        let mut process =
            Self { machine, pending: Vec::new(), each: false, stalled: false, sessions: Vec::new(), beats: 0 };
        match process.go_on(None) {
            Some(end) => Err(end),
            None => Ok(process),
        }
    }

    fn go_on(&mut self, answer: Option<Answer>) -> Option<End> {
        let operations = match self.machine.apply(answer) {
            Next::Done(end) => return Some(end),
            // No request: nothing can happen to it.
            Next::Perform(Operation::Announce(_)) => return self.go_on(Some(Answer::Told)),
            Next::Perform(Operation::Each(operations)) => {
                self.each = true;
                operations
            }
            Next::Perform(operation) => {
                self.each = false;
                vec![operation]
            }
        };
        for operation in &operations {
            if let Operation::CreateOnce(Object::Session(session)) | Operation::Create(Object::Session(session)) =
                operation
            {
                self.sessions.push(session.id());
            }
        }
        self.pending = operations.into_iter().map(|o| Pending { request: Request::new(o), answer: None }).collect();
        None
    }

    /// Takes the next step: a request takes effect, or its answer arrives.
    pub(super) fn step(&mut self, world: &mut World, random: &mut Random) -> Option<End> {
        let open: Vec<_> = (0..self.pending.len()).filter(|index| self.pending[*index].answer.is_none()).collect();
        if open.is_empty() {
            let mut answers = std::mem::take(&mut self.pending).into_iter().filter_map(|pending| pending.answer);
            let answer = if self.each { Some(Answer::Each(answers.collect())) } else { answers.next() };
            return self.go_on(answer);
        }
        let pending = &mut self.pending[open[random.below(open.len())]];
        pending.answer = world.perform(&mut pending.request, random);
        None
    }

    /// Loses the answer to a request; gives the request if it may still take effect.
    pub(super) fn lose_answer(&mut self, random: &mut Random) -> Option<Request> {
        if self.pending.is_empty() {
            return None;
        }
        let index = random.below(self.pending.len());
        let pending = &mut self.pending[index];
        let on_its_way = pending.answer.is_none().then(|| pending.request.clone());
        if let Operation::CreateOnce(_) = &pending.request.operation {
            // It is not repeated, and nobody knows what became of it.
            pending.answer = Some(Answer::Exists);
        } else {
            pending.request = pending.request.again();
            pending.answer = None;
        }
        on_its_way
    }

    /// Dies; gives the requests that may still take effect.
    pub(super) fn die(self) -> Vec<Request> {
        self.pending.into_iter().filter(|pending| pending.answer.is_none()).map(|pending| pending.request).collect()
    }
}

/// Whether a request that its process knows nothing of any more changes anything.
pub(super) fn changes(request: &Request) -> bool {
    !matches!(
        request.operation,
        Operation::List(_)
            | Operation::Read(_)
            | Operation::Glance(_)
            | Operation::Follow(_)
            | Operation::Now
            | Operation::NewWriter
    )
}
