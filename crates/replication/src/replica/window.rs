//! Which changes a replica has executed, so that none is executed twice.

use crate::limits::MOST_CHANGES;
use crate::units::Sequence;
use std::collections::BTreeMap;

/// What is known of a change that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It comes for the first time.
    New,
    /// It is being executed.
    UnderWay,
    /// It was executed.
    Done,
    /// It is further ahead than an attachment may go.
    TooFar,
}

/// The changes of one attachment in one epoch and session.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// All below are finished, and are not executed any more.
    done_below: Sequence,
    /// Those from there on that have come, and whether they are done.
    come: BTreeMap<Sequence, bool>,
}

impl Window {
    /// Takes note of a change.
    pub(super) fn see(&mut self, sequence: Sequence, done_below: Sequence) -> Seen {
        if done_below > self.done_below {
            self.done_below = done_below;
            self.come = self.come.split_off(&done_below);
        }
        if sequence < self.done_below {
            return Seen::Done;
        }
        match self.come.get(&sequence) {
            Some(true) => Seen::Done,
            Some(false) => Seen::UnderWay,
            None if self.come.len() as u64 >= MOST_CHANGES => Seen::TooFar,
            None => {
                self.come.insert(sequence, false);
                Seen::New
            }
        }
    }

    /// It is executed.
    pub(super) fn done(&mut self, sequence: Sequence) {
        if let Some(done) = self.come.get_mut(&sequence) {
            *done = true;
        }
    }

    /// It was not executed, and may come again.
    pub(super) fn forget(&mut self, sequence: Sequence) {
        self.come.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, Window};
    use crate::limits::MOST_CHANGES;
    use crate::units::Sequence;

    #[test]
    fn a_change_is_new_once() {
        let mut window = Window::default();
        assert_eq!(window.see(Sequence(5), Sequence(3)), Seen::New);
        assert_eq!(window.see(Sequence(5), Sequence(3)), Seen::UnderWay);
        window.done(Sequence(5));
        assert_eq!(window.see(Sequence(5), Sequence(3)), Seen::Done);
        assert_eq!(window.see(Sequence(2), Sequence(0)), Seen::Done, "it never came, but is finished");
        assert_eq!(window.see(Sequence(4), Sequence(0)), Seen::New);
        window.forget(Sequence(4));
        assert_eq!(window.see(Sequence(4), Sequence(0)), Seen::New);
        assert_eq!(window.see(Sequence(9), Sequence(6)), Seen::New);
        assert_eq!(window.come.len(), 1, "what is finished is forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut window = Window::default();
        for i in 0..MOST_CHANGES {
            assert_eq!(window.see(Sequence(i), Sequence(0)), Seen::New);
        }
        assert_eq!(window.see(Sequence(MOST_CHANGES), Sequence(0)), Seen::TooFar);
        assert_eq!(window.see(Sequence(MOST_CHANGES), Sequence(1)), Seen::New);
    }
}
