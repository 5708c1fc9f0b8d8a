//! The machine with a clock, a lock and a thread.

use super::Limits;
use super::bucket::Nanos;
use super::machine::{Admission, Bounds, Machine, Started, VolumeId};
use super::rules::Rules;
use super::under_way::Ticket;
use block::{Buffer, Device, Done, Failure, FailureKind};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the volumes of a pool share: see the module.
///
/// When it is dropped, what waits is answered that the server is being stopped, and what is under way finishes. It waits for its thread, which
/// may be answering requests: so whoever drops it holds no lock that an answer takes.
pub struct Scheduler {
    core: Arc<Core>,
    timer: Option<JoinHandle<()>>,
}

impl Scheduler {
    /// A scheduler without volumes, and its thread, which sleeps until the tokens of some volume come back.
    pub fn new(bounds: Bounds) -> std::io::Result<Self> {
        let state = State { machine: Machine::new(bounds, Rules::default()), timer: None, closed: false };
        let core = Arc::new(Core { begin: Instant::now(), state: Mutex::new(state), alarm: Condvar::new() });
        let timers = core.clone();
        let timer = thread::Builder::new().name("qos-timer".to_owned()).spawn(move || timers.keep_time())?;
        Ok(Self { core, timer: Some(timer) })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.core.close();
        if let Some(timer) = self.timer.take().filter(|timer| timer.thread().id() != thread::current().id()) {
            // It panics only when a callback does, which has been told then.
            let _ = timer.join();
        }
    }
}

/// What the scheduler and the devices behind it have in common.
pub(super) struct Core {
    begin: Instant,
    state: Mutex<State>,
    alarm: Condvar,
}

struct State {
    machine: Machine<Waiting>,
    /// When the thread wakes by itself, if it is to.
    timer: Option<Nanos>,
    closed: bool,
}

/// A read or write that is not started.
pub(super) struct Waiting {
    pub(super) device: Arc<dyn Device>,
    pub(super) request: Request,
}

/// What is to be read or written.
pub(super) enum Request {
    Read { offset: u64, buffer: Buffer, done: Done<Buffer> },
    Write { offset: u64, bytes: Buffer, durable: bool, done: Done<()> },
}

impl Request {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Read { buffer, .. } => buffer.len() as u64,
            Self::Write { bytes, .. } => bytes.len() as u64,
        }
    }

    fn fail(self, failure: Failure) {
        match self {
            Self::Read { done, .. } => done.finish(Err(failure)),
            Self::Write { done, .. } => done.finish(Err(failure)),
        }
    }
}

/// Why a request of a volume that was removed is not done.
pub(super) fn shutting_down() -> Failure {
    Failure::new(FailureKind::ShuttingDown, "the volume is being detached from its pool")
}

/// A request that may go, and the way back to what let it.
struct Starting {
    core: Arc<Core>,
    waiting: Waiting,
    ticket: Ticket,
}

thread_local! {
    /// What this thread is about to start; only while it starts something.
    static STARTING: RefCell<Option<VecDeque<Starting>>> = const { RefCell::new(None) };
}

/// Starts requests one after the other.
///
/// A device may finish a request before the call returns; that makes room for the next, which would be started within the first, and so on
/// until the stack ends. So who comes here from within only adds to the list.
fn start_all(list: Vec<Starting>) {
    let is_first = STARTING.with_borrow_mut(|starting| {
        let is_first = starting.is_none();
        starting.get_or_insert_default().extend(list);
        is_first
    });
    if !is_first {
        return;
    }
    let _end = EndOfStarting;
    while let Some(next) = STARTING.with_borrow_mut(|starting| starting.as_mut().and_then(VecDeque::pop_front)) {
        next.start();
    }
}

/// Also after a panic: else this thread would never start anything again. What is left then answers that it was dropped.
struct EndOfStarting;

impl Drop for EndOfStarting {
    fn drop(&mut self) {
        drop(STARTING.take());
    }
}

impl Starting {
    fn start(self) {
        let Self { core, waiting: Waiting { device, request }, ticket } = self;
        match request {
            Request::Read { offset, buffer, done } => device.read(offset, buffer, core.around(ticket, done)),
            Request::Write { offset, bytes, durable, done } => {
                device.write(offset, bytes, durable, core.around(ticket, done));
            }
        }
    }
}

impl Core {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, limits: Limits) -> VolumeId {
        let now = self.now();
        let mut state = self.lock();
        let id = state.machine.add(limits, now);
        if state.closed {
            state.machine.remove(id);
        }
        id
    }

    pub(super) fn remove(&self, id: VolumeId) {
        // The guard must be gone before anybody is answered.
        let waiting = self.lock().machine.remove(id);
        waiting.into_iter().for_each(|waiting| waiting.request.fail(shutting_down()));
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = state.machine.clear();
        drop(state);
        self.alarm.notify_all();
        waiting.into_iter().for_each(|waiting| waiting.request.fail(shutting_down()));
    }

    pub(super) fn change(self: &Arc<Self>, id: VolumeId, limits: Limits) {
        let now = self.now();
        let mut state = self.lock();
        state.machine.change(id, limits, now);
        self.go_on(state, now);
    }

    /// Whether what does not wait may pass.
    pub(super) fn passes(&self, id: VolumeId, counts: bool) -> bool {
        let now = self.now();
        self.lock().machine.passes(id, counts, now)
    }

    /// Starts a request now or later, or answers it.
    pub(super) fn submit(self: &Arc<Self>, id: VolumeId, device: &Arc<dyn Device>, request: Request) {
        let (now, len) = (self.now(), request.len());
        let mut state = self.lock();
        match state.machine.admit(id, len, now) {
            Admission::Now(ticket) => {
                drop(state);
                let waiting = Waiting { device: device.clone(), request };
                Starting { core: self.clone(), waiting, ticket }.start();
            }
            Admission::Later => {
                let waiting = Waiting { device: device.clone(), request };
                let refused = state.machine.wait(id, len, waiting, now);
                self.remind(&mut state);
                drop(state);
                refused.into_iter().for_each(|waiting| waiting.request.fail(shutting_down()));
            }
            Admission::Gone => {
                drop(state);
                request.fail(shutting_down());
            }
        }
    }

    /// The way back of a request that is started: its room is given back, it is answered, and then those are started that have the room now.
    /// It is answered first since others may be answered within the call that starts them.
    fn around<T: Send + 'static>(self: Arc<Self>, ticket: Ticket, done: Done<T>) -> Done<T> {
        Done::new(move |result| {
            let mut state = self.lock();
            state.machine.finish(ticket);
            if !state.machine.waits_for_room() {
                drop(state);
                return done.finish(result);
            }
            let now = self.now();
            let started = self.take_started(state, now);
            done.finish(result);
            start_all(started);
        })
    }

    fn go_on(self: &Arc<Self>, state: MutexGuard<'_, State>, now: Nanos) {
        start_all(self.take_started(state, now));
    }

    fn take_started(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now: Nanos) -> Vec<Starting> {
        let mut started = Vec::new();
        state.machine.start(now, &mut started);
        self.remind(&mut state);
        drop(state);
        let starting = |Started { request, ticket }| Starting { core: self.clone(), waiting: request, ticket };
        started.into_iter().map(starting).collect()
    }

    /// Wakes the thread when it would sleep too long.
    fn remind(&self, state: &mut State) {
        let next = state.machine.next_wake();
        if next.is_some_and(|next| state.timer.is_none_or(|timer| next < timer)) {
            state.timer = next;
            self.alarm.notify_one();
        }
    }

    /// What the thread does.
    fn keep_time(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.closed {
            let now = self.now();
            let next = state.machine.next_wake();
            state = match next {
                Some(next) if next <= now => {
                    self.go_on(state, now);
                    self.lock()
                }
                Some(next) => {
                    state.timer = Some(next);
                    let sleep = Duration::from_nanos(next.since(now));
                    self.alarm.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    state.timer = None;
                    self.alarm.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}
