//! A device that takes its time: what is asked is done by other threads, in any order.

use crate::{Buffer, ContextQuery, Description, Device, Done, Failure, Status, ZeroMode};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Another device, which some threads work on.
///
/// With a closed [`Gate`] they wait before each request.
#[derive(Debug)]
pub struct Later<D> {
    device: Arc<D>,
    jobs: mpsc::Sender<Job>,
    gate: Arc<Gate>,
}

/// Holds requests up while it is closed, and counts them.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    /// Holds up what comes from now on.
    pub fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Lets everything go on.
    pub fn open(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.changed.notify_all();
    }

    /// How many requests are being worked on or wait.
    #[must_use]
    pub fn at_once(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many it were at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap_or_else(PoisonError::into_inner));
    }
}

impl<D: Device> Later<D> {
    /// A device that so many threads work on.
    pub fn new(device: Arc<D>, threads: usize) -> Self {
        let (jobs, taken) = mpsc::channel::<Job>();
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..threads {
            let taken = taken.clone();
            thread::spawn(move || {
                let next = || taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(job) = next() {
                    job();
                }
            });
        }
        Self { device, jobs, gate: Arc::default() }
    }

    /// What holds its requests up.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    fn later(&self, job: impl FnOnce(&D) + Send + 'static) {
        let (device, gate) = (self.device.clone(), self.gate.clone());
        let now = gate.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        gate.most.fetch_max(now, Ordering::SeqCst);
        let job = move || {
            gate.pass();
            // Counted before the answer: who has it must find it counted.
            gate.waiting.fetch_sub(1, Ordering::SeqCst);
            job(&device);
        };
        // Without threads there is nobody to do it; then the request answers that it was dropped.
        let _ = self.jobs.send(Box::new(job));
    }
}

impl<D: Device> Device for Later<D> {
    fn describe(&self) -> Result<Description, Failure> {
        self.device.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.later(move |device| device.read(offset, buffer, done));
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        self.later(move |device| device.write(offset, bytes, durable, done));
    }

    fn flush(&self, done: Done<()>) {
        self.later(move |device| device.flush(done));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.later(move |device| device.discard(range, durable, done));
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.later(move |device| device.write_zeroes(range, mode, done));
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.device.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        let context = context.to_owned();
        self.later(move |device| device.block_status(&context, range, most, done));
    }
}
