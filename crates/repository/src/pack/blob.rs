//! The inside of a blob: a byte that names the codec, then the bytes.

use super::MAX_BLOB_LEN;
use crate::codec::Malformed;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::ResetDirective;

const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Compression is most of the work of a backup. On files, level 1 takes four fifths of the time of level 2 and makes them 1 % larger.
const LEVEL: i32 = 1;
/// On what is as short as an extent of a volume, level 2 makes database pages 2 % smaller than level 1 and takes 6 % longer. Level 3 takes half
/// as long again, and is no better.
const SHORT_LEVEL: i32 = 2;
/// Up to this length in bytes a blob is short; for longer ones zstd has other tables.
const SHORT_LEN: usize = 128 << 10;

thread_local! {
    // Making a context costs as much as compressing some KiB, and an extent of a volume has only 64.
    static COMPRESSOR: RefCell<Encoder> = RefCell::new(Encoder {
        zstd: Compressor::new(LEVEL).expect("there is a level 1, and memory for its tables"),
        level: LEVEL,
        buffer: Vec::new(),
    });
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("there is memory for the tables of a decompressor"));
}

/// Up to this length in bytes a thread keeps its buffer for the next blob. Longer blobs are few, and as many such buffers as there are threads
/// would be felt.
const KEPT_BUFFER_LEN: usize = SHORT_LEN;

/// What a thread keeps to compress with.
struct Encoder {
    zstd: Compressor<'static>,
    level: i32,
    buffer: Vec<u8>,
}

/// Compresses, unless that does not make it smaller.
pub(crate) fn encode(plain: &[u8]) -> Vec<u8> {
    COMPRESSOR.with_borrow_mut(|encoder| encoder.encode(plain))
}

impl Encoder {
    /// The result has no room that it does not use: it waits for its turn to be put into a pack.
    fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let level = if plain.len() <= SHORT_LEN { SHORT_LEVEL } else { LEVEL };
        if self.level != level {
            // A result that did not fit has left the context in the middle of a frame.
            self.zstd.context_mut().reset(ResetDirective::SessionOnly).expect("a frame can always be given up");
            self.zstd.set_compression_level(level).expect("there is such a level");
            self.level = level;
        }
        if self.buffer.len() < plain.len() {
            self.buffer.resize(plain.len(), 0);
        }
        // A result that does not fit is one that is not smaller; then the bytes stay as they are.
        let (codec, payload) = match self.zstd.compress_to_buffer(plain, &mut self.buffer[..plain.len()]) {
            Ok(len) if len < plain.len() => (ZSTD, &self.buffer[..len]),
            _ => (RAW, plain),
        };
        let mut encoded = Vec::with_capacity(payload.len() + 1);
        encoded.push(codec);
        encoded.extend_from_slice(payload);
        if self.buffer.len() > KEPT_BUFFER_LEN {
            self.buffer = Vec::new();
        }
        encoded
    }
}

/// Gives the plain bytes, of which there must be `plain_len`; no more than that is ever allocated.
///
/// They are in `encoded` itself where it was not compressed, and in `buffer` else.
pub(crate) fn decode<'a>(encoded: &'a [u8], plain_len: u32, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let plain_len = plain_len as usize;
    if plain_len > MAX_BLOB_LEN {
        return Err(Malformed::new(format!("a blob of {plain_len} bytes is longer than {MAX_BLOB_LEN}")));
    }
    let plain = match encoded.split_first() {
        Some((&RAW, plain)) => plain,
        Some((&ZSTD, compressed)) => {
            if buffer.len() < plain_len {
                buffer.resize(plain_len, 0);
            }
            let len = DECOMPRESSOR
                .with_borrow_mut(|zstd| zstd.decompress_to_buffer(compressed, &mut buffer[..plain_len]))
                .map_err(|error| Malformed::new(format!("a blob does not decompress to {plain_len} bytes: {error}")))?;
            &buffer[..len]
        }
        Some((codec, _)) => return Err(Malformed::new(format!("{codec} is no codec"))),
        None => return Err(Malformed::new("a blob is empty")),
    };
    if plain.len() == plain_len {
        Ok(plain)
    } else {
        Err(Malformed::new(format!("a blob has {} bytes instead of {plain_len}", plain.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_compresses_is_compressed_and_the_rest_is_not() {
        let even = vec![7; 10_000];
        assert!(encode(&even).len() < 100);
        let uneven = crate::crypto::random::<1000>().unwrap();
        assert_eq!(encode(&uneven).len(), 1001);
        let (nothing, mut buffer) = (encode(&[]), Vec::new());
        assert_eq!(decode(&nothing, 0, &mut buffer), Ok(&[][..]));
    }

    #[test]
    fn blobs_of_any_length_follow_each_other_whether_they_compress_or_not() {
        let uneven = |len: usize| crate::crypto::random::<4096>().unwrap()[..len].to_vec();
        for (len, compresses) in
            [(4000, false), (SHORT_LEN + 1, true), (3000, false), (SHORT_LEN, true), (2 * SHORT_LEN, true)]
        {
            let plain = if compresses { vec![7; len] } else { uneven(len) };
            let encoded = encode(&plain);
            let mut buffer = Vec::new();
            assert_eq!(decode(&encoded, u32::try_from(len).unwrap(), &mut buffer), Ok(&plain[..]));
        }
    }

    #[test]
    fn a_blob_that_claims_another_length_is_refused() {
        let encoded = encode(&[7; 1000]);
        for wrong in [0, 999, 1001, u32::MAX] {
            assert!(decode(&encoded, wrong, &mut vec![0; 3000]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn blobs_survive(plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let len = u32::try_from(plain.len()).unwrap();
            let (encoded, mut buffer) = (encode(&plain), vec![9; 2000]);
            prop_assert_eq!(decode(&encoded, len, &mut buffer), Ok(&plain[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(encoded in proptest::collection::vec(any::<u8>(), 0..500), len in any::<u32>()) {
            let mut buffer = Vec::new();
            if let Ok(plain) = decode(&encoded, len, &mut buffer) {
                prop_assert_eq!(plain.len(), len as usize);
            }
        }
    }
}
