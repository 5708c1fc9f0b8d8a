//! AES-256 in the mode XTS of IEEE 1619: the cipher of disks.
//!
//! ```text
//! number of the data unit ── AES, second key ──► T₀      Tⱼ₊₁ = Tⱼ · x in GF(2¹²⁸)
//! cipher textⱼ = AES(first key, plain textⱼ ⊕ Tⱼ) ⊕ Tⱼ,   j over the 16-byte blocks of the unit
//! ```
//! Why not the crate `xts-mode`: it gives AES one block of 16 bytes at a time, and a processor works on several at once. Measured side by
//! side (`cargo test -p node --release -- --ignored`), it has a quarter of this speed. Ciphertext stealing is left out: data units are
//! whole blocks here.

use super::key::{DataKey, HALF};
use aes::Aes256;
use aes::cipher::array::Array;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// A block of AES, in bytes.
const BLOCK: usize = 16;
/// Blocks that are worked on together: about as many as AES takes at once (30 with VAES). With so few, the processor computes the tweaks of
/// the next batch while it still works on this one; 32 were the fastest of 16 to 256.
const BATCH: usize = 32;
/// What is left of x¹²⁸ by the polynomial x¹²⁸ + x⁷ + x² + x + 1.
const POLYNOMIAL: u128 = 0x87;

/// Both keys, expanded; wiped when they are dropped.
///
/// It lies in one place of the heap: an expanded key is half a kilobyte that begins with the key itself, and moving it leaves copies.
pub(super) struct Xts {
    data: Aes256,
    tweak: Aes256,
}

impl fmt::Debug for Xts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// Which way.
#[derive(Clone, Copy)]
enum Way {
    Encrypt,
    Decrypt,
}

impl Xts {
    pub(super) fn new(key: &DataKey) -> Arc<Self> {
        let expanded = Self::expand(key);
        clear_stack();
        expanded
    }

    #[inline(never)]
    fn expand(key: &DataKey) -> Arc<Self> {
        let (data, tweak) = key.halves();
        Arc::new(Self { data: aes(data), tweak: aes(tweak) })
    }

    /// Encrypts one data unit in place: a multiple of 16 bytes.
    pub(super) fn encrypt(&self, number: u128, unit: &mut [u8]) {
        self.apply(Way::Encrypt, number, unit);
    }

    /// Decrypts one data unit in place.
    pub(super) fn decrypt(&self, number: u128, unit: &mut [u8]) {
        self.apply(Way::Decrypt, number, unit);
    }

    fn apply(&self, way: Way, number: u128, unit: &mut [u8]) {
        assert!(unit.len().is_multiple_of(BLOCK), "a data unit of {} bytes is not whole blocks of AES", unit.len());
        let mut first = Array::from(number.to_le_bytes());
        self.tweak.encrypt_block(&mut first);
        let mut next = u128::from_le_bytes(first.0);
        let mut tweaks = [0; BATCH];
        for part in unit.chunks_mut(BATCH * BLOCK) {
            let (blocks, _) = part.as_chunks_mut::<BLOCK>();
            let tweaks = &mut tweaks[..blocks.len()];
            for tweak in &mut *tweaks {
                *tweak = next;
                next = times_x(next);
            }
            xor(blocks, tweaks);
            match way {
                Way::Encrypt => self.data.encrypt_blocks(Array::cast_slice_from_core_mut(blocks)),
                Way::Decrypt => self.data.decrypt_blocks(Array::cast_slice_from_core_mut(blocks)),
            }
            xor(blocks, tweaks);
        }
    }
}

/// Overwrites the part of the stack that the call before this one used: expanded keys are returned by value, and lay there on their way.
#[inline(never)]
fn clear_stack() {
    let mut below = [0_u8; 16 << 10];
    below.zeroize();
}

fn aes(key: &[u8; HALF]) -> Aes256 {
    Aes256::new(Array::cast_from_core(key))
}

fn xor(blocks: &mut [[u8; BLOCK]], tweaks: &[u128]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
    }
}

/// The product in the field that the standard defines; in the same time whatever the number is.
fn times_x(number: u128) -> u128 {
    (number << 1) ^ (POLYNOMIAL * (number >> 127))
}

#[cfg(test)]
mod tests {
    use super::super::hex::Hex;
    use super::super::key::KeyId;
    use super::*;
    use std::time::{Duration, Instant};

    const VECTORS: &str = include_str!("vectors.txt");

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| Hex::<1>::parse(str::from_utf8(pair).unwrap()).unwrap());
        pairs.map(|byte| byte.0[0]).collect()
    }

    fn xts(key: &[u8]) -> Arc<Xts> {
        let id = KeyId(Hex([0; 16]));
        let key = DataKey::made_by(id, |into| (key.len() == into.len()).then(|| into.copy_from_slice(key)));
        Xts::new(&key.unwrap())
    }

    #[test]
    fn it_agrees_with_the_vectors_of_ieee_and_nist() {
        let mut seen = 0;
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let [name, key, number, plain, cipher] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (xts, number) = (xts(&bytes(key)), u128::from_str_radix(number, 16).unwrap());
            let (plain, cipher) = (bytes(plain), bytes(cipher));
            let mut text = plain.clone();
            xts.encrypt(number, &mut text);
            assert_eq!(text, cipher, "{name}");
            xts.decrypt(number, &mut text);
            assert_eq!(text, plain, "{name}");
            seen += 1;
        }
        assert_eq!(seen, 29, "5 of IEEE, 24 of NIST");
    }

    #[test]
    fn units_longer_than_a_batch_go_on_where_the_batch_ended() {
        let xts = xts(&(0..64).collect::<Vec<u8>>());
        let mut long: Vec<u8> = (0..5 * BATCH * BLOCK / 2).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let plain = long.clone();
        xts.encrypt(u128::MAX, &mut long);
        let mut short = plain[..BATCH * BLOCK].to_vec();
        xts.encrypt(u128::MAX, &mut short);
        assert!(long[..short.len()] == short[..]);
        assert!(
            long[short.len()..].chunks(BLOCK).zip(plain[short.len()..].chunks(BLOCK)).all(|(one, other)| one != other)
        );
        xts.decrypt(u128::MAX, &mut long);
        assert!(long == plain);
    }

    #[test]
    fn keys_do_not_print() {
        assert_eq!(format!("{:?}", xts(&[0x39; 64])), "[key]");
    }

    /// The best of several runs, since others use the machine too.
    fn best(mut work: impl FnMut()) -> Duration {
        let mut once = || {
            let begin = Instant::now();
            work();
            begin.elapsed()
        };
        (0..20).map(|_| once()).min().unwrap()
    }

    #[test]
    #[ignore = "a measurement: cargo test -p node --release -- --ignored --nocapture speed"]
    fn speed_of_encryption_on_one_core() {
        let xts = xts(&(0..64).collect::<Vec<u8>>());
        let mut memory = vec![7; 4 << 20];
        let unit = 4096;
        let rate = |time: Duration| (4 << 20) as f64 / time.as_secs_f64() / 1e9;
        let encrypting = best(|| memory.chunks_mut(unit).zip(0..).for_each(|(unit, number)| xts.encrypt(number, unit)));
        let decrypting = best(|| memory.chunks_mut(unit).zip(0..).for_each(|(unit, number)| xts.decrypt(number, unit)));
        println!(
            "blocks of 4096 bytes: encrypted {:.2} GB/s, decrypted {:.2} GB/s",
            rate(encrypting),
            rate(decrypting)
        );
        let (key, other) = (Array::from([1; 32]), Array::from([2; 32]));
        let crates = xts_mode::Xts128::new(Aes256::new(&key), Aes256::new(&other));
        let encrypting = best(|| crates.encrypt_area(&mut memory, unit, 0, xts_mode::get_tweak_default));
        let decrypting = best(|| crates.decrypt_area(&mut memory, unit, 0, xts_mode::get_tweak_default));
        println!(
            "by xts-mode 0.6:      encrypted {:.2} GB/s, decrypted {:.2} GB/s",
            rate(encrypting),
            rate(decrypting)
        );
    }
}
