//! Looks through the whole memory of the process for secrets that should be gone.
//!
//! What is looked for must not itself be there: it is kept under a mask, and compared byte by byte. Before the secrets are dropped
//! they must be found, so that a search that finds nothing means something.

use super::{KeyRing, NewKey};
use crate::Passphrase;
use crate::store::{RetryPolicy, StoreConfig};
use crate::{Recipient, Repository};
use std::fs::File;
use std::os::unix::fs::FileExt;
use zeroize::{Zeroize, Zeroizing};

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// The length of what is looked for, in bytes: far too long to be there by chance.
const LEN: usize = 32;

struct Masked {
    name: &'static str,
    mask: [u8; LEN],
    bytes: [u8; LEN],
}

impl Masked {
    fn new(name: &'static str, bytes: impl Iterator<Item = u8>) -> Self {
        let mask: [u8; LEN] = rand::random();
        let mut masked = mask;
        masked.iter_mut().zip(bytes).for_each(|(masked, byte)| *masked ^= byte);
        Self { name, mask, bytes: masked }
    }

    fn is_in(&self, memory: &[u8]) -> bool {
        memory.windows(LEN).any(|window| {
            let mut bytes = window.iter().zip(&self.mask).zip(&self.bytes);
            bytes.all(|((byte, mask), masked)| byte ^ mask == *masked)
        })
    }
}

/// The names of what is found anywhere in memory that this process can write to.
fn search(wanted: &[Masked]) -> Vec<&'static str> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0; CHUNK];
    let mut found = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        if !rest.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let len = CHUNK.min(usize::try_from(end - at).unwrap());
            // Some regions of the kernel cannot be read.
            let Ok(read) = memory.read_at(&mut buffer[..len], at) else { break };
            found.extend(wanted.iter().filter(|wanted| wanted.is_in(&buffer[..read])).map(|wanted| wanted.name));
            // What lies across the end of a chunk is in the next one.
            at += u64::try_from(if read == CHUNK { read - LEN } else { read.max(1) }).unwrap();
        }
    }
    buffer.zeroize();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_passphrase_and_the_master_key_are_not_in_memory_once_they_are_dropped() {
    let mut text = Zeroizing::new(Vec::with_capacity(LEN));
    text.extend((0..LEN).map(|_| b'a' + rand::random::<u8>() % 26));
    let mut wanted = vec![Masked::new("passphrase", text.iter().copied())];
    let recipient = Recipient::Passphrase(Passphrase::from_content(text).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = StoreConfig::Memory.open(RetryPolicy::never()).unwrap();
    let (repository, ring) = runtime.block_on(async {
        let repository = Repository::create(store.clone(), &recipient).await.unwrap();
        let ring = KeyRing::open(store.clone(), &recipient).await.unwrap();
        let new = NewKey { label: String::new(), created: "2026-11-25T10:00:00Z".parse().unwrap() };
        ring.add(&recipient, &new).await.unwrap();
        (repository, ring)
    });
    wanted.push(Masked::new("master key", ring.master_bytes()));
    assert_eq!(search(&wanted), ["master key", "passphrase"], "what is there is found");
    drop((repository, ring, recipient));
    assert_eq!(search(&wanted), Vec::<&str>::new());
}
