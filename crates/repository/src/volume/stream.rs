//! Streams: bytes that come once, such as the dump of a database on standard input.

use super::map::Map;
use super::{BLOCK_LEN, Error, narrow};
use crate::ids::TableRef;
use crate::pack::BlobKind;
use crate::table;
use crate::tree::Cutter;
use crate::tree::entry::Extent;
use crate::writer::Writer;
use crate::{Counters, Progress};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Chunks on their way into packs; each has up to 4 MiB.
const CHUNKS_IN_FLIGHT: usize = 4;

/// What was stored of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamSummary {
    /// Its table of extents.
    pub root: TableRef,
    /// How many bytes it had.
    pub bytes: u64,
}

/// Stores everything that `input` gives, cut where the content says so.
pub async fn store_stream(
    writer: &Writer,
    mut input: impl AsyncRead + Unpin,
    cancel: &CancellationToken,
    progress: Arc<dyn Progress>,
) -> Result<StreamSummary, Error> {
    let mut table = table::Builder::new(writer);
    let mut cutter = Cutter::default();
    let mut chunks = Chunks { writer, on_their_way: VecDeque::new(), end: 0 };
    let mut ended = false;
    while !ended {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let read = input.read_buf(cutter.buffer()).await;
        let read = read.map_err(|source| Error::Stream { action: "read", source })?;
        ended = read == 0;
        progress.add(Counters { bytes: read as u64, ..Counters::default() });
        while ended || !cutter.wants_more() {
            let Some(chunk) = cutter.next() else { break };
            if chunks.on_their_way.len() == CHUNKS_IN_FLIGHT {
                chunks.land(&mut table).await?;
            }
            chunks.store(chunk);
        }
    }
    while !chunks.on_their_way.is_empty() {
        chunks.land(&mut table).await?;
    }
    Ok(StreamSummary { root: table.finish().await?, bytes: chunks.end })
}

struct Chunks<'a> {
    writer: &'a Writer,
    on_their_way: VecDeque<JoinHandle<crate::Result<crate::BlobRef>>>,
    end: u64,
}

impl Chunks<'_> {
    fn store(&mut self, chunk: Bytes) {
        let writer = self.writer.clone();
        self.on_their_way.push_back(tokio::spawn(async move { writer.put_blob(BlobKind::Data, chunk).await }));
    }

    /// Waits for the oldest chunk, and writes down where it is.
    async fn land(&mut self, table: &mut table::Builder) -> Result<(), Error> {
        let Some(put) = self.on_their_way.pop_front() else { return Ok(()) };
        let blob = put.await.map_err(|error| crate::Error::Interrupted(error.to_string()))??;
        let extent = Extent { file_offset: self.end, len: blob.plain_len, blob_offset: 0, blob };
        self.end += u64::from(blob.plain_len);
        Ok(table.push(&extent.encode_key(), &extent.encode_value()).await?)
    }
}

/// Gives the bytes of a volume or a stream in order, holes as zeros, each byte verified before it is given.
pub async fn read_stream(
    map: &Map,
    mut output: impl AsyncWrite + Unpin,
    cancel: &CancellationToken,
    progress: Arc<dyn Progress>,
) -> Result<(), Error> {
    let failed = |source| Error::Stream { action: "write", source };
    progress.total(Counters { files: 1, bytes: map.size(), new_bytes: 0 });
    let (mut windows, mut at) = (map.windows(), 0);
    while let Some(window) = windows.try_next().await? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        write_zeros(&mut output, window.start - at).await.map_err(failed)?;
        output.write_all(&window.bytes).await.map_err(failed)?;
        let end = window.start + window.bytes.len() as u64;
        progress.add(Counters { bytes: end - at, ..Counters::default() });
        at = end;
    }
    write_zeros(&mut output, map.size() - at).await.map_err(failed)?;
    output.flush().await.map_err(failed)?;
    progress.add(Counters { files: 1, bytes: map.size() - at, new_bytes: 0 });
    Ok(())
}

/// The stretches of a volume or a stream that hold anything, in order: where each begins, and its bytes, verified. The rest is zeros.
pub fn stretches(map: &Map) -> impl Stream<Item = Result<(u64, Vec<u8>), Error>> + Send + use<> {
    map.windows().map_ok(|window| (window.start, window.bytes))
}

async fn write_zeros(output: &mut (impl AsyncWrite + Unpin), len: u64) -> std::io::Result<()> {
    let zeros = vec![0; narrow(BLOCK_LEN) as usize];
    let mut left = len;
    while left > 0 {
        let now = left.min(BLOCK_LEN);
        output.write_all(&zeros[..narrow(now) as usize]).await?;
        left -= now;
    }
    Ok(())
}
