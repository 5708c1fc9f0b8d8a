//! The inside of a blob: a byte that names the codec, then the bytes.

use super::MAX_BLOB_LEN;
use crate::codec::Malformed;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Level 1: on database pages 1 % larger than level 3 at 1.5 to 1.9 times the speed, and compression is most of the work.
const LEVEL: i32 = 1;

thread_local! {
    // Making a context costs as much as compressing some KiB, and an extent of a volume has only 64.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(LEVEL).expect("there is a level 1, and memory for its tables"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("there is memory for the tables of a decompressor"));
}

/// Compresses, unless that does not make it smaller.
pub(crate) fn encode(plain: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0; plain.len() + 1];
    // A result that does not fit is one that is not smaller; then the bytes stay as they are.
    match COMPRESSOR.with_borrow_mut(|zstd| zstd.compress_to_buffer(plain, &mut encoded[1..])) {
        Ok(len) if len < plain.len() => {
            encoded[0] = ZSTD;
            encoded.truncate(len + 1);
        }
        _ => {
            encoded[0] = RAW;
            encoded[1..].copy_from_slice(plain);
        }
    }
    encoded
}

/// Gives the plain bytes, of which there must be `plain_len`; no more than that is ever allocated.
pub(crate) fn decode(encoded: Vec<u8>, plain_len: u32) -> Result<Vec<u8>, Malformed> {
    let plain_len = plain_len as usize;
    if plain_len > MAX_BLOB_LEN {
        return Err(Malformed::new(format!("a blob of {plain_len} bytes is longer than {MAX_BLOB_LEN}")));
    }
    let plain = match encoded.split_first() {
        Some((&RAW, _)) => {
            let mut plain = encoded;
            plain.remove(0);
            plain
        }
        Some((&ZSTD, compressed)) => DECOMPRESSOR
            .with_borrow_mut(|zstd| zstd.decompress(compressed, plain_len))
            .map_err(|error| Malformed::new(format!("a blob does not decompress to {plain_len} bytes: {error}")))?,
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
        assert_eq!(decode(encode(&[]), 0), Ok(vec![]));
    }

    #[test]
    fn a_blob_that_claims_another_length_is_refused() {
        let encoded = encode(&[7; 1000]);
        for wrong in [0, 999, 1001, u32::MAX] {
            assert!(decode(encoded.clone(), wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn blobs_survive(plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let len = u32::try_from(plain.len()).unwrap();
            prop_assert_eq!(decode(encode(&plain), len), Ok(plain));
        }

        #[test]
        fn arbitrary_bytes_never_panic(encoded in proptest::collection::vec(any::<u8>(), 0..500), len in any::<u32>()) {
            if let Ok(plain) = decode(encoded, len) {
                prop_assert_eq!(plain.len(), len as usize);
            }
        }
    }
}
