//! Devices: how large one is, and filling one with an image.
//!
//! A device has no room for a marker, so what it holds counts only when the restore is `ok`: until then nobody else has it. Whatever was on it is
//! overwritten; a restore that was cut off is done again, but for what is there as it should be.

use std::path::Path;

use repository::volume::{self, Map, RestoreOptions, RestoreSummary};

use crate::failure::Error;
use crate::report::{LineProgress, Phase};
use crate::restore::Run;

/// The size of a device in bytes. One that has none is not attached to anything: an image of it would be of nothing.
pub(crate) async fn size(device: &Path) -> Result<u64, Error> {
    let path = device.to_owned();
    let looked = tokio::task::spawn_blocking(move || volume::image_size(&path)).await;
    let size = looked.map_err(|error| repository::Error::Interrupted(error.to_string()))??;
    if size == 0 {
        return Err(Error::NoBytes { path: device.to_owned() });
    }
    Ok(size)
}

/// Writes an image onto a device that is at least as large, and compares all of it with the repository.
///
/// Nothing is said of what a device holds that nobody has written to yet, and it may have been somebody's before. So where the image has holes the kernel is
/// asked for zeros, which takes no room on a device that is thin, and they are written where it cannot do that. The same goes for what lies behind the image: a
/// label that something left at the end of a device must not be found there again.
pub(crate) async fn restore(run: &Run<'_>, device: &Path) -> Result<RestoreSummary, Error> {
    let Run { repository, root, expected, resumes, lines, cancel } = *run;
    let size = size(device).await?;
    if size < expected.bytes {
        return Err(Error::TooSmall { found: size, needed: expected.bytes });
    }
    // Before anything is written: the image must be one of that size.
    volume::check(&Map::volume(repository, *root, expected.bytes), false, cancel).await?;
    let whole = Map::volume(repository, *root, size);
    let options = RestoreOptions { replace: true, resume: resumes, cancel: cancel.clone() };
    let filled = volume::restore(&whole, device, &options, LineProgress::new(lines, Phase::Fill, Some(size))).await?;
    let progress = LineProgress::new(lines, Phase::Compare, Some(size));
    let compared = volume::verify(&whole, device, cancel, progress).await?;
    if !compared.is_equal() {
        let first = compared.first.first().map_or(0, |first| first.offset);
        return Err(Error::ImageDifferent { bytes: compared.different_bytes, first });
    }
    Ok(RestoreSummary { bytes: expected.bytes, ..filled })
}
