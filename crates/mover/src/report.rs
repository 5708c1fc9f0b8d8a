//! How far the mover is, told in lines of JSON.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use repository::{Counters, Progress};
use serde::{Deserialize, Serialize};

/// The least time between two lines of one phase.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What a mover does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The volume goes into the repository.
    Store,
    /// What was stored is read back.
    ReadBack,
    /// The volume is filled.
    Fill,
    /// The volume is compared with the repository.
    Compare,
}

/// One line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    phase: Phase,
    files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
}

/// Writes lines of JSON, one at a time.
#[derive(Clone)]
pub struct Lines {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Lines {
    #[must_use]
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Arc::new(Mutex::new(Box::new(out))) }
    }

    /// Writes a line. Whoever reads may go away; the work goes on, its result is told elsewhere as well.
    pub(crate) fn write(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            tracing::debug!(%error, "write a line of progress");
        }
    }
}

/// Counts what is done in one phase and writes a line at most every second.
pub(crate) struct LineProgress {
    lines: Lines,
    phase: Phase,
    total_bytes: Option<u64>,
    files: AtomicU64,
    bytes: AtomicU64,
    last_line: Mutex<Instant>,
}

impl LineProgress {
    pub(crate) fn new(lines: &Lines, phase: Phase, total_bytes: Option<u64>) -> Arc<Self> {
        let progress = Self {
            lines: lines.clone(),
            phase,
            total_bytes,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
        };
        progress.write_line();
        Arc::new(progress)
    }

    fn write_line(&self) {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let line = Line { phase: self.phase, files, bytes, total_bytes: self.total_bytes };
        match serde_json::to_string(&line) {
            Ok(line) => self.lines.write(&line),
            Err(error) => tracing::debug!(%error, "encode a line of progress"),
        }
    }
}

impl Progress for LineProgress {
    fn add(&self, done: Counters) {
        self.files.fetch_add(done.files, Ordering::Relaxed);
        self.bytes.fetch_add(done.bytes, Ordering::Relaxed);
        // Whoever finds the clock taken leaves the line to the one who has it.
        let Ok(mut last_line) = self.last_line.try_lock() else { return };
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            drop(last_line);
            self.write_line();
        }
    }
}
