//! The way back from a device.

use crate::device::{Failure, FailureKind};
use std::fmt;

/// Where the result of a request goes: called once, from any thread.
///
/// It may be called before the call that asked returns, so who asks must hold no lock that the callback takes; and it may send the answer
/// itself, so who answers must hold no lock at all. One that is dropped without a result answers with an error: a request that is
/// forgotten would hang a file system for ever.
#[must_use = "a request without an answer fails"]
pub struct Done<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, Failure>) + Send>;

impl<T> Done<T> {
    /// Calls this with the result.
    pub fn new(callback: impl FnOnce(Result<T, Failure>) + Send + 'static) -> Self {
        Self(Some(Box::new(callback)))
    }

    /// Ends the request.
    pub fn finish(mut self, result: Result<T, Failure>) {
        if let Some(callback) = self.0.take() {
            callback(result);
        }
    }

    /// Ends the request well.
    pub fn ok(self, value: T) {
        self.finish(Ok(value));
    }

    /// Ends the request with an error.
    pub fn fail(self, kind: FailureKind, message: impl Into<String>) {
        self.finish(Err(Failure::new(kind, message)));
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            let message = "the device gave no answer; this is a defect of the device, or it was being closed";
            callback(Err(Failure::new(FailureKind::Io, message)));
        }
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Done(open)" } else { "Done(finished)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_request_is_answered_once_also_when_it_is_forgotten() {
        let (sender, receiver) = mpsc::channel();
        let done = |name: &'static str| {
            let sender = sender.clone();
            Done::new(move |result: Result<u8, Failure>| sender.send((name, result.is_ok())).unwrap())
        };
        done("well").ok(1);
        done("badly").fail(FailureKind::Io, "no");
        drop(done("forgotten"));
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [("well", true), ("badly", false), ("forgotten", false)]);
    }
}
