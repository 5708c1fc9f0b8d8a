//! A program that others wrote reads what is written here: Python's `cryptography`, which is OpenSSL. (The kernel's `xts(aes)` would be a
//! judge too; many kernels have no sockets for it.)

use super::{DataKey, Encrypted, Secret};
use block::testing::{self, Memory, random_bytes, seed};
use block::{BlockSizes, ZeroMode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use zeroize::Zeroizing;

const SIZE: usize = 64 * 4096;

/// From the documentation of the record and of the device, not from their code.
const READER: &str = r#"
import json, sys
from struct import pack
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

def content(name):
    with open(name, "rb") as file:
        return file.read()

record = json.loads(content("key.json"))
cost = record["argon2id"]
memory, passes, lanes = cost["memoryKib"], cost["passes"], cost["lanes"]
salt, identity = bytes.fromhex(record["salt"]), bytes.fromhex(record["id"])
wrapping = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(content("secret"))
bound = b"orlop.io volume data key" + pack("<I", record["version"]) + identity + pack("<III", memory, passes, lanes)
key = AESGCM(wrapping).decrypt(bytes.fromhex(record["nonce"]), bytes.fromhex(record["sealed"]), bound)
cipher, plain = content("cipher"), b""
for at in range(0, len(cipher), 4096):
    block = cipher[at : at + 4096]
    if any(block):
        decryptor = Cipher(algorithms.AES(key), modes.XTS((at // 4096).to_bytes(16, "little"))).decryptor()
        block = decryptor.update(block) + decryptor.finalize()
    plain += block
with open("plain", "wb") as file:
    file.write(plain)
"#;

/// The Python that `make test` has readied, or the machine's.
fn program() -> PathBuf {
    let readied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reader/bin/python");
    if readied.exists() { readied } else { PathBuf::from("python3") }
}

fn python(folder: &Path, script: &str) -> Result<(), String> {
    let output = Command::new(program()).arg("-c").arg(script).current_dir(folder).output();
    let output = output.map_err(|error| error.to_string())?;
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn openssl_reads_what_is_encrypted_and_the_key_that_is_wrapped() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = python(folder.path(), "from cryptography.hazmat.primitives.kdf.argon2 import Argon2id") {
        skips::skip!(
            "needs python3 with the package cryptography, version 44 or later, which `make test` installs: {reason}"
        );
    }
    let mut memory = Memory::writable(&vec![0; SIZE]);
    memory.blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum: 1 << 20 };
    let (memory, key) = (Arc::new(memory), DataKey::random().unwrap());
    let device = Encrypted::new(memory.clone(), &key).unwrap();
    let noise = random_bytes(&mut StdRng::seed_from_u64(seed()), SIZE - 8192);
    testing::write(&device, 4096, &noise, true).unwrap();
    testing::write_zeroes(&device, 8 * 4096..11 * 4096, ZeroMode::default()).unwrap();

    let secret = random_bytes(&mut StdRng::seed_from_u64(1), 40);
    let wrapped = key.wrap(&Secret::new(Zeroizing::new(secret.clone())).unwrap()).unwrap();
    fs::write(folder.path().join("key.json"), serde_json::to_vec(&wrapped).unwrap()).unwrap();
    fs::write(folder.path().join("secret"), secret).unwrap();
    fs::write(folder.path().join("cipher"), memory.bytes()).unwrap();
    python(folder.path(), READER).unwrap();
    let plain = fs::read(folder.path().join("plain")).unwrap();
    assert!(plain == testing::read(&device, 0..SIZE as u64).unwrap());
    assert!(plain[4096..8 * 4096] == noise[..7 * 4096], "not only zeros");
}
