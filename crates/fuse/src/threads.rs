//! The threads that read requests, all from one file: requests that were read through another one would be lost with it.
//!
//! They sleep in `read`, which wakes one of them for each request. Waiting in `poll`, which could be ended easily, would wake all of them,
//! and cost a second system call. So ending them while the connection goes on takes three steps: they are told to leave `read` for `poll`
//! after their next request; each is given one, by flushing the device; and when all of them poll, they are told to end. Until the last
//! step every request is answered, the flushes too.

use crate::session::{Session, Turn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Threads that serve a session.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    handles: Vec<thread::JoinHandle<()>>,
}

struct Shared {
    session: Arc<Session>,
    /// They are to leave `read`.
    leaving: AtomicBool,
    /// Readable when they are to end.
    end: OwnedFd,
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    alive: usize,
    polling: usize,
}

impl Threads {
    pub(crate) fn start(session: &Arc<Session>, count: usize, name: &str) -> io::Result<Self> {
        // Whoever had the connection before may have polled.
        let flags = rustix::fs::fcntl_getfl(session.fuse())?;
        rustix::fs::fcntl_setfl(session.fuse(), flags - OFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            session: session.clone(),
            leaving: AtomicBool::new(false),
            end: eventfd(0, EventfdFlags::CLOEXEC)?,
            counts: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut threads = Self { shared, handles: Vec::new() };
        for _ in 0..count {
            let shared = threads.shared.clone();
            // The kernel keeps 15 bytes of a name.
            let builder = thread::Builder::new().name(format!("fuse {name}"));
            threads.shared.lock().alive += 1;
            match builder.spawn(move || shared.run()) {
                Ok(handle) => threads.handles.push(handle),
                Err(error) => {
                    threads.shared.lock().alive -= 1;
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    /// Whether any of them still serves.
    pub(crate) fn are_alive(&self) -> bool {
        self.shared.lock().alive > 0
    }

    /// Waits until they have ended because the connection has; whether that came in time.
    pub(crate) fn join(&mut self, patience: Duration) -> bool {
        let counts = self.shared.lock();
        let wait = self.shared.changed.wait_timeout_while(counts, patience, |counts| counts.alive > 0);
        let (counts, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
        drop(counts);
        if timeout.timed_out() {
            return false;
        }
        for handle in self.handles.drain(..) {
            // A panic was printed where it happened.
            let _ = handle.join();
        }
        true
    }

    /// Ends them while the connection goes on; `kick` has the kernel send a request, and returns when it is answered.
    pub(crate) fn leave(&mut self, kick: impl Fn() -> io::Result<()>, patience: Duration) -> io::Result<()> {
        self.shared.leaving.store(true, Ordering::SeqCst);
        let flags = rustix::fs::fcntl_getfl(self.shared.session.fuse())?;
        rustix::fs::fcntl_setfl(self.shared.session.fuse(), flags | OFlags::NONBLOCK)?;
        while self.shared.lock().reads() {
            kick()?;
        }
        rustix::io::write(&self.shared.end, &1_u64.to_ne_bytes())?;
        if !self.join(patience) || !self.shared.session.in_flight.wait(patience) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Counts {
    fn reads(&self) -> bool {
        self.polling < self.alive
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // Also when it panics, which would be a defect of the device: who waits must not wait for ever.
        let _gone = Gone(self);
        let mut polls = false;
        loop {
            if !polls && self.leaving.load(Ordering::SeqCst) {
                polls = true;
                self.lock().polling += 1;
            }
            if polls && self.is_ended() {
                return;
            }
            match self.session.turn() {
                Ok(Turn::Served | Turn::Nothing) => {}
                Ok(Turn::Over) => return,
                Err(Errno::NOMEM) => thread::yield_now(),
                Err(error) => {
                    tracing::error!(%error, "requests to a block device cannot be read any more");
                    return;
                }
            }
        }
    }

    /// Waits for a request, or for the end.
    fn is_ended(&self) -> bool {
        let fuse = self.session.fuse();
        let mut waited = [PollFd::new(&self.end, PollFlags::IN), PollFd::new(&fuse, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) => !waited[0].revents().is_empty(),
            Err(_) => false,
        }
    }
}

struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.alive -= 1;
        drop(counts);
        self.0.changed.notify_all();
    }
}
