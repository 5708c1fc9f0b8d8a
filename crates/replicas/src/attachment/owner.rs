//! The owner of the state machine.

use super::Options;
use super::records::Call;
use crate::clock;
use crate::net::{Ends, Link, Network};
use crate::replica::{Answers, Asker, Held, Replica, Replicas};
use block::{Buffer, Done, Failure, FailureKind};
use bytes::Bytes;
use replication::attachment::{self, Action, Done as Told, Ending, Event, Io, IoError, Notice, Why};
use replication::message::{Answer, Body, Request};
use replication::record::{Attached, Record};
use replication::units::{AttachmentId, ReplicaId, Tag, Time, VolumeId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

/// Operations that wait until others are answered. Front ends have fewer under way (NBD 128 for each connection); beyond it they are refused.
const MOST_WAITING: usize = 65_536;

/// How often somebody who has brought an event goes on with what others have brought meanwhile; then a task of its own does, since a call that asks for something must return.
const MOST_ROUNDS: usize = 32;

/// Blocks of a read that is not done by whoever has brought an event: 512 KiB.
const LONG_READ: u64 = 128;

/// Everything around the machine.
pub(super) struct Shared {
    pub(super) me: Weak<Self>,
    pub(super) volume: VolumeId,
    /// What its user may use: the volume is larger when its record says so.
    pub(super) blocks: AtomicU64,
    pub(super) owner: Mutex<Owner>,
    pub(super) network: Network,
    pub(super) replicas: Arc<Replicas>,
    pub(super) answers: Arc<dyn Answers>,
    pub(super) runtime: Handle,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) timer: Notify,
    pub(super) ended: watch::Sender<Option<Ending>>,
    pub(super) listener: super::Listener,
}

/// Where requests to a replica go.
#[derive(Clone)]
pub(super) enum Target {
    /// It is in this process.
    Here(Arc<Replica>),
    /// It is on another node.
    There(Arc<Link>),
}

/// Who waits for an operation.
pub(super) enum Caller {
    Read(Buffer, Done<Buffer>),
    Change(Done<()>),
    /// It is flushed before it is answered.
    Durable(Done<()>),
}

struct Admitted {
    caller: Caller,
    bytes: usize,
}

/// The machine, and what belongs to it.
pub(super) struct Owner {
    pub(super) machine: attachment::Attachment,
    me: Attached,
    inbox: VecDeque<Event>,
    is_busy: bool,
    is_closed: bool,
    pub(super) targets: BTreeMap<ReplicaId, Target>,
    callers: HashMap<Tag, Admitted>,
    next_tag: u64,
    /// What is not handed to the machine yet.
    waiting: VecDeque<(Io, Caller)>,
    bytes: usize,
    most_bytes: usize,
    /// Why nothing is served, and since when.
    pub(super) suspended: Option<(Why, Time)>,
    /// When the timer looks next.
    pub(super) timer_at: Time,
    pub(super) timer_step: replication::units::Span,
}

/// What is to be done outside of the lock.
enum Todo {
    Send(Target, Request),
    Call(Call),
    Answer(Caller, Result<Told, IoError>),
    Notice(Notice),
}

/// Brings the answers of replicas.
pub(super) struct ToAttachment(pub(super) Weak<Shared>);

impl Answers for ToAttachment {
    fn answer(&self, from: ReplicaId, answer: Answer, _held: Held) {
        if let Some(shared) = self.0.upgrade() {
            shared.tell(Event::Answered { from, answer });
        }
    }

    fn answer_all(&self, from: ReplicaId, answers: Vec<Answer>) {
        if let Some(shared) = self.0.upgrade() {
            shared.tell_all(answers.into_iter().map(|answer| Event::Answered { from, answer }));
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened.
    pub(super) fn tell(&self, event: Event) {
        self.tell_all([event]);
    }

    fn tell_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut owner = self.lock();
        owner.inbox.extend(events);
        self.run(owner);
    }

    /// Somebody wants something.
    pub(super) fn submit(&self, io: Io, caller: Caller) {
        let mut owner = self.lock();
        if owner.is_closed || owner.waiting.len() >= MOST_WAITING {
            let is_closed = owner.is_closed;
            drop(owner);
            return caller.fail(if is_closed { closed() } else { too_many() });
        }
        owner.waiting.push_back((io, caller));
        self.run(owner);
    }

    fn run<'a>(&'a self, mut owner: MutexGuard<'a, Owner>) {
        if !std::mem::replace(&mut owner.is_busy, true) {
            self.go_on(owner);
        }
    }

    fn go_on<'a>(&'a self, mut owner: MutexGuard<'a, Owner>) {
        for _ in 0..MOST_ROUNDS {
            let todo = owner.take(self);
            if todo.is_empty() {
                owner.is_busy = false;
                let is_due = owner.sets_timer();
                drop(owner);
                if is_due {
                    self.timer.notify_one();
                }
                return;
            }
            drop(owner);
            self.act(todo);
            owner = self.lock();
        }
        drop(owner);
        if let Some(me) = self.me.upgrade() {
            self.runtime.spawn(async move { me.go_on(me.lock()) });
        }
    }

    fn act(&self, todo: Vec<Todo>) {
        // Those that are far first: they are under way while those here are done.
        let mut here: Vec<(Arc<Replica>, Request)> = Vec::new();
        for todo in todo {
            match todo {
                Todo::Send(Target::There(link), request) => link.send(request),
                Todo::Send(Target::Here(replica), request) => here.push((replica, request)),
                // One that does not fit is asked again when its answer is late.
                Todo::Call(call) => drop(self.calls.try_send(call)),
                // Whoever is told and panics has said so; others are told all the same.
                Todo::Answer(caller, result) => drop(catch_unwind(AssertUnwindSafe(|| self.answer(caller, result)))),
                Todo::Notice(notice) => drop(catch_unwind(AssertUnwindSafe(|| self.notice(&notice)))),
            }
        }
        for (replica, request) in here {
            let asker = Asker { to: self.answers.clone(), held: None };
            match &request.body {
                // A pool in memory does it on the spot, and everybody who waits for this one would wait for it.
                Body::Read { blocks } if blocks.count >= LONG_READ => {
                    self.runtime.spawn_blocking(move || replica.ask([(request, asker)]));
                }
                _ => replica.ask([(request, asker)]),
            }
        }
    }

    fn notice(&self, notice: &Notice) {
        if let Notice::Ended(ending) = notice {
            self.ended.send_replace(Some(ending.clone()));
        }
        (self.listener)(notice);
    }

    fn answer(&self, caller: Caller, result: Result<Told, IoError>) {
        match (caller, result) {
            (Caller::Durable(done), Ok(_)) => self.submit(Io::Flush, Caller::Change(done)),
            (Caller::Read(mut buffer, done), Ok(Told::Data(data))) if data.len() == buffer.len() => {
                buffer.copy_from_slice(&data);
                done.ok(buffer);
            }
            (Caller::Read(_, done), Ok(_)) => {
                done.fail(FailureKind::Io, "a replica has answered a read with something else; this is a defect");
            }
            (Caller::Change(done), Ok(_)) => done.ok(()),
            (caller, Err(error)) => caller.fail(failure(&error)),
        }
    }

    /// Ends at once, as if the process did.
    pub(super) fn close(&self) {
        let mut owner = self.lock();
        owner.is_closed = true;
        let callers: Vec<Caller> = owner.callers.drain().map(|(_, admitted)| admitted.caller).collect();
        let waiting: Vec<Caller> = owner.waiting.drain(..).map(|(_, caller)| caller).collect();
        let targets = std::mem::take(&mut owner.targets);
        drop(owner);
        drop(targets);
        callers.into_iter().chain(waiting).for_each(|caller| caller.fail(closed()));
    }
}

impl Owner {
    pub(super) fn new(me: Attached, local: Option<ReplicaId>, options: &Options) -> Self {
        let Options { force, expected, ended, give_up_unflushed, ref limits, most_bytes, .. } = *options;
        let machine = attachment::Attachment::new(attachment::Options {
            me: me.clone(),
            local,
            force,
            expected,
            ended,
            give_up_unflushed,
            limits: limits.clone(),
        });
        Self {
            machine,
            me,
            inbox: VecDeque::new(),
            is_busy: false,
            is_closed: false,
            targets: BTreeMap::new(),
            callers: HashMap::new(),
            next_tag: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            most_bytes,
            suspended: Some((Why::RecordStore, clock::now())),
            timer_at: Time(0),
            timer_step: super::timer::step(limits),
        }
    }

    pub(super) fn id(&self) -> AttachmentId {
        self.me.id
    }

    pub(super) fn operations(&self) -> usize {
        self.callers.len() + self.waiting.len()
    }

    /// All that the machine says to what has come.
    fn take(&mut self, shared: &Shared) -> Vec<Todo> {
        let mut todo = Vec::new();
        if self.is_closed {
            self.inbox.clear();
            return todo;
        }
        let mut events: Vec<Event> = self.inbox.drain(..).collect();
        let may_change_members = events.iter().any(|event| matches!(event, Event::Got(..) | Event::Swapped(..)));
        self.admit(&mut events);
        if events.is_empty() {
            return todo;
        }
        let actions = self.machine.apply_all(clock::now(), events);
        self.heed(actions, shared, &mut todo);
        if may_change_members {
            let blocks = self.machine.record().map_or(0, |record| record.blocks);
            shared.blocks.fetch_max(blocks, Ordering::AcqRel);
            self.forget_members();
        }
        todo
    }

    /// Hands operations to the machine, as many as there is room for.
    fn admit(&mut self, events: &mut Vec<Event>) {
        let mut room = if self.machine.ending().is_some() { usize::MAX } else { self.machine.room() };
        while room > 0
            && let Some((io, caller)) = self.next_operation()
        {
            room -= 1;
            let tag = Tag(self.next_tag);
            self.next_tag += 1;
            let bytes = bytes_of(&io);
            self.bytes += bytes;
            self.callers.insert(tag, Admitted { caller, bytes });
            events.push(Event::Submit { tag, io });
        }
    }

    /// The next operation, if there is room for its bytes.
    fn next_operation(&mut self) -> Option<(Io, Caller)> {
        let (io, _) = self.waiting.front()?;
        let has_room = self.bytes + bytes_of(io) <= self.most_bytes;
        if has_room || self.machine.ending().is_some() { self.waiting.pop_front() } else { None }
    }

    fn heed(&mut self, actions: Vec<Action>, shared: &Shared, todo: &mut Vec<Todo>) {
        for action in actions {
            match action {
                Action::Send { to, request } => {
                    // One that is nowhere gets nothing, and is late.
                    if let Some(target) = self.target(to, shared) {
                        todo.push(Todo::Send(target, request));
                    }
                }
                Action::Get(call) => todo.push(Todo::Call(Call::Get(call))),
                Action::Swap { call, expected, record } => todo.push(Todo::Call(Call::Swap(call, expected, record))),
                Action::Answer { tag, result } => {
                    if let Some(Admitted { caller, bytes }) = self.callers.remove(&tag) {
                        self.bytes -= bytes;
                        todo.push(Todo::Answer(caller, result));
                    }
                }
                Action::Notice(notice) => {
                    self.note(&notice);
                    todo.push(Todo::Notice(notice));
                }
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Serving | Notice::Ended(_) => self.suspended = None,
            // (Another reason is no new suspension.)
            Notice::Suspended(why) => {
                let since = self.suspended.map_or_else(clock::now, |(_, since)| since);
                self.suspended = Some((*why, since));
            }
            _ => {}
        }
    }

    /// Where a replica is, by the record.
    fn target(&mut self, id: ReplicaId, shared: &Shared) -> Option<Target> {
        if let Some(target) = self.targets.get(&id) {
            return Some(target.clone());
        }
        let node = self.machine.record()?.members.get(&id)?.node.clone();
        let target = if node == shared.network.node {
            Target::Here(shared.replicas.find(shared.volume, id)?)
        } else {
            let ends = Ends { volume: shared.volume, attachment: self.me.id, replica: id, node };
            Target::There(Arc::new(Link::start(&shared.network, ends, &shared.answers, &shared.runtime)))
        };
        self.targets.insert(id, target.clone());
        Some(target)
    }

    /// The record may have lost members; ids are never used again.
    fn forget_members(&mut self) {
        let members = self.machine.record().map(|record: &Record| &record.members);
        self.targets.retain(|id, _| members.is_none_or(|members| members.contains_key(id)));
    }

    /// Whether the timer has to look earlier than it would: something has happened since it looked last. What is new is never due sooner than some steps of it.
    fn sets_timer(&mut self) -> bool {
        let soon = clock::now() + self.timer_step;
        let is_due = self.timer_at > soon;
        if is_due {
            self.timer_at = soon;
        }
        is_due
    }
}

impl Caller {
    fn fail(self, failure: Failure) {
        match self {
            Self::Read(_, done) => done.finish(Err(failure)),
            Self::Change(done) | Self::Durable(done) => done.finish(Err(failure)),
        }
    }
}

fn bytes_of(io: &Io) -> usize {
    match io {
        Io::Write { data, .. } => Bytes::len(data),
        Io::Read { blocks } => {
            usize::try_from(blocks.count).unwrap_or(usize::MAX).saturating_mul(replication::wire::BLOCK)
        }
        Io::Discard { .. } | Io::Flush => 0,
    }
}

fn closed() -> Failure {
    Failure::new(FailureKind::ShuttingDown, "the volume is not attached here any more")
}

fn too_many() -> Failure {
    let message = format!("{MOST_WAITING} operations wait for the volume; ask again when some are answered");
    Failure::new(FailureKind::NoMemory, message)
}

fn failure(error: &IoError) -> Failure {
    let kind = match error {
        IoError::Damaged { .. } | IoError::Ended(Ending::PowerLost | Ending::Damaged { .. }) => FailureKind::Io,
        IoError::TooMany { .. } => FailureKind::NoMemory,
        IoError::Detaching | IoError::Ended(_) => FailureKind::ShuttingDown,
    };
    Failure::new(kind, error.to_string())
}
