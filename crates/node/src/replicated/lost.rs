//! A volume that was served here and cannot be any more: whoever uses it is told so, and does not wait for ever.

use block::{BlockSizes, Buffer, Description, Device, Done, Failure, FailureKind, Features, ZeroMode};
use std::ops::Range;

/// A device of which all that is asked fails.
pub(super) struct Lost {
    pub(super) bytes: u64,
    pub(super) why: String,
}

impl Lost {
    fn failure(&self) -> Failure {
        Failure::new(FailureKind::ShuttingDown, self.why.clone())
    }
}

impl Device for Lost {
    fn describe(&self) -> Result<Description, Failure> {
        let blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum: 4 << 20 };
        Ok(Description { size: self.bytes, blocks, features: Features::ALL })
    }

    fn read(&self, _offset: u64, _buffer: Buffer, done: Done<Buffer>) {
        done.finish(Err(self.failure()));
    }

    fn write(&self, _offset: u64, _bytes: Buffer, _durable: bool, done: Done<()>) {
        done.finish(Err(self.failure()));
    }

    fn flush(&self, done: Done<()>) {
        done.finish(Err(self.failure()));
    }

    fn discard(&self, _range: Range<u64>, _durable: bool, done: Done<()>) {
        done.finish(Err(self.failure()));
    }

    fn write_zeroes(&self, _range: Range<u64>, _mode: ZeroMode, done: Done<()>) {
        done.finish(Err(self.failure()));
    }
}
