//! The memory of packs, used again for the next ones: a buffer of some MiB comes from the kernel page by page, which costs as much as
//! sealing what goes into it.

use super::format::PACK_TARGET_LEN;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that are not in use. There are as many as were in use at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for a pack.
    pub(super) fn take(&self) -> Vec<u8> {
        self.idle().pop().unwrap_or_else(|| Vec::with_capacity(PACK_TARGET_LEN))
    }

    /// The bytes of a buffer that was taken; it comes back when nobody needs them any more.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }

    /// Lets go of what is not in use.
    pub(crate) fn clear(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.home.idle().push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_bytes_are_dropped() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"pack");
        let place = buffer.as_ptr();
        let bytes = buffers.lend(buffer);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!((part.as_ref(), buffers.idle().len()), (&b"ac"[..], 0));
        drop(part);
        let again = buffers.take();
        assert_eq!((again.len(), again.as_ptr()), (0, place));
    }
}
