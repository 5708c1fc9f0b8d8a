//! What a loss of power of the device leaves of what was written and flushed through the kernel.

use crate::support::{direct, require, unique};
use block::Device;
use block::testing::{Duty, FileDisk, Forgetful, Later, Memory, check_durability, seed};
use fuse::Host;
use std::sync::Arc;

/// Writes to a block device of it past every cache of the kernel, and crashes the memory behind it.
fn outcome(name: &str, seed: u64, front: impl FnOnce(Arc<Memory>) -> Arc<dyn Device>) -> Result<(), String> {
    let (host, name) = (Host::new(None), unique(name));
    let memory = Arc::new(Memory::volatile(&vec![0; 8 << 20]));
    let path = host.attach(&name, front(memory.clone())).unwrap();
    let outcome = check_durability(&FileDisk::of(direct(&path)).unwrap(), || memory.crash(), seed);
    host.detach(&name).unwrap();
    outcome
}

#[test]
fn what_was_flushed_through_the_kernel_is_there_after_a_loss_of_power() {
    require!();
    let seed = seed();
    outcome("volatile", seed, |memory| memory).unwrap();
    outcome("volatile-later", seed, |memory| Arc::new(Later::new(memory, 3))).unwrap();
    let broken = outcome("no-flush", seed, |memory| Arc::new(Forgetful(memory, Duty::Flush)));
    assert!(broken.as_ref().is_err_and(|why| why.contains("was durable")), "{broken:?}");
    // A loop device asks for no durable writes, it flushes: so nothing is lost with a device that forgets them.
    outcome("no-durable", seed, |memory| Arc::new(Forgetful(memory, Duty::DurableRequests))).unwrap();
}
