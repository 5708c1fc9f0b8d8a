//! A volume of a recovery point as a device of the NBD server.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use block::{
    ALLOCATION, BlockSizes, Buffer, ContextQuery, Description, Device, Done, Failure, FailureKind, Features, HOLE,
    Status, ZERO,
};
use repository::volume::{self, Stretch, VolumeReader};
use tokio::runtime::Handle;

use crate::repo::open::explain_volume;

/// What requests should look like: any offset; parts of a volume are 64 KiB long; longer requests than 32 MiB no client sends.
const BLOCKS: BlockSizes = BlockSizes { preferred: 64 << 10, ..BlockSizes::ASSUMED };

/// Errors whose texts are remembered, so that each is logged once; after so many different ones a log helps nobody.
const MOST_SAID: usize = 1000;

/// What was logged already: a client that reads a bad block again and again must not fill the log.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<HashSet<String>>);

impl Said {
    fn once(&self, text: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MOST_SAID && said.insert(text.to_owned()) {
            tracing::error!("{text}");
        }
    }
}

/// A volume, read-only. Its reader is asynchronous: each request is a task.
pub(super) struct Served {
    volume: Arc<Volume>,
    runtime: Handle,
}

struct Volume {
    name: String,
    reader: VolumeReader,
    said: Arc<Said>,
}

impl Served {
    /// Must be called within a runtime, where its tasks will run.
    pub(super) fn new(name: &str, reader: VolumeReader, said: Arc<Said>) -> Self {
        let volume = Arc::new(Volume { name: name.to_owned(), reader, said });
        Self { volume, runtime: Handle::current() }
    }
}

impl Volume {
    /// What a client is told, and the log, once.
    fn failure(&self, what: &str, range: &Range<u64>, error: volume::Error) -> Failure {
        let text = explain_volume(format!("{what} {}", self.name), error).to_string();
        self.said.once(&text);
        let text = text.replace("\n  next: ", "; ");
        Failure::new(FailureKind::Io, format!("{text} (bytes {} to {})", range.start, range.end))
    }

    async fn read(&self, offset: u64, mut buffer: Buffer) -> Result<Buffer, Failure> {
        let range = offset..offset + buffer.len() as u64;
        let read = self.reader.read(range.clone()).await;
        let stretches = read.map_err(|error| self.failure("read", &range, error))?;
        let mut at = 0_usize;
        for stretch in stretches {
            let len = match &stretch {
                Stretch::Data(bytes) => bytes.len(),
                Stretch::Zeros(len) => usize::try_from(*len).unwrap_or(usize::MAX),
            };
            let end = at.saturating_add(len);
            let Some(part) = buffer.get_mut(at..end) else { break };
            match stretch {
                Stretch::Data(bytes) => part.copy_from_slice(&bytes),
                Stretch::Zeros(_) => part.fill(0),
            }
            at = end;
        }
        if at == buffer.len() {
            return Ok(buffer);
        }
        let message = format!("{at} bytes of {range:?} were read; this is a defect");
        Err(Failure::new(FailureKind::Io, message))
    }

    async fn states(&self, range: Range<u64>, most: usize) -> Result<Vec<Status>, Failure> {
        let found = self.reader.extents(range.clone(), most).await;
        let stretches = found.map_err(|error| self.failure("look for holes of", &range, error))?;
        let status = |stretch: volume::Allocation| Status {
            len: stretch.len,
            flags: if stretch.is_data { 0 } else { HOLE | ZERO },
        };
        Ok(stretches.into_iter().map(status).collect())
    }
}

impl Device for Served {
    fn describe(&self) -> Result<Description, Failure> {
        let features = Features { several_connections: true, ..Features::default() };
        Ok(Description { size: self.volume.reader.size(), blocks: BLOCKS, features })
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        let volume = self.volume.clone();
        self.runtime.spawn(async move { done.finish(volume.read(offset, buffer).await) });
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        Ok([ALLOCATION].into_iter().filter(|name| query.picks(name)).take(most).map(str::to_owned).collect())
    }

    fn block_status(&self, _context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        let volume = self.volume.clone();
        self.runtime.spawn(async move { done.finish(volume.states(range, most).await) });
    }
}
