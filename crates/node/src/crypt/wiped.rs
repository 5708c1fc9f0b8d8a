//! Looks through the whole memory of the process for keys that should be gone.
//!
//! What is looked for must not itself be there: it is kept under a mask, and compared byte by byte. Before the keys are dropped they must
//! be found, so that a search that finds nothing means something.

use super::{DataKey, Encrypted, Secret};
use crate::proto::{AttachRequest, ChangeSecretRequest};
use crate::secrets::Wiped;
use block::BlockSizes;
use block::testing::{self, Memory};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// The length of what is looked for, in bytes: half of a data key, far too long to be there by chance.
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
fn a_secret_and_a_data_key_are_not_in_memory_once_they_are_dropped() {
    let mut bytes = Zeroizing::new(vec![0; LEN]);
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let mut wanted = vec![Masked::new("secret", bytes.iter().copied())];
    let secret = Secret::new(bytes).unwrap();
    // In another thread: what its stack held goes with it, also of what masks the keys. (Smaller stacks are kept for the next thread.)
    let work = std::thread::Builder::new().stack_size(64 << 20);
    let worked = work.spawn(move || {
        let key = DataKey::random().unwrap();
        wanted.push(Masked::new("first half", key.halves().0.iter().copied()));
        wanted.push(Masked::new("second half", key.halves().1.iter().copied()));
        let wrapped = key.wrap(&secret).unwrap();
        let mut memory = Memory::writable(&vec![0; 1 << 16]);
        memory.blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum: 1 << 16 };
        let device = Encrypted::new(Arc::new(memory), &wrapped.unwrap(&secret).unwrap()).unwrap();
        testing::write(&device, 0, &[7; 4096], false).unwrap();
        (secret, device, wanted)
    });
    let (secret, device, wanted) = worked.unwrap().join().unwrap();
    assert_eq!(search(&wanted), ["first half", "second half", "secret"], "what is in use is found");
    drop((secret, device));
    assert_eq!(search(&wanted), Vec::<&str>::new());
}

#[test]
fn the_secrets_of_a_request_are_not_in_memory_once_it_is_dropped() {
    let secret = || {
        let mut bytes = vec![0; LEN];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        bytes
    };
    let attach = Wiped::new(AttachRequest { secret: secret(), ..AttachRequest::default() });
    let change = Wiped::new(ChangeSecretRequest { name: "data".into(), old_secret: secret(), new_secret: secret() });
    let of = [("attach", &attach.secret), ("old", &change.old_secret), ("new", &change.new_secret)];
    let wanted = of.map(|(name, secret)| Masked::new(name, secret.iter().copied()));
    assert_eq!(search(&wanted), ["attach", "new", "old"], "what is in use is found");
    drop((attach, change));
    assert_eq!(search(&wanted), Vec::<&str>::new());
}
