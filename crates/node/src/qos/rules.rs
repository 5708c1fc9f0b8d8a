//! The rules that make sharing fair, and what breaks without each.
//!
//! In the simulation a scheduler can be made to break one of them, to show that it notices; elsewhere all are kept.

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A volume is given bytes in its turn, and saves up for a request that costs more.
    ///
    /// Else long requests get more than short ones.
    Deficit,
    /// Tokens come back as time passes.
    ///
    /// Else a volume with a limit gets one burst, and then nothing.
    Refill,
    /// Tokens that nobody uses are lost beyond those of one second.
    ///
    /// Else a volume that was idle for an hour can take an hour's worth at once.
    Burst,
    /// The volumes take turns.
    ///
    /// Else the one with the longest queue gets everything.
    Turns,
    /// No more than a bounded number of requests is under way.
    ///
    /// Else they queue up in the device, where nobody takes turns.
    Room,
    /// A request that is under way for too long does not take up room any more.
    ///
    /// Else one volume whose replicas are gone holds up all others.
    GiveUp,
    /// A volume of which such requests are not answered yet tries one request at a time, which takes up no room.
    ///
    /// Else its next requests take up the room that was taken from the last ones, until its whole queue is under way.
    OneAtATime,
}

/// The rules that a scheduler keeps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    #[cfg(test)]
    broken: Option<Rule>,
}

impl Rules {
    /// Breaks one rule.
    #[cfg(test)]
    pub(super) fn without(rule: Option<Rule>) -> Self {
        Self { broken: rule }
    }

    #[cfg(test)]
    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    #[cfg(not(test))]
    pub(super) fn keeps(self, _rule: Rule) -> bool {
        true
    }
}
