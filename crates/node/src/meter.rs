//! What is asked of a device, counted and timed.

use block::{Buffer, ContextQuery, Description, Device, Done, Failure, Status, ZeroMode};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The kinds of requests that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Flush,
    Discard,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        }
    }
}

/// What is counted of one kind of requests.
#[derive(Debug, Clone)]
pub(crate) struct Gauges {
    pub(crate) count: Counter,
    pub(crate) bytes: Counter,
    pub(crate) failed: Counter,
    pub(crate) nanoseconds: Counter,
    pub(crate) seconds: Histogram,
}

/// What is counted of one device.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) operations: [Gauges; 4],
    pub(crate) in_flight: Gauge,
}

impl Meter {
    pub(crate) fn of(&self, operation: Operation) -> &Gauges {
        &self.operations[operation as usize]
    }
}

/// Counts and times what goes through to a device.
pub(crate) struct Measured {
    inner: Arc<dyn Device>,
    meter: Arc<Meter>,
}

impl Measured {
    pub(crate) fn new(inner: Arc<dyn Device>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }

    fn begin<T: 'static>(&self, operation: Operation, bytes: u64, done: Done<T>) -> Done<T> {
        let (meter, begun) = (self.meter.clone(), Instant::now());
        meter.in_flight.inc();
        Done::new(move |result| {
            let (gauges, took) = (meter.of(operation), begun.elapsed());
            gauges.count.inc();
            gauges.nanoseconds.inc_by(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            gauges.seconds.observe(took.as_secs_f64());
            if result.is_ok() {
                gauges.bytes.inc_by(bytes)
            } else {
                gauges.failed.inc()
            };
            meter.in_flight.dec();
            done.finish(result);
        })
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

impl Device for Measured {
    fn describe(&self) -> Result<Description, Failure> {
        self.inner.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        let done = self.begin(Operation::Read, buffer.len() as u64, done);
        self.inner.read(offset, buffer, done);
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        let done = self.begin(Operation::Write, bytes.len() as u64, done);
        self.inner.write(offset, bytes, durable, done);
    }

    fn flush(&self, done: Done<()>) {
        self.inner.flush(self.begin(Operation::Flush, 0, done));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        let done = self.begin(Operation::Discard, length(&range), done);
        self.inner.discard(range, durable, done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        let done = self.begin(Operation::Discard, length(&range), done);
        self.inner.write_zeroes(range, mode, done);
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.inner.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        self.inner.block_status(context, range, most, done);
    }
}
