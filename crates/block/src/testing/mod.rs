//! Devices to test front ends with, and the suite that every device must pass.
//!
//! [`Memory`] and [`FileDisk`] finish at once in the thread that asks; [`Later`] makes of any device one that finishes in other threads and
//! in another order. What a loss of power leaves of a [`Memory`] that is volatile, [`check_durability`] compares with what was promised.

mod conformance;
mod durability;
mod file;
mod later;
mod memory;

pub use conformance::{check, random_bytes, seed};
pub use durability::{Duty, Forgetful, check_durability};
pub use file::FileDisk;
pub use later::{Gate, Later};
pub use memory::Memory;

use crate::{Buffer, ContextQuery, Device, Done, Failure, Status, ZeroMode};
use std::ops::Range;
use std::sync::mpsc;

/// Those of some contexts that are asked for.
fn picked<'a>(query: ContextQuery<'_>, most: usize, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().filter(|name| query.picks(name)).take(most).map(str::to_owned).collect()
}

/// Asks, and waits for the answer.
pub fn wait<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    ask(Done::new(move |result| sender.send(result).expect("the test waits for it")));
    receiver.recv().expect("a request that is dropped answers too")
}

/// Reads a range, and waits for it. The buffer is full of other bytes before.
pub fn read(device: &dyn Device, range: Range<u64>) -> Result<Vec<u8>, Failure> {
    let mut buffer = Buffer::zeroed(usize::try_from(range.end - range.start).expect("a short range"));
    buffer.fill(0xee);
    wait(|done| device.read(range.start, buffer, done)).map(|buffer| buffer.to_vec())
}

/// Writes bytes, and waits for it.
pub fn write(device: &dyn Device, offset: u64, bytes: &[u8], durable: bool) -> Result<(), Failure> {
    wait(|done| device.write(offset, Buffer::copy_of(bytes), durable, done))
}

/// Makes durable what was written, and waits for it.
pub fn flush(device: &dyn Device) -> Result<(), Failure> {
    wait(|done| device.flush(done))
}

/// Discards a range, and waits for it.
pub fn discard(device: &dyn Device, range: Range<u64>) -> Result<(), Failure> {
    wait(|done| device.discard(range, false, done))
}

/// Fills a range with zeros, and waits for it.
pub fn write_zeroes(device: &dyn Device, range: Range<u64>, mode: ZeroMode) -> Result<(), Failure> {
    wait(|done| device.write_zeroes(range, mode, done))
}

/// The states of a range, and waits for them.
pub fn block_status(
    device: &dyn Device,
    context: &str,
    range: Range<u64>,
    most: usize,
) -> Result<Vec<Status>, Failure> {
    wait(|done| device.block_status(context, range, most, done))
}
