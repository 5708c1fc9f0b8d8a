//! Requests to the disk through io_uring: one thread hands what has come to the kernel, many at once, and takes what is done.
//!
//! ```text
//! Inbox ─► ring thread ─► kernel ─► ring thread ─► engine ─► Inbox ...
//!              └─► workers: what waits by itself, and what was not done in full
//! ```
//! It judges nothing: what the kernel has not done in full is done again by a worker, who tells what is wrong and where. A flush alone is not, since the
//! second one would succeed whatever the first has lost.

use super::{Here, Job, Shared, Who};
use crate::engine::{Done, Io, IoId, Move, Slab};
use crate::memory::{Buffer, Memory};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::EventfdFlags;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Stretches that the kernel has at once. More wait here; a disk that is faster with more of them has not been seen.
const DEPTH: u32 = 256;
/// What tells the reading of the alarm from requests.
const ALARM: u64 = u64::MAX;
/// Above the stretch's length stands which request it belongs to.
const LENGTH_BITS: u32 = 32;

/// Where requests for the ring are left, by any thread.
pub(super) struct Inbox<M> {
    state: Mutex<State<M>>,
    /// Counts, so that a reading of it ends.
    alarm: OwnedFd,
}

struct State<M> {
    requests: VecDeque<(IoId, Io<M>)>,
    is_closed: bool,
    /// Its thread waits for the kernel, which the alarm ends.
    sleeps: bool,
}

impl<M> Inbox<M> {
    fn new() -> io::Result<Self> {
        let alarm = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let state = State { requests: VecDeque::new(), is_closed: false, sleeps: false };
        Ok(Self { state: Mutex::new(state), alarm })
    }

    pub(super) fn push(&self, id: IoId, io: Io<M>) {
        let mut state = self.lock();
        state.requests.push_back((id, io));
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.wake();
        }
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wake();
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _told = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
    }

    /// Takes what has come; nothing if it is closed.
    fn take(&self) -> Option<VecDeque<(IoId, Io<M>)>> {
        let mut state = self.lock();
        (!state.is_closed).then(|| std::mem::take(&mut state.requests))
    }

    /// Whether there is nothing to do but wait; whoever comes then wakes.
    fn rest(&self) -> bool {
        let mut state = self.lock();
        state.sleeps = state.requests.is_empty() && !state.is_closed;
        state.sleeps
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that the kernel has.
struct Pending<M> {
    id: IoId,
    io: Io<M>,
    /// The memory of one that brings none.
    own: Option<Buffer>,
    /// Stretches that are not done.
    left: usize,
    is_whole: bool,
}

/// The thread's own.
struct Ring<M: Memory> {
    ring: IoUring,
    file: types::Fd,
    pending: Slab<Box<Pending<M>>>,
    /// Stretches that do not fit into the ring yet.
    waiting: VecDeque<squeue::Entry>,
    /// Stretches that the kernel has.
    begun: usize,
    /// Where the alarm is read into. It is never given back: who ends need not wait for a reading that is under way.
    alarmed: &'static mut u64,
    is_armed: bool,
}

/// Starts the thread, if the kernel has what is needed, and the disk is one that it can be asked for.
pub(super) fn start<M: Memory>(shared: &Arc<Shared<M>>) -> io::Result<(Arc<Inbox<M>>, JoinHandle<()>)> {
    let file = shared.disk.file().ok_or_else(|| io::Error::other("the disk is not used without the system's cache"))?;
    let file = types::Fd(file.as_raw_fd());
    let inbox = Arc::new(Inbox::new()?);
    let (sender, begun) = mpsc::sync_channel(1);
    let (held, own) = (Arc::clone(shared), Arc::clone(&inbox));
    let thread = std::thread::Builder::new().name("pool-ring".into()).spawn(move || match Ring::new(file) {
        Err(error) => drop(sender.send(Err(error))),
        Ok(mut ring) => {
            drop(sender.send(Ok(())));
            if !matches!(catch_unwind(AssertUnwindSafe(|| ring.serve(&held, &own))), Ok(Ok(()))) {
                held.break_down(held.lock());
            }
        }
    })?;
    begun.recv().map_err(io::Error::other)??;
    Ok((inbox, thread))
}

impl<M: Memory> Ring<M> {
    fn new(file: types::Fd) -> io::Result<Self> {
        // What is done is told to the thread that asked when it comes to ask, and to no other: no interrupts between threads. Linux 6.1 has it.
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(DEPTH)?;
        let (pending, waiting, alarmed) = (Slab::default(), VecDeque::new(), Box::leak(Box::new(0)));
        Ok(Self { ring, file, pending, waiting, begun: 0, alarmed, is_armed: false })
    }

    /// Until the inbox is closed, and the kernel has nothing any more.
    fn serve(&mut self, shared: &Shared<M>, inbox: &Inbox<M>) -> io::Result<()> {
        let unit = shared.disk.unit();
        loop {
            let Some(requests) = inbox.take() else { return Ok(()) };
            for (id, io) in requests {
                self.begin(id, io, shared, unit);
            }
            self.hand_over(&inbox.alarm);
            let sleeps = self.ring.completion().is_empty() && inbox.rest();
            self.enter(usize::from(sleeps))?;
            let done = self.take_done(shared);
            if !done.is_empty() {
                let mut here = Here::new(Who::Hasty);
                shared.tell(shared.lock(), |engine| engine.all_finished(done), &mut here);
            }
        }
    }

    /// Cuts a request into stretches, which wait to be handed over.
    fn begin(&mut self, id: IoId, io: Io<M>, shared: &Shared<M>, unit: u32) {
        let mut pending = Box::new(Pending { id, io, own: None, left: 0, is_whole: true });
        let moves = pending.io.moves(&mut pending.own);
        let Some(moves) = moves.filter(|moves| moves.iter().all(|part| part.is_aligned(unit))) else {
            return shared.queue.push(Job::Io(pending.id, pending.io));
        };
        pending.left = moves.len();
        let at = self.pending.insert(pending);
        let file = self.file;
        for part in moves {
            let (entry, len) = match part {
                Move::Read { offset, memory, len } => {
                    (opcode::Read::new(file, memory, len).offset(offset).build(), len)
                }
                Move::Write { offset, memory, len } => {
                    (opcode::Write::new(file, memory, len).offset(offset).build(), len)
                }
                Move::Flush => (opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(), 0),
            };
            self.waiting.push_back(entry.user_data((at as u64) << LENGTH_BITS | u64::from(len)));
        }
    }

    /// Puts what waits into the ring, as far as there is room.
    #[allow(unsafe_code, reason = "the kernel is given memory")]
    fn hand_over(&mut self, alarm: &OwnedFd) {
        if !self.is_armed {
            let memory = std::ptr::from_mut(self.alarmed).cast();
            let entry = opcode::Read::new(types::Fd(alarm.as_raw_fd()), memory, 8).build().user_data(ALARM);
            self.waiting.push_front(entry);
        }
        while self.begun < DEPTH as usize
            && let Some(entry) = self.waiting.pop_front()
        {
            // SAFETY: what the entry points to is memory of `self.pending`, or `self.alarmed`, which is never freed. It stays where it is, and nobody else
            // looks at it, until `take_done` has seen the entry done; `drop` waits for that, too. The file is open for as long as `Shared` is, which the
            // thread holds, and the alarm as the inbox is.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_err() {
                self.waiting.push_front(entry);
                return;
            }
            self.is_armed |= entry.get_user_data() == ALARM;
            self.begun += 1;
        }
    }

    /// Has the kernel take what was put into the ring and tell what is done, at least so much.
    fn enter(&mut self, least: usize) -> io::Result<()> {
        match self.ring.submitter().submit_and_wait(least) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // A signal; or there is no room for more before something is taken.
                Some(Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// What is done, as the engine wants to know it.
    fn take_done(&mut self, shared: &Shared<M>) -> Vec<(IoId, Done<M>)> {
        let mut done = Vec::new();
        let ended: Vec<_> = self.ring.completion().map(|ended| (ended.user_data(), ended.result())).collect();
        for (data, result) in ended {
            self.begun -= 1;
            if data == ALARM {
                self.is_armed = false;
                continue;
            }
            let at = usize::try_from(data >> LENGTH_BITS).unwrap_or(usize::MAX);
            let Some(mut pending) = self.pending.take(at) else { continue };
            let len = data & u64::from(u32::MAX);
            pending.left -= 1;
            pending.is_whole &= u64::try_from(result) == Ok(len);
            if pending.left > 0 {
                self.pending.put_back(at, pending);
                continue;
            }
            self.pending.let_go(at);
            let Pending { id, io, own, is_whole, .. } = *pending;
            match io {
                io if is_whole => done.push((id, io.moved(own))),
                Io::Flush => done.push((id, Done::Flushed(Err(io::Error::from_raw_os_error(-result).to_string())))),
                io => shared.queue.push(Job::Io(id, io)),
            }
        }
        done
    }
}

impl<M: Memory> Drop for Ring<M> {
    /// Waits until the kernel has none of the memory any more, however the thread has come here.
    fn drop(&mut self) {
        while self.begun > usize::from(self.is_armed) {
            if self.enter(1).is_err() {
                // The kernel may still write into it.
                return std::mem::forget(std::mem::take(&mut self.pending));
            }
            for ended in self.ring.completion() {
                self.begun -= 1;
                self.is_armed &= ended.user_data() != ALARM;
            }
        }
    }
}
