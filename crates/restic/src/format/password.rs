//! Key files: the master key, wrapped by a password with scrypt.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use scrypt::Params;
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::crypto::{Key, random};
use super::error::{Error, Result};

/// What the cost of scrypt is for new keys, as a power of two: 32 MiB of memory, some 100 ms.
const LOG_N: u8 = 15;
/// The block size of scrypt.
const R: u32 = 8;
/// How many of it run beside each other.
const P: u32 = 1;
/// The most memory that a key file may make us use, in bytes.
const MOST_MEMORY: u64 = 1 << 30;
/// The most passes that a key file may make us run.
const MOST_P: u32 = 64;
/// Bytes of salt.
const SALT_LEN: usize = 64;

/// A file below `keys/`; the only one that is not sealed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyFile {
    created: Timestamp,
    username: String,
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct MasterKey {
    mac: MacKey,
    encrypt: String,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct MacKey {
    k: String,
    r: String,
}

impl KeyFile {
    /// Wraps a key.
    pub(super) fn wrap(master: &Key, password: &[u8], host: &str, now: Timestamp) -> Result<Self> {
        let salt = random::<SALT_LEN>()?;
        let user = derive(password, &salt, LOG_N, R, P).ok_or(Error::Crypto("scrypt"))?;
        let (encrypt, k, r) = master.parts();
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let document = MasterKey { mac: MacKey { k: text(k), r: text(r) }, encrypt: text(encrypt) };
        let plain = serde_json::to_vec(&document).map(Zeroizing::new).map_err(|_| Error::Crypto("JSON"))?;
        let mut data = Vec::new();
        user.seal(&plain, &mut data)?;
        Ok(Self {
            created: now,
            username: "orlop".to_owned(),
            hostname: host.to_owned(),
            kdf: "scrypt".to_owned(),
            n: 1 << LOG_N,
            r: R,
            p: P,
            salt: STANDARD.encode(salt),
            data: STANDARD.encode(data),
        })
    }

    /// The master key, if the password is the right one; else why the file cannot be used.
    pub(super) fn unwrap_with(&self, password: &[u8]) -> Result<Option<Key>, String> {
        if self.kdf != "scrypt" {
            return Err(format!("it is made with {:?} instead of scrypt", self.kdf));
        }
        let memory = u128::from(self.n) * u128::from(self.r) * 128;
        if !self.n.is_power_of_two() || memory > u128::from(MOST_MEMORY) || self.p > MOST_P {
            return Err(format!("it asks for scrypt with N = {}, r = {}, p = {}", self.n, self.r, self.p));
        }
        let salt = STANDARD.decode(&self.salt).map_err(|error| format!("its salt is no base64: {error}"))?;
        let data = STANDARD.decode(&self.data).map_err(|error| format!("its key is no base64: {error}"))?;
        let log_n = u8::try_from(self.n.ilog2()).map_err(|error| error.to_string())?;
        let user = derive(password, &salt, log_n, self.r, self.p).ok_or("scrypt does not take its parameters")?;
        let Some(plain) = user.open(&data).map_err(|error| error.to_string())?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let document: MasterKey = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
        document.key().map(Some).ok_or_else(|| "the key in it is of a wrong length".to_owned())
    }
}

impl MasterKey {
    fn key(&self) -> Option<Key> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Key::LEN));
        for (text, len) in [(&self.encrypt, 32), (&self.mac.k, 16), (&self.mac.r, 16)] {
            let part = Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?);
            (part.len() == len).then(|| bytes.extend_from_slice(&part))?;
        }
        bytes.first_chunk().map(Key::from_bytes)
    }
}

fn derive(password: &[u8], salt: &[u8], log_n: u8, r: u32, p: u32) -> Option<Key> {
    let mut bytes = Zeroizing::new([0; Key::LEN]);
    let params = Params::new(log_n, r, p).ok()?;
    scrypt::scrypt(password, salt, &params, &mut bytes[..]).ok()?;
    Some(Key::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (KeyFile, Key) {
        let master = Key::random().expect("there are random numbers");
        let file = KeyFile::wrap(&master, b"open sesame", "host", Timestamp::UNIX_EPOCH);
        (file.expect("wrap"), master)
    }

    #[test]
    fn the_right_password_opens_and_others_do_not() {
        let (file, master) = file();
        let text = serde_json::to_string(&file).expect("JSON");
        let read: KeyFile = serde_json::from_str(&text).expect("JSON");
        let opened = read.unwrap_with(b"open sesame").expect("it can be used").expect("it opens");
        assert_eq!(opened.parts(), master.parts());
        assert!(read.unwrap_with(b"open barley").expect("it can be used").is_none());
    }

    #[test]
    fn a_key_file_that_asks_for_too_much_is_refused() {
        let check = |change: fn(&mut KeyFile)| {
            let (mut file, _) = file();
            change(&mut file);
            assert!(file.unwrap_with(b"open sesame").is_err(), "{file:?}");
        };
        check(|file| file.n = 1 << 40);
        check(|file| file.n = 0);
        check(|file| file.n = 1000);
        check(|file| file.r = u32::MAX);
        check(|file| file.p = 65);
        check(|file| file.kdf = "argon2".to_owned());
        check(|file| file.salt = "?".to_owned());
    }
}
