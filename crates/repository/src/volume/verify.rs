//! Comparing an image or a device with what is stored of it.

use super::image::{Image, is_zero};
use super::map::{Map, WINDOW_LEN, Window};
use super::{BLOCK_LEN, Error, Span, narrow, span_len};
use crate::{Counters, Progress, background};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How many differing ranges are named; the rest is only counted.
const NAMED_RANGES: usize = 20;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifySummary {
    /// The size of the volume in the repository.
    pub bytes: u64,
    /// The size of the image or the device, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_size: Option<u64>,
    /// Bytes in blocks that differ.
    pub different_bytes: u64,
    /// The first ranges that differ.
    pub first: Vec<Difference>,
}

/// A range of blocks that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Difference {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl VerifySummary {
    /// Whether the volume is what is stored.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.other_size.is_none() && self.different_bytes == 0
    }
}

/// Compares every byte of `image` with the volume or stream.
pub async fn verify(
    map: &Map,
    image: &Path,
    cancel: &CancellationToken,
    progress: Arc<dyn Progress>,
) -> Result<VerifySummary, Error> {
    let path = image.to_owned();
    let image = Arc::new(background::run(move || Image::open(&path)).await??);
    let size = map.size();
    progress.total(Counters { files: 1, bytes: size, new_bytes: 0 });
    let mut found = VerifySummary { bytes: size, ..VerifySummary::default() };
    found.other_size = Some(image.size()).filter(|other| *other != size);
    let end = size.min(image.size());
    let (mut windows, mut at) = (map.windows(), 0);
    while at < end {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let window = windows.try_next().await?;
        // What lies before the window, or after the last one, is holes, which must be zeros in the image.
        let gap = at..window.as_ref().map_or(end, |window| window.start.min(end));
        at = window.as_ref().map_or(end, |window| (window.start + window.bytes.len() as u64).min(end));
        let (image, gap_start) = (image.clone(), gap.start);
        found = background::run(move || {
            zeros_differ(&image, &gap, &mut found)?;
            if let Some(window) = window {
                window_differs(&image, &window, gap.end..at, &mut found)?;
            }
            Ok::<_, Error>(found)
        })
        .await??;
        progress.add(Counters { bytes: at - gap_start, ..Counters::default() });
    }
    progress.add(Counters { files: 1, bytes: size - end, new_bytes: 0 });
    Ok(found)
}

/// Finds the blocks of a span that are not zeros; holes of the image are not read.
fn zeros_differ(image: &Image, span: &Span, found: &mut VerifySummary) -> Result<(), Error> {
    for data in image.data(span) {
        let data = data?;
        let mut start = data.start;
        while start < data.end {
            let step = start..(start / WINDOW_LEN * WINDOW_LEN + WINDOW_LEN).min(data.end);
            start = step.end;
            find(image, &step, |_, block| is_zero(block), found)?;
        }
    }
    Ok(())
}

/// Finds the blocks in which an image differs from a window, as far as the image goes.
fn window_differs(image: &Image, window: &Window, span: Span, found: &mut VerifySummary) -> Result<(), Error> {
    find(image, &span, |at, block| *block == window.bytes[at..at + block.len()], found)
}

/// Finds the blocks of a span that are not `same`, which gets where in the span a block begins.
fn find(
    image: &Image,
    span: &Span,
    same: impl Fn(usize, &[u8]) -> bool,
    found: &mut VerifySummary,
) -> Result<(), Error> {
    let len = usize::try_from(span_len(span)).expect("a window has some MiB");
    let mut bytes = vec![0; len];
    image.read(span.start, &mut bytes)?;
    let block_len = narrow(BLOCK_LEN) as usize;
    for (at, block) in (0..len).step_by(block_len).zip(bytes.chunks(block_len)) {
        if !same(at, block) {
            let start = span.start + at as u64;
            found.add(&(start..start + block.len() as u64));
        }
    }
    Ok(())
}

impl VerifySummary {
    fn add(&mut self, span: &Span) {
        self.different_bytes += span_len(span);
        let full = self.first.len() == NAMED_RANGES;
        match self.first.last_mut() {
            Some(last) if last.offset + last.len == span.start => last.len += span_len(span),
            _ if full => {}
            _ => self.first.push(Difference { offset: span.start, len: span_len(span) }),
        }
    }
}
