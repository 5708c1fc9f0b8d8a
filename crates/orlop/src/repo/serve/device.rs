//! A volume of a recovery point as a device of the NBD server.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use nbd::{ALLOCATION, BlockSizes, Description, Device, Failure, FailureKind, Features, HOLE, Piece, Status, ZERO};
use repository::volume::{self, Stretch, VolumeReader};

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

/// A volume, read-only.
pub(super) struct Served {
    name: String,
    reader: VolumeReader,
    said: Arc<Said>,
}

impl Served {
    pub(super) fn new(name: &str, reader: VolumeReader, said: Arc<Said>) -> Self {
        Self { name: name.to_owned(), reader, said }
    }

    /// What a client is told, and the log, once.
    fn failure(&self, what: &str, range: &Range<u64>, error: volume::Error) -> Failure {
        let text = explain_volume(format!("{what} {}", self.name), error).to_string();
        self.said.once(&text);
        let text = text.replace("\n  next: ", "; ");
        Failure::new(FailureKind::Io, format!("{text} (bytes {} to {})", range.start, range.end))
    }
}

#[async_trait]
impl Device for Served {
    async fn describe(&self) -> Result<Description, Failure> {
        let features = Features { several_connections: true, ..Features::default() };
        Ok(Description { size: self.reader.size(), blocks: BLOCKS, features, contexts: vec![ALLOCATION.to_owned()] })
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Piece>, Failure> {
        let read = self.reader.read(range.clone()).await;
        let stretches = read.map_err(|error| self.failure("read", &range, error))?;
        let piece = |stretch| match stretch {
            Stretch::Data(bytes) => Piece::Data(bytes),
            Stretch::Zeros(len) => Piece::Zeros(len),
        };
        Ok(stretches.into_iter().map(piece).collect())
    }

    async fn block_status(&self, _context: &str, range: Range<u64>, most: usize) -> Result<Vec<Status>, Failure> {
        let found = self.reader.extents(range.clone(), most).await;
        let stretches = found.map_err(|error| self.failure("look for holes of", &range, error))?;
        let status = |stretch: volume::Allocation| Status {
            len: stretch.len,
            flags: if stretch.is_data { 0 } else { HOLE | ZERO },
        };
        Ok(stretches.into_iter().map(status).collect())
    }
}
