//! Blobs on their way from one repository to another.

use crate::error::{Error, Result};
use crate::fetch;
use crate::ids::BlobRef;
use crate::pack::BlobKind;
use crate::progress::{Counters, Progress};
use crate::repository::Repository;
use crate::writer::{PreparedBlob, Writer};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How many blobs one generation of what is known remembers, at 145 bytes each for a place of the table: two of them are 19 MiB. A blob that
/// was forgotten is read again, and the writer may still know that it has it.
const GENERATION: usize = (1 << 16) / 8 * 7;
/// Plain bytes of blobs that are read, compressed and put into packs at once.
const STEP_LEN: u64 = 8 << 20;

/// Copies blobs, and remembers where they went.
pub(super) struct Blobs {
    from: Repository,
    writer: Writer,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
    young: HashMap<BlobRef, BlobRef>,
    old: HashMap<BlobRef, BlobRef>,
    read_bytes: u64,
}

impl Blobs {
    pub(super) fn new(
        from: &Repository,
        writer: &Writer,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { from: from.clone(), writer: writer.clone(), progress, cancel, young, old, read_bytes: 0 }
    }

    /// Plain bytes that were read so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Takes down where blobs are in the other repository.
    pub(super) fn learn(&mut self, here: &[BlobRef], there: &[BlobRef]) {
        for (here, there) in here.iter().zip(there) {
            self.insert(*here, *there);
        }
    }

    fn insert(&mut self, here: BlobRef, there: BlobRef) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(here, there);
    }

    fn get(&mut self, here: &BlobRef) -> Option<BlobRef> {
        if let Some(there) = self.young.get(here) {
            return Some(*there);
        }
        let there = self.old.remove(here)?;
        self.insert(*here, there);
        Some(there)
    }

    /// Bytes of those blobs that must be read.
    pub(super) fn want(&mut self, blobs: &[BlobRef]) -> u64 {
        let mut bytes = 0;
        let mut last = None;
        for blob in blobs {
            if last != Some(blob) && self.get(blob).is_none() {
                bytes += u64::from(blob.plain_len);
            }
            last = Some(blob);
        }
        bytes
    }

    /// Gives where blobs are in the other repository, after it has stored those that are not known to be there.
    pub(super) async fn copy(&mut self, blobs: Vec<BlobRef>) -> Result<HashMap<BlobRef, BlobRef>> {
        let mut places = HashMap::new();
        let (mut step, mut bytes, mut wanted) = (Vec::new(), 0, HashSet::new());
        // In the order of the table, so that the copies lie as they will be read.
        for blob in blobs {
            if !wanted.insert(blob) {
                continue;
            }
            if let Some(there) = self.get(&blob) {
                places.insert(blob, there);
                continue;
            }
            bytes += u64::from(blob.plain_len);
            step.push(blob);
            if bytes >= STEP_LEN {
                self.store(std::mem::take(&mut step), &mut places).await?;
                bytes = 0;
            }
        }
        self.store(step, &mut places).await?;
        Ok(places)
    }

    async fn store(&mut self, step: Vec<BlobRef>, places: &mut HashMap<BlobRef, BlobRef>) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Interrupted("the copy was ended before it was complete; run it again".to_owned()));
        }
        let prepared: Arc<Mutex<HashMap<BlobRef, PreparedBlob>>> = Arc::default();
        let (filled, writer, progress) = (prepared.clone(), self.writer.clone(), self.progress.clone());
        let take = move |blob: &BlobRef, plain: &[u8]| {
            let ready = writer.prepare(plain, |_| None)?;
            filled.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob, ready);
            progress.add(Counters { bytes: plain.len() as u64, ..Counters::default() });
            Ok::<_, Error>(())
        };
        fetch::fetch(&self.from, step.clone(), take).await?;
        let mut prepared = std::mem::take(&mut *prepared.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut here, mut ready) = (Vec::new(), Vec::new());
        for blob in step {
            if let Some(blob_ready) = prepared.remove(&blob) {
                self.read_bytes += u64::from(blob.plain_len);
                here.push(blob);
                ready.push(blob_ready);
            }
        }
        let there = self.writer.append(BlobKind::Data, ready).await?;
        for (here, there) in here.into_iter().zip(there) {
            self.insert(here, there);
            places.insert(here, there);
        }
        Ok(())
    }
}
