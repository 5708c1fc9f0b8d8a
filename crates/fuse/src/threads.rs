//! The threads that read requests, all from one file: requests that were read through another one would be lost with it.
//!
//! They sleep in `read`, which wakes one of them for each request. Waiting in `poll`, which could be ended easily, would wake all of them,
//! and cost a second system call. So ending them while the connection goes on takes a request for each: they are told to end with their
//! next one, and the kernel is asked for as many that ask for nothing. It sends these itself, and waits for no answer. A read of the block
//! device would wake a thread too; but whoever asks for it waits, and cannot be killed, until a device has answered that may never do so.

use crate::session::{Session, Turn};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that serve a session. Dropping them ends them.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    handles: Vec<thread::JoinHandle<()>>,
    /// How long who ends them waits, at most.
    patience: Duration,
    /// Until when, once they were told to end.
    deadline: Option<Instant>,
}

struct Shared {
    session: Arc<Session>,
    /// They are to end with their next request.
    leaving: AtomicBool,
    alive: Mutex<usize>,
    changed: Condvar,
}

impl Threads {
    pub(crate) fn start(session: &Arc<Session>, count: usize, name: &str, patience: Duration) -> io::Result<Self> {
        // Whoever had the connection before may have wanted not to wait.
        let flags = rustix::fs::fcntl_getfl(session.fuse())?;
        rustix::fs::fcntl_setfl(session.fuse(), flags - OFlags::NONBLOCK)?;
        let leaving = AtomicBool::new(false);
        let shared =
            Arc::new(Shared { session: session.clone(), leaving, alive: Mutex::default(), changed: Condvar::new() });
        let mut threads = Self { shared, handles: Vec::new(), patience, deadline: None };
        for _ in 0..count {
            let shared = threads.shared.clone();
            // The kernel keeps 15 bytes of a name.
            let builder = thread::Builder::new().name(format!("fuse {name}"));
            *threads.shared.lock() += 1;
            match builder.spawn(move || shared.run()) {
                Ok(handle) => threads.handles.push(handle),
                Err(error) => {
                    *threads.shared.lock() -= 1;
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    /// Whether any of them still serves.
    pub(crate) fn are_alive(&self) -> bool {
        *self.shared.lock() > 0
    }

    /// Waits until they have ended because the connection has; whether that came in time.
    pub(crate) fn join(&mut self) -> bool {
        self.join_for(self.patience)
    }

    fn join_for(&mut self, patience: Duration) -> bool {
        let alive = self.shared.lock();
        let wait = self.shared.changed.wait_timeout_while(alive, patience, |alive| *alive > 0);
        let (alive, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
        drop(alive);
        if timeout.timed_out() {
            return false;
        }
        for handle in self.handles.drain(..) {
            // A panic was printed where it happened.
            let _ = handle.join();
        }
        true
    }

    /// What is left of the patience since they were told to end.
    fn left(&self) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Tells them to end, and does not wait for it.
    pub(crate) fn tell_to_end(&mut self) -> Result<(), Errno> {
        self.deadline.get_or_insert_with(|| Instant::now() + self.patience);
        if self.shared.leaving.swap(true, Ordering::SeqCst) || !self.shared.session.has_begun() {
            return Ok(());
        }
        // Each takes one at most, since it ends then. What is left over is for the next process, which passes over it.
        let alive = *self.shared.lock();
        (0..alive).try_for_each(|_| self.shared.session.kick())
    }

    /// Ends them while the connection goes on, and waits for what they have taken.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let told = self.tell_to_end();
        if self.join_for(self.left()) && self.shared.session.in_flight.wait(self.left()) {
            return Ok(());
        }
        told?;
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Err(error) = self.tell_to_end() {
            // As when the connection is over, with which they end, too.
            tracing::debug!(%error, "threads of a block device could not be woken");
        }
        // A connection that has not begun ends with the file system, which is dropped after this.
        if self.shared.session.has_begun() && !self.join_for(self.left()) {
            tracing::warn!("a thread of a block device goes on: its device does not return from a request");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // Also when it panics, which would be a defect of the device: who waits must not wait for ever.
        let _gone = Gone(self);
        block::be_patient();
        while !self.leaving.load(Ordering::SeqCst) {
            match self.session.turn() {
                Ok(Turn::Served) => {}
                Ok(Turn::Over) => return,
                Err(Errno::NOMEM) => thread::yield_now(),
                Err(error) => {
                    tracing::error!(%error, "requests to a block device cannot be read any more");
                    return;
                }
            }
        }
    }
}

struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}
