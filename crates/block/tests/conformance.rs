//! The suite on the devices of tests; and devices that are wrong, which it must find.

use block::testing::{Duty, FileDisk, Forgetful, Later, Memory, check, check_durability, seed};
use block::{Buffer, ContextQuery, Description, Device, Done, Failure, Status, ZERO, ZeroMode};
use std::ops::Range;
use std::sync::Arc;

const SIZE: usize = 1 << 20;

#[test]
fn memory_does_what_a_device_must() {
    let seed = seed();
    check(&Memory::writable(&vec![7; SIZE]), seed);
    check(&Memory::new(&vec![7; SIZE + 13]), seed);
}

#[test]
fn files_do_what_a_device_must() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE as u64).unwrap();
    check(&FileDisk::open(file.path()).unwrap(), seed());
}

#[test]
fn what_is_done_later_is_done_all_the_same() {
    check(&Later::new(Arc::new(Memory::writable(&vec![7; SIZE])), 3), seed());
}

#[test]
fn a_crash_leaves_what_was_durable_and_a_device_that_forgets_it_is_found() {
    let seed = seed();
    let volatile = || Arc::new(Memory::volatile(&vec![0; SIZE]));
    let memory = volatile();
    check_durability(&*memory, || memory.crash(), seed).unwrap();
    check(&Memory::volatile(&vec![7; SIZE]), seed);
    let memory = volatile();
    check_durability(&Later::new(memory.clone(), 3), || memory.crash(), seed).unwrap();
    for duty in [Duty::Flush, Duty::DurableRequests] {
        let memory = volatile();
        let forgetful = Forgetful(memory.clone(), duty);
        let outcome = check_durability(&forgetful, || memory.crash(), seed);
        assert!(outcome.as_ref().is_err_and(|broken| broken.contains("was durable")), "{duty:?}: {outcome:?}");
    }
}

/// How a device can be wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    ReadsShort,
    WritesElsewhere,
    KeepsZeroed,
    LosesDiscarded,
    CallsDataZeros,
    TellsNothing,
}

struct Wrong(Memory, Defect);

impl Device for Wrong {
    fn describe(&self) -> Result<Description, Failure> {
        self.0.describe()
    }

    fn read(&self, offset: u64, mut buffer: Buffer, done: Done<Buffer>) {
        let len = buffer.len();
        if self.1 == Defect::ReadsShort {
            buffer.choose(0..len - 1);
        }
        let whole = Done::new(move |result: Result<Buffer, Failure>| {
            done.finish(result.map(|mut buffer| {
                buffer.choose(0..len);
                buffer
            }));
        });
        self.0.read(offset, buffer, whole);
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        let offset = if self.1 == Defect::WritesElsewhere { offset ^ 1 } else { offset };
        if offset + bytes.len() as u64 > SIZE as u64 {
            return done.ok(());
        }
        self.0.write(offset, bytes, durable, done);
    }

    fn flush(&self, done: Done<()>) {
        self.0.flush(done);
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        // More than was asked for is gone.
        let more = if self.1 == Defect::LosesDiscarded { 1 } else { 0 };
        self.0.discard(range.start..(range.end + more).min(SIZE as u64), durable, done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        match self.1 {
            Defect::KeepsZeroed => done.ok(()),
            _ => self.0.write_zeroes(range, mode, done),
        }
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.0.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        match self.1 {
            Defect::CallsDataZeros => done.ok(vec![Status { len: range.end - range.start, flags: ZERO }]),
            Defect::TellsNothing => done.ok(Vec::new()),
            _ => self.0.block_status(context, range, most, done),
        }
    }
}

#[test]
fn devices_that_are_wrong_do_not_pass() {
    let seed = seed();
    for defect in [
        Defect::ReadsShort,
        Defect::WritesElsewhere,
        Defect::KeepsZeroed,
        Defect::LosesDiscarded,
        Defect::CallsDataZeros,
        Defect::TellsNothing,
    ] {
        let wrong = Wrong(Memory::writable(&vec![7; SIZE]), defect);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&wrong, seed)));
        assert!(outcome.is_err(), "{defect:?} passes");
    }
}
