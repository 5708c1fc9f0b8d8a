//! The device that encrypts.

use super::key::DataKey;
use super::xts::Xts;
use block::{BlockSizes, Buffer, ContextQuery, Description, Device, Done, Failure, FailureKind, Status, ZeroMode};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are encrypted together under one number: the block of volumes. It is a part of the format.
const UNIT: u32 = 4096;

/// A device whose blocks are encrypted on another device.
///
/// Each block of 4096 bytes is one data unit of XTS-AES-256; its number is that of the block in the volume, 128 bits little-endian. So the
/// same bytes are other bytes at another place, and a block that was put elsewhere reads as noise.
///
/// # Holes
///
/// A block of which the cipher text is all zeros is a hole, and reads as zeros. So what was never written, was discarded or was zeroed is a
/// hole below too: thin volumes stay thin, and diffs and statuses need no key. Nothing is mistaken for a hole: content that would encrypt to
/// 4096 zeros is refused with an error instead of being written. There is one such content for each key and place; to come upon it by chance
/// has the odds 2⁻³²⁷⁶⁸, and to find it without the key means to decrypt 256 blocks of AES. Who can write into the pool can make zeros of
/// any block; that he can make noise of it anyway is the lack of authentication that the module tells of.
///
/// # What a request costs
///
/// A write is encrypted in the thread that asks, a read is decrypted in the thread that the device below finishes it in, both in the buffer
/// that they travel in. A block takes about a microsecond, where the processor has AES.
pub struct Encrypted {
    below: Arc<dyn Device>,
    xts: Arc<Xts>,
}

/// Why a device cannot be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The device did not describe itself.
    #[error("learn what the device below the encryption is")]
    Description(#[from] Failure),
    /// It has other blocks.
    #[error(
        "a device with blocks of {minimum} bytes and requests of up to {maximum} cannot be encrypted: blocks of exactly {UNIT} bytes are \
         encrypted, and with others its statuses or its requests would divide a block"
    )]
    Blocks {
        /// The least length of a request.
        minimum: u32,
        /// The longest request.
        maximum: u32,
    },
    /// It ends within a block.
    #[error("a device of {size} bytes cannot be encrypted: its end is not that of a block of {UNIT} bytes")]
    Size {
        /// How long it is.
        size: u64,
    },
}

impl Encrypted {
    /// Encrypts with a key what is written to this device from now on; what is on it must be holes, or written with the same key.
    pub fn new(below: Arc<dyn Device>, key: &DataKey) -> Result<Self, Unfit> {
        check(&below.describe()?)?;
        Ok(Self { below, xts: Xts::new(key) })
    }
}

fn check(about: &Description) -> Result<(), Unfit> {
    let BlockSizes { minimum, maximum, .. } = about.blocks;
    if minimum != UNIT || !about.blocks.are_valid() {
        return Err(Unfit::Blocks { minimum, maximum });
    }
    if !about.size.is_multiple_of(u64::from(UNIT)) {
        return Err(Unfit::Size { size: about.size });
    }
    Ok(())
}

/// The blocks of a request, with their numbers; the front end has seen to it that they are whole.
fn units(offset: u64, bytes: &mut [u8]) -> Result<impl Iterator<Item = (u128, &mut [u8; UNIT as usize])>, Failure> {
    let first = offset / u64::from(UNIT);
    let len = bytes.len();
    let (units, rest) = bytes.as_chunks_mut::<{ UNIT as usize }>();
    if !offset.is_multiple_of(u64::from(UNIT)) || !rest.is_empty() {
        let message =
            format!("{len} bytes at {offset} are not whole blocks of {UNIT} bytes, which are encrypted together");
        return Err(Failure::new(FailureKind::Invalid, message));
    }
    Ok((u128::from(first)..).zip(units))
}

fn is_zero(unit: &[u8; UNIT as usize]) -> bool {
    // A word is enough to tell almost every block.
    unit[..16] == [0; 16] && unit.iter().all(|byte| *byte == 0)
}

fn encrypt(xts: &Xts, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
    for (number, unit) in units(offset, bytes)? {
        xts.encrypt(number, unit);
        if is_zero(unit) {
            let message =
                format!("block {number} cannot have this content: encrypted, it could not be told from a hole");
            return Err(Failure::new(FailureKind::Io, message));
        }
    }
    Ok(())
}

fn decrypt(xts: &Xts, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
    for (number, unit) in units(offset, bytes)? {
        if !is_zero(unit) {
            xts.decrypt(number, unit);
        }
    }
    Ok(())
}

impl Device for Encrypted {
    fn describe(&self) -> Result<Description, Failure> {
        let about = self.below.describe()?;
        // It may have grown since; what it must not have become is told again.
        check(&about).map_err(|unfit| Failure::new(FailureKind::Io, unfit.to_string()))?;
        Ok(about)
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        let (xts, len) = (self.xts.clone(), buffer.len());
        let decrypted = Done::new(move |result: Result<Buffer, Failure>| {
            done.finish(result.and_then(|mut buffer| {
                if buffer.len() != len {
                    let message = format!("the device below the encryption read {} bytes of {len}", buffer.len());
                    return Err(Failure::new(FailureKind::Io, message));
                }
                decrypt(&xts, offset, &mut buffer)?;
                Ok(buffer)
            }));
        });
        self.below.read(offset, buffer, decrypted);
    }

    fn write(&self, offset: u64, mut bytes: Buffer, durable: bool, done: Done<()>) {
        match encrypt(&self.xts, offset, &mut bytes) {
            Ok(()) => self.below.write(offset, bytes, durable, done),
            Err(failure) => done.finish(Err(failure)),
        }
    }

    fn flush(&self, done: Done<()>) {
        self.below.flush(done);
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.below.discard(range, durable, done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.below.write_zeroes(range, mode, done);
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.below.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        self.below.block_status(context, range, most, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::testing::{self, Later, Memory, random_bytes, seed};
    use block::{ALLOCATION, HOLE, ZERO};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const SIZE: usize = 1 << 20;
    const BLOCK: usize = UNIT as usize;

    fn memory(bytes: &[u8]) -> Memory {
        let mut memory = Memory::writable(bytes);
        memory.blocks = BlockSizes { minimum: UNIT, preferred: UNIT, maximum: 1 << 20 };
        memory
    }

    fn encrypted() -> (Arc<Memory>, Encrypted, DataKey) {
        let (memory, key) = (Arc::new(memory(&vec![0; SIZE])), DataKey::random().unwrap());
        let device = Encrypted::new(memory.clone(), &key).unwrap();
        (memory, device, key)
    }

    #[test]
    fn it_does_what_a_device_must() {
        let (below, device, _) = encrypted();
        testing::check(&device, seed());
        assert_ne!(below.bytes(), testing::read(&device, 0..SIZE as u64).unwrap());
        let key = DataKey::random().unwrap();
        testing::check(&Encrypted::new(Arc::new(Later::new(below, 3)), &key).unwrap(), seed());
    }

    #[test]
    fn the_same_bytes_are_others_at_each_place_and_with_each_key() {
        let (below, device, key) = encrypted();
        testing::write(&device, 0, &[7; SIZE], false).unwrap();
        let first = below.bytes();
        let mut seen: Vec<&[u8]> = first.chunks(16).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), SIZE / 16, "no block of AES is there twice");
        let again = memory(&vec![0; SIZE]);
        let same = Encrypted::new(Arc::new(again), &key).unwrap();
        // A request that is repeated, in other parts, changes nothing.
        for at in (0..SIZE).step_by(BLOCK).rev() {
            testing::write(&same, at as u64, &[7; BLOCK], true).unwrap();
        }
        assert!(testing::read(&*same.below, 0..SIZE as u64).unwrap() == first);
        let other = Encrypted::new(below.clone(), &DataKey::random().unwrap()).unwrap();
        assert_ne!(testing::read(&other, 0..4096).unwrap(), [7; BLOCK]);
        below.set(0, &first[BLOCK..2 * BLOCK]);
        assert_ne!(testing::read(&device, 0..4096).unwrap(), [7; BLOCK], "a block that was moved is noise");
        assert_eq!(testing::read(&device, 4096..8192).unwrap(), [7; BLOCK]);
    }

    #[test]
    fn holes_stay_holes_and_read_as_zeros() {
        let (below, device, _) = encrypted();
        let seed = seed();
        let noise = random_bytes(&mut StdRng::seed_from_u64(seed), SIZE);
        testing::write(&device, 0, &noise, false).unwrap();
        testing::write(&device, 8 * 4096, &[0; 4 * BLOCK], false).unwrap();
        testing::discard(&device, 4096..3 * 4096).unwrap();
        testing::write_zeroes(&device, 5 * 4096..6 * 4096, ZeroMode::default()).unwrap();
        let is_hole = |block: usize| below.bytes()[block * BLOCK..][..BLOCK].iter().all(|byte| *byte == 0);
        let holes: Vec<_> = (0..SIZE / BLOCK).filter(|block| is_hole(*block)).collect();
        assert_eq!(holes, [1, 2, 5], "zeros that are written are not told to who sees the cipher text");
        let read = testing::read(&device, 0..SIZE as u64).unwrap();
        for block in 0..SIZE / BLOCK {
            let expected =
                if matches!(block, 1 | 2 | 5 | 8..12) { &[0; BLOCK][..] } else { &noise[block * BLOCK..][..BLOCK] };
            assert!(read[block * BLOCK..][..BLOCK] == *expected, "block {block}");
        }
        let states = testing::block_status(&device, ALLOCATION, 0..4 * 4096, 9).unwrap();
        let hole = Status { len: 8192, flags: HOLE | ZERO };
        assert_eq!(states, [Status { len: 4096, flags: 0 }, hole, Status { len: 4096, flags: 0 }]);
    }

    /// To find it takes the key: nobody else comes upon it.
    #[test]
    fn content_that_would_be_a_hole_is_refused_and_not_lost() {
        let (below, device, _) = encrypted();
        let mut content = [0; 2 * BLOCK];
        device.xts.decrypt(3, &mut content[BLOCK..]);
        let failure = testing::write(&device, 2 * 4096, &content, false).unwrap_err();
        assert_eq!(
            (failure.kind, failure.message.contains("block 3 cannot have this content")),
            (FailureKind::Io, true)
        );
        assert_eq!(below.bytes(), [0; SIZE], "nothing of it was written");
        testing::write(&device, 4 * 4096, &content, false).unwrap();
        assert_eq!(
            testing::read(&device, 4 * 4096..6 * 4096).unwrap(),
            content,
            "at another place it is content like any"
        );
    }

    #[test]
    fn a_device_with_other_blocks_is_refused() {
        let key = DataKey::random().unwrap();
        let with = |minimum, maximum, size| {
            let mut memory = memory(&vec![0; size]);
            memory.blocks = BlockSizes { minimum, preferred: 1 << 16, maximum };
            Encrypted::new(Arc::new(memory), &key).map(drop)
        };
        assert_eq!(with(4096, 1 << 20, SIZE), Ok(()));
        for minimum in [1, 512, 8192, 65536] {
            assert_eq!(with(minimum, 1 << 20, SIZE), Err(Unfit::Blocks { minimum, maximum: 1 << 20 }));
        }
        assert_eq!(with(4096, (1 << 20) + 512, SIZE), Err(Unfit::Blocks { minimum: 4096, maximum: (1 << 20) + 512 }));
        assert_eq!(with(4096, 1 << 20, SIZE - 512), Err(Unfit::Size { size: SIZE as u64 - 512 }));
    }

    #[test]
    fn requests_that_divide_a_block_are_refused_and_not_encrypted_otherwise() {
        let (below, device, _) = encrypted();
        for (offset, len) in [(512, 4096), (0, 512), (4096, 4097)] {
            let failure = testing::write(&device, offset, &vec![1; len], false).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid, "{offset}, {len}");
            assert_eq!(testing::read(&device, offset..offset + len as u64).unwrap_err().kind, FailureKind::Invalid);
        }
        assert_eq!(below.bytes(), [0; SIZE]);
    }

    #[test]
    fn failures_below_are_told_and_nothing_is_decrypted() {
        let (key, mut memory) = (DataKey::random().unwrap(), memory(&[0; 16 * BLOCK]));
        memory.bad = Some(5000);
        let device = Encrypted::new(Arc::new(memory), &key).unwrap();
        assert_eq!(testing::read(&device, 0..8192).unwrap_err(), Failure::new(FailureKind::Io, "the byte is bad"));
        assert_eq!(testing::read(&device, 8192..16384).unwrap(), [0; 8192]);
    }
}
