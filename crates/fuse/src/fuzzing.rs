//! The parsers, and what becomes of what they read, for the fuzz targets.

use crate::keeper::{Answer, Request};
use crate::protocol::WRITE_HEADER;
use crate::session::{LONGEST, Session};
use crate::state::State;
use block::{BlockSizes, Buffer, Description, Device, Done, Failure, Features, PAGE, Pool, ZeroMode};
use rustix::fs::{Mode, OFlags};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const SIZE: u64 = 1 << 20;
const BLOCK: u64 = 512;

/// A device that wants to be called as the trait says.
struct Strict;

impl Strict {
    fn look(range: &Range<u64>) {
        assert!(range.start < range.end && range.end <= SIZE, "{range:?}");
        assert!(range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK), "{range:?}");
    }
}

impl Device for Strict {
    fn describe(&self) -> Result<Description, Failure> {
        let features = Features { durable_writes: false, discard: false, ..Features::ALL };
        let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: LONGEST };
        Ok(Description { size: SIZE, blocks, features })
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        Self::look(&(offset..offset + buffer.len() as u64));
        done.ok(buffer);
    }

    fn write(&self, offset: u64, bytes: Buffer, _durable: bool, done: Done<()>) {
        Self::look(&(offset..offset + bytes.len() as u64));
        done.ok(());
    }

    fn flush(&self, done: Done<()>) {
        done.ok(());
    }

    fn write_zeroes(&self, range: Range<u64>, _mode: ZeroMode, done: Done<()>) {
        Self::look(&range);
        done.ok(());
    }
}

static SESSION: LazyLock<Arc<Session>> = LazyLock::new(|| {
    let nowhere = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let about = Strict.describe().expect("it is above");
    let nowhere = nowhere.expect("every system has it");
    Arc::new(Session::new(nowhere, Arc::new(Strict), about, LONGEST, Pool::new(8 << 20)))
});

/// A message of the kernel, and what the device is asked for it.
pub fn request(bytes: &[u8]) {
    let mut buffer = SESSION.read_into();
    let from = PAGE - WRITE_HEADER;
    let len = bytes.len().min(buffer.len());
    buffer.choose(from..from + len);
    buffer.copy_from_slice(&bytes[..len]);
    SESSION.take(buffer);
}

/// A message to a keeper, or from one, or what it keeps.
pub fn keeper_message(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    if let Some(state) = State::decode(bytes) {
        assert_eq!(state.encode(), bytes);
    }
}
