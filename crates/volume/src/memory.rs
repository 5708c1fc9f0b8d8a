//! Memory that bytes travel in.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// What a disk without a cache wants memory to be aligned to.
pub(crate) const ALIGNMENT: usize = 4096;

/// What data is read into and written from; whoever asks brings it, so that nothing is copied on the way.
///
/// It should begin at a multiple of 4096 bytes; otherwise a disk that is used without the system's cache has to copy it.
pub trait Memory: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static {}

impl<T: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static> Memory for T {}

/// Aligned bytes.
pub struct Buffer {
    memory: Vec<u8>,
    base: usize,
    len: usize,
}

impl Buffer {
    /// Zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        // There is no aligned allocation without unsafe code; some bytes more have an aligned begin in them.
        let memory = vec![0; len + ALIGNMENT];
        let base = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, base, len }
    }

    /// A copy.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.base..self.base + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.base..self.base + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}
