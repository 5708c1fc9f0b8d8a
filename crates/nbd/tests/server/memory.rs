//! A device in memory, and a server of it on a socket.

use async_trait::async_trait;
use bytes::Bytes;
use nbd::{
    ALLOCATION, BlockSizes, Description, Device, Export, Failure, FailureKind, Features, HOLE, Limits, Listener, Piece,
    Server, Status, ZERO, ZeroMode,
};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const BLOCK: usize = 4096;

/// Bytes; blocks that are all zeros are holes.
pub(crate) struct Memory {
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) features: Features,
    pub(crate) blocks: BlockSizes,
    /// Reads that touch this byte fail.
    pub(crate) bad: Option<u64>,
    /// Reads wait until it is open.
    pub(crate) gate: Option<CancellationToken>,
    pub(crate) at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    pub(crate) flushes: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let features = Features { several_connections: true, ..Features::default() };
        Self {
            bytes: Mutex::new(bytes),
            features,
            blocks: BlockSizes::ASSUMED,
            bad: None,
            gate: None,
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
        }
    }

    pub(crate) fn writable(bytes: Vec<u8>) -> Self {
        let features = Features {
            write: true,
            flush: true,
            durable_writes: true,
            trim: true,
            write_zeroes: true,
            several_connections: true,
        };
        Self { features, ..Self::new(bytes) }
    }

    fn span(range: &Range<u64>) -> Range<usize> {
        range.start as usize..range.end as usize
    }

    /// The stretches of a range, and whether each is a hole.
    fn stretches(&self, range: Range<u64>) -> Vec<(Range<usize>, bool)> {
        let bytes = self.bytes.lock().unwrap();
        let mut found: Vec<(Range<usize>, bool)> = Vec::new();
        let mut at = range.start as usize;
        while at < range.end as usize {
            let end = ((at / BLOCK + 1) * BLOCK).min(range.end as usize);
            let block = &bytes[at / BLOCK * BLOCK..((at / BLOCK + 1) * BLOCK).min(bytes.len())];
            let hole = block.iter().all(|byte| *byte == 0);
            match found.last_mut() {
                Some((last, was)) if *was == hole => last.end = end,
                _ => found.push((at..end, hole)),
            }
            at = end;
        }
        found
    }
}

#[async_trait]
impl Device for Memory {
    async fn describe(&self) -> Result<Description, Failure> {
        let size = self.bytes.lock().unwrap().len() as u64;
        let (blocks, features) = (self.blocks, self.features);
        Ok(Description { size, blocks, features, contexts: vec![ALLOCATION.to_owned()] })
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Piece>, Failure> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.cancelled().await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.bad.is_some_and(|bad| range.contains(&bad)) {
            return Err(Failure::new(FailureKind::Io, "the byte is bad"));
        }
        let stretches = self.stretches(range);
        let bytes = self.bytes.lock().unwrap();
        let piece = |(span, hole): (Range<usize>, bool)| match hole {
            true => Piece::Zeros(span.len() as u64),
            false => Piece::Data(Bytes::copy_from_slice(&bytes[span])),
        };
        Ok(stretches.into_iter().map(piece).collect())
    }

    async fn write(&self, offset: u64, bytes: Bytes, _durable: bool) -> Result<(), Failure> {
        let offset = offset as usize;
        self.bytes.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    async fn flush(&self) -> Result<(), Failure> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn trim(&self, range: Range<u64>, _durable: bool) -> Result<(), Failure> {
        self.bytes.lock().unwrap()[Self::span(&range)].fill(0);
        Ok(())
    }

    async fn write_zeroes(&self, range: Range<u64>, _mode: ZeroMode) -> Result<(), Failure> {
        self.trim(range, false).await
    }

    async fn block_status(&self, context: &str, range: Range<u64>, most: usize) -> Result<Vec<Status>, Failure> {
        assert_eq!(context, ALLOCATION);
        let stretches = self.stretches(range).into_iter().take(most);
        let status = |(span, hole): (Range<usize>, bool)| Status {
            len: span.len() as u64,
            flags: if hole { HOLE | ZERO } else { 0 },
        };
        Ok(stretches.map(status).collect())
    }
}

/// A server on a socket, and what ends it.
pub(crate) struct Served {
    _folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) fn start(devices: Vec<(&str, Arc<dyn Device>)>, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd.sock");
        let exports = devices
            .into_iter()
            .map(|(name, device)| Export { name: name.to_owned(), description: format!("about {name}"), device })
            .collect();
        let server = Server::new(exports, limits).unwrap();
        let listener = Listener::unix(&socket).unwrap();
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let server = tokio::spawn(async move { server.serve(listener, ends).await });
        Self { _folder: folder, socket, stop, server }
    }

    pub(crate) fn of(memory: Memory) -> (Self, Arc<Memory>) {
        let memory = Arc::new(memory);
        (Self::start(vec![("disk", memory.clone())], Limits::default()), memory)
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }

    /// Stops the server, which must end and take its socket with it.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
        assert!(!self.socket.exists(), "the socket stays");
    }
}

/// Bytes with holes in them.
pub(crate) fn sparse(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        if index % 7 < 3 {
            let mut state = index as u32 | 1;
            for byte in block {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
        }
    }
    bytes
}
