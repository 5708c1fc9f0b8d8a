//! The image or device that a volume is read from.

use super::{Error, PART_LEN, Span, common, span_len};
use crate::tree::DataRanges;
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An image or a device, open for reading.
///
/// Of a device, what lies in the memory of this machine is dropped before: somebody else may have changed it since by another way, and what is compared
/// with what was written is to come from the device.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    size: u64,
}

/// The size of an image or a device, in bytes.
///
/// # Errors
/// It cannot be opened.
pub fn image_size(path: &Path) -> Result<u64, Error> {
    Ok(Image::open(path)?.size)
}

impl Image {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let kind = path.metadata().map_err(Error::image("open", path))?.file_type();
        if !(kind.is_file() || kind.is_block_device()) {
            return Err(Error::NotAnImage { path: path.to_owned() });
        }
        let mut options = File::options();
        options.read(true).custom_flags(OFlags::CLOEXEC.bits().cast_signed());
        let mut file = options.open(path).map_err(Error::image("open", path))?;
        // The length of a device is where it ends; its metadata says 0.
        let size = file.seek(SeekFrom::End(0)).map_err(Error::image("find the size of", path))?;
        let fresh = kind.is_block_device().then_some(Advice::DontNeed);
        for advice in fresh.into_iter().chain([Advice::Sequential]) {
            match rustix::fs::fadvise(&file, 0, None, advice) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(Error::image("read afresh", path)(error.into())),
            }
        }
        Ok(Self { file, path: path.to_owned(), size })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills a buffer with what lies at `offset`.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let end = self.file.metadata().map_or(offset, |metadata| metadata.len());
                Err(Error::CutOff { path: self.path.clone(), end, size: self.size })
            }
            read => read.map_err(Error::image("read", &self.path)),
        }
    }

    /// What of a span is no hole, in order. A device that knows no holes has none.
    pub(super) fn data(&self, span: &Span) -> impl Iterator<Item = Result<Span, Error>> {
        let mut ranges = DataRanges::new(self.file.as_fd(), span.start, span.end);
        let span = span.clone();
        std::iter::from_fn(move || {
            let found = ranges.next().map_err(|error| Error::image("find the holes of", &self.path)(error.into()));
            found.transpose().map(|found| found.map(|(start, end)| common(&(start..end), &span)))
        })
    }

    /// For each part of a span, whether it may hold anything else than zeros.
    pub(super) fn parts_with_data(&self, span: &Span) -> Result<Vec<bool>, Error> {
        let count = span_len(span).div_ceil(PART_LEN);
        let mut parts = vec![false; usize::try_from(count).expect("a segment has 16,384 parts")];
        for data in self.data(span) {
            let data = data?;
            let (first, last) = ((data.start - span.start) / PART_LEN, (data.end - span.start).div_ceil(PART_LEN));
            for part in first..last {
                parts[usize::try_from(part).expect("it is less than the number of parts")] = true;
            }
        }
        Ok(parts)
    }
}

/// Whether there are only zeros; the inner loop has no branches, so it runs at the speed of memory.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn holes_of_an_image_are_found() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(PART_LEN * 8).unwrap();
        file.as_file().write_all_at(&[1], PART_LEN * 3 + 5).unwrap();
        file.flush().unwrap();
        let image = Image::open(file.path()).unwrap();
        assert_eq!(image.size(), PART_LEN * 8);
        let parts = image.parts_with_data(&(0..PART_LEN * 8)).unwrap();
        assert_eq!(parts, [false, false, false, true, false, false, false, false]);
        assert_eq!(image.parts_with_data(&(PART_LEN * 3..PART_LEN * 4)).unwrap(), [true]);
    }

    #[test]
    fn what_has_no_bytes_at_places_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/null")] {
            assert!(matches!(Image::open(path), Err(Error::NotAnImage { .. })), "{}", path.display());
        }
    }

    #[test]
    fn an_image_that_became_shorter_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let image = Image::open(file.path()).unwrap();
        file.as_file().set_len(4096).unwrap();
        let error = image.read(4096, &mut [0; 4096]).unwrap_err();
        assert!(matches!(error, Error::CutOff { end: 4096, size: 8192, .. }), "{error}");
    }

    #[test]
    fn zeros_are_told_from_the_rest() {
        assert!(is_zero(&[]) && is_zero(&[0; 5000]));
        for at in [0, 255, 256, 4999] {
            let mut bytes = [0; 5000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }
}
