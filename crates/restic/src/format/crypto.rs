//! Sealing: AES-256 in counter mode, and Poly1305-AES over what comes out.
//!
//! Sealed bytes are the counter's start (16), the text, and the code that authenticates it (16).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use zeroize::Zeroizing;

use super::error::{Error, Result};

/// Bytes before the text.
const IV_LEN: usize = 16;
/// Bytes after the text.
const MAC_LEN: usize = 16;
/// How much longer sealed bytes are than plain ones.
pub(super) const OVERHEAD: usize = IV_LEN + MAC_LEN;

/// A key of the format: what encrypts, and the two halves of what authenticates.
pub(super) struct Key {
    encrypt: Zeroizing<[u8; 32]>,
    mac_k: Zeroizing<[u8; 16]>,
    mac_r: Zeroizing<[u8; 16]>,
}

impl Key {
    /// How many bytes it takes.
    pub(super) const LEN: usize = 64;

    /// A new key.
    pub(super) fn random() -> Result<Self> {
        Ok(Self::from_bytes(&random()?))
    }

    /// The key in these bytes: AES key (32), k (16), r (16).
    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut key = Self { encrypt: Zeroizing::default(), mac_k: Zeroizing::default(), mac_r: Zeroizing::default() };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        clamp(&mut key.mac_r);
        key
    }

    /// AES key, k and r, for the one place that writes them.
    pub(super) fn parts(&self) -> (&[u8; 32], &[u8; 16], &[u8; 16]) {
        (&self.encrypt, &self.mac_k, &self.mac_r)
    }

    /// Appends the sealed bytes; a fresh counter is drawn for each call.
    pub(super) fn seal(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let iv = random::<IV_LEN>()?;
        out.reserve(plain.len() + OVERHEAD);
        out.extend_from_slice(&iv);
        let start = out.len();
        out.extend_from_slice(plain);
        self.run(iv, &mut out[start..])?;
        let mac = self.mac(iv, &out[start..])?;
        out.extend_from_slice(&mac);
        Ok(())
    }

    /// The plain bytes, if the seal is whole.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((iv, rest)) = sealed.split_first_chunk::<IV_LEN>() else { return Ok(None) };
        let Some((text, mac)) = rest.split_last_chunk::<MAC_LEN>() else { return Ok(None) };
        if verify_slices_are_equal(&self.mac(*iv, text)?, mac).is_err() {
            return Ok(None);
        }
        let mut plain = text.to_vec();
        self.run(*iv, &mut plain)?;
        Ok(Some(plain))
    }

    /// Counter mode is its own inverse.
    fn run(&self, iv: [u8; IV_LEN], bytes: &mut [u8]) -> Result<()> {
        let failed = |_| Error::Crypto("AES-256 in counter mode");
        let key = UnboundCipherKey::new(&AES_256, &self.encrypt[..]).and_then(EncryptingKey::ctr).map_err(failed)?;
        let context = EncryptionContext::Iv128(FixedLength::from(&iv));
        key.less_safe_encrypt(bytes, context).map(drop).map_err(failed)
    }

    /// Poly1305 under r and the encrypted nonce; the nonce is the counter's start.
    fn mac(&self, iv: [u8; IV_LEN], text: &[u8]) -> Result<[u8; MAC_LEN]> {
        let failed = |_| Error::Crypto("AES-128");
        let cipher = UnboundCipherKey::new(&AES_128, &self.mac_k[..]).and_then(EncryptingKey::ecb).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        key[..16].copy_from_slice(&self.mac_r[..]);
        key[16..].copy_from_slice(&iv);
        cipher.encrypt(&mut key[16..]).map_err(failed)?;
        Ok(Poly1305::new((&*key).into()).compute_unpadded(text).into())
    }
}

/// Takes away the bits of r that Poly1305 does not use, so that the stored key is the one that works.
fn clamp(r: &mut [u8; 16]) {
    for at in [3, 7, 11, 15] {
        r[at] &= 0x0f;
    }
    for at in [4, 8, 12] {
        r[at] &= 0xfc;
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Crypto("random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::from_bytes(&std::array::from_fn(|at| u8::try_from(at).expect("there are 64")))
    }

    #[test]
    fn what_is_sealed_opens_and_any_changed_bit_is_noticed() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let plain = vec![7; len];
            let mut sealed = b"before".to_vec();
            key().seal(&plain, &mut sealed).expect("there are random numbers");
            let sealed = &sealed[6..];
            assert_eq!(sealed.len(), len + OVERHEAD);
            assert_eq!(key().open(sealed).expect("AES works"), Some(plain));
            for at in 0..sealed.len() {
                let mut wrong = sealed.to_vec();
                wrong[at] ^= 1;
                assert_eq!(key().open(&wrong).expect("AES works"), None, "{at}");
            }
        }
        assert_eq!(key().open(&[0; OVERHEAD - 1]).expect("AES works"), None);
    }

    #[test]
    fn poly1305_aes_is_that_of_its_paper() {
        // D. J. Bernstein, "The Poly1305-AES message-authentication code", appendix B, first example.
        let mut bytes = [0; Key::LEN];
        bytes[32..48].copy_from_slice(&hex("ec074c835580741701425b623235add6"));
        bytes[48..].copy_from_slice(&hex("851fc40c3467ac0be05cc20404f3f700"));
        let mac = Key::from_bytes(&bytes).mac(hex("fb447350c4e868c52ac3275cf9d4327e"), &[0xf3, 0xf6]);
        assert_eq!(mac.expect("AES works"), hex("f4c633c3044fc145f84f335cb81953de"));
    }

    fn hex(text: &str) -> [u8; 16] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("two digits"))
    }
}
