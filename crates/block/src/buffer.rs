//! Memory that bytes travel in.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

/// What buffers are aligned to: what every disk takes that is used without a cache.
pub const PAGE: usize = 4096;

/// Powers of two of pages that a pool keeps: up to 128 MiB, above the longest request of any front end.
const CLASSES: usize = 16;

/// Bytes with an owner, of which a part is in use: the bytes that it dereferences to.
///
/// Its memory begins at a multiple of [`PAGE`]; so does the part in use, unless it was chosen otherwise.
pub struct Buffer {
    memory: Vec<u8>,
    /// Where in `memory` the aligned bytes begin.
    base: usize,
    capacity: usize,
    used: Range<usize>,
    /// Bytes from the begin that the system has backed with memory for certain.
    resident: usize,
    home: Option<Arc<Shelves>>,
}

impl Buffer {
    /// Zeros, all in use.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::allocate(len.next_multiple_of(PAGE));
        buffer.used = 0..len;
        buffer
    }

    /// A copy.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    fn allocate(capacity: usize) -> Self {
        // There is no aligned allocation without unsafe code; a page more has an aligned begin in it.
        let memory = vec![0; capacity + PAGE];
        let base = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, base, capacity, used: 0..0, resident: 0, home: None }
    }

    /// How many bytes there are, whether in use or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Has the system back the first bytes with memory: what was never written does not exist yet.
    fn make_resident(&mut self, len: usize) {
        let from = self.resident.min(len);
        for page in self.memory[self.base + from..self.base + len].chunks_mut(PAGE) {
            // Not what is there already, which the compiler could leave out.
            page[0] = 1;
        }
        self.resident = self.resident.max(len);
    }

    /// Puts another part into use, counted from the begin of the memory.
    ///
    /// # Panics
    ///
    /// If there are not so many bytes.
    pub fn choose(&mut self, part: Range<usize>) {
        assert!(part.start <= part.end && part.end <= self.capacity, "{part:?} of {} bytes", self.capacity);
        self.used = part;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.base..][self.used.clone()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.base..][self.used.clone()]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// For a store that fills memory of any kind: it gets the bytes in use, and cannot put others into use.
impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?} of {})", self.used, self.capacity)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put(Self {
                memory: std::mem::take(&mut self.memory),
                base: self.base,
                capacity: self.capacity,
                used: 0..0,
                resident: self.resident,
                home: None,
            });
        }
    }
}

/// Buffers that are used again.
///
/// A buffer out of a pool holds what its last user left in it. Whoever reads into it must fill it.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shelves>);

struct Shelves {
    /// Whether buffers are backed with memory before they are handed out.
    resident: bool,
    /// Bytes that are kept for later; more are given back to the system.
    most_idle: usize,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    bytes: usize,
    classes: [Vec<Buffer>; CLASSES],
}

impl Pool {
    /// A pool that keeps at most so many bytes that nobody uses. How many are used, its users bound.
    #[must_use]
    pub fn new(most_idle: usize) -> Self {
        Self(Arc::new(Shelves { resident: false, most_idle, idle: Mutex::default() }))
    }

    /// The same, and whatever it hands out is backed with memory: the kernel may write into it without a page fault.
    #[must_use]
    pub fn resident(most_idle: usize) -> Self {
        Self(Arc::new(Shelves { resident: true, most_idle, idle: Mutex::default() }))
    }

    /// A buffer with its first `len` bytes in use, which are those of an earlier request.
    #[must_use]
    pub fn take(&self, len: usize) -> Buffer {
        let class = class_of(len);
        let kept = class.and_then(|class| {
            let mut idle = self.0.lock();
            let buffer = idle.classes[class].pop()?;
            idle.bytes -= buffer.capacity;
            Some(buffer)
        });
        let capacity = class.map_or_else(|| len.next_multiple_of(PAGE), |class| PAGE << class);
        let mut buffer = kept.unwrap_or_else(|| Buffer::allocate(capacity));
        buffer.used = 0..len;
        if self.0.resident {
            buffer.make_resident(len);
        }
        buffer.home = Some(self.0.clone());
        buffer
    }

    /// Makes buffers that hold `len` bytes before they are needed.
    pub fn prepare(&self, len: usize, count: usize) {
        drop((0..count).map(|_| self.take(len)).collect::<Vec<_>>());
    }
}

/// On which shelf a buffer for so many bytes lies, if on any.
fn class_of(len: usize) -> Option<usize> {
    let class = len.max(1).div_ceil(PAGE).next_power_of_two().trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

impl Shelves {
    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, buffer: Buffer) {
        let Some(class) = class_of(buffer.capacity) else { return };
        let mut idle = self.lock();
        if idle.bytes + buffer.capacity <= self.most_idle {
            idle.bytes += buffer.capacity;
            idle.classes[class].push(buffer);
        } else {
            drop(idle);
            drop(buffer);
        }
    }
}

impl fmt::Debug for Shelves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes idle of at most {}", self.lock().bytes, self.most_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &Pool) -> usize {
        pool.0.lock().bytes
    }

    #[test]
    fn buffers_are_aligned_and_of_the_length_that_was_asked_for() {
        let pool = Pool::new(1 << 20);
        for len in [0, 1, 80, 4096, 4097, 1 << 20, (1 << 20) + 4096] {
            for buffer in [pool.take(len), Buffer::zeroed(len)] {
                assert_eq!((buffer.len(), buffer.as_ptr().align_offset(PAGE)), (len, 0));
                assert!(buffer.capacity() >= len);
            }
        }
        assert_eq!(*Buffer::copy_of(b"bytes"), *b"bytes");
        let mut buffer = pool.take(2 * PAGE);
        buffer.choose(PAGE..PAGE + 7);
        assert_eq!((buffer.len(), buffer.as_ptr().align_offset(PAGE)), (7, 0));
    }

    #[test]
    fn a_pool_keeps_buffers_up_to_its_bound_and_hands_them_out_again() {
        let pool = Pool::new(3 * PAGE);
        let mut first = pool.take(100);
        first.fill(7);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(idle(&pool), PAGE);
        let again = pool.take(PAGE);
        assert_eq!((again.as_ptr(), idle(&pool)), (place, 0));
        drop((again, pool.take(1), pool.take(1), pool.take(1)));
        assert_eq!(idle(&pool), 3 * PAGE, "the fourth was given back");
        pool.prepare(2 * PAGE, 4);
        assert_eq!(idle(&pool), 3 * PAGE, "there is no room for larger ones");
    }

    #[test]
    fn what_a_resident_pool_hands_out_is_in_memory() {
        let pool = Pool::resident(1 << 22);
        let buffer = pool.take((1 << 20) + PAGE);
        assert_eq!(buffer.resident, (1 << 20) + PAGE);
        assert!(buffer.chunks(PAGE).all(|page| page[0] == 1), "every page was written");
        drop(buffer);
        // Once is enough: what is there stays.
        let mut buffer = pool.take(1 << 21);
        assert_eq!(buffer.resident, 1 << 21);
        buffer.fill(7);
        drop(buffer);
        assert!(pool.take((1 << 20) + PAGE).iter().all(|byte| *byte == 7));
        assert_eq!(Pool::new(1 << 22).take(1 << 20).resident, 0);
    }

    #[test]
    fn a_store_that_takes_any_memory_fills_what_is_in_use() {
        fn fill(mut memory: impl AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static) -> usize {
            memory.as_mut().fill(7);
            memory.as_ref().iter().filter(|byte| **byte == 7).count()
        }
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(3 * PAGE);
        buffer.fill(0);
        buffer.choose(PAGE..PAGE + 9);
        assert_eq!(fill(buffer), 9);
        let again = pool.take(3 * PAGE);
        assert_eq!(again.iter().position(|byte| *byte == 7), Some(PAGE), "only what was in use was filled");
        assert_eq!(again.iter().filter(|byte| **byte == 7).count(), 9);
    }

    #[test]
    #[should_panic(expected = "of 4096 bytes")]
    fn what_is_not_there_cannot_be_chosen() {
        Buffer::zeroed(10).choose(10..5000);
    }
}
