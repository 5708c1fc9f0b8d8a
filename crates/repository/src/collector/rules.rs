//! The rules that make collections safe, and what breaks without each.
//!
//! In the simulation a process can be made to break one of them, to show that it notices; elsewhere all are kept.

/// One rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A session reads the epochs again after its object exists, and gives itself up when a greater one is there.
    ///
    /// Else an object may appear in an epoch whose sessions a collector has listed already: that collector neither waits for it nor
    /// keeps what it refers to.
    ConfirmEpoch,
    /// The object of a session is created with one request, which is never repeated under the same name.
    ///
    /// Else a repeated request that was delayed can bring the object back after its recovery point was forgotten; with a delayed
    /// publication the point would count again, without its packs.
    SessionOnce,
    /// While the collection that opened its epoch goes on, a session takes as parents only points that the collection lists, and points
    /// of sessions of its own epoch or later.
    ///
    /// Else it may refer to a candidate through a point that is forgotten before the collector marks again.
    RestrictParents,
    /// A collector opens an epoch, and waits for all sessions of the epochs before or revokes them, before it deletes.
    ///
    /// Else a session that is under way refers to what is deleted: its own packs, and those of its parents.
    WaitForSessions,
    /// Revoking a session creates the tombstone of its recovery point; that, and not the time, decides.
    ///
    /// Else a session that was taken for dead publishes a point whose packs are deleted.
    TombstoneDecides,
    /// A tombstone is created only if there is no recovery point of the name, and never replaces one.
    ///
    /// Else a point is lost that was published in the last moment.
    TombstoneNeverReplaces,
    /// A tombstone stays for ever.
    ///
    /// Else its deletion, delayed, can hit a recovery point of the same name, or free the name while another collector counts on the
    /// session being revoked.
    TombstoneStays,
    /// After the sessions have ended, a collector marks again, and deletes only candidates that are still unreferenced.
    ///
    /// Else it deletes what sessions published after it had made the collection.
    MarkAgain,
    /// A collector deletes only if the collection is not over.
    ///
    /// Else one that stalled deletes by a marking that is too old: since then every point may be a parent.
    LookForDone,
    /// It looks for that after it has listed the recovery points for the second marking.
    ///
    /// Else the collection may end between the look and the listing, and a point that a session takes as a parent then may be forgotten
    /// before the listing.
    LookAfterListing,
    /// Forgetting deletes the sessions of a point before the point.
    ///
    /// Else a repeated publication brings a point back that counts, and whose packs are deleted.
    SessionsFirst,
}

/// The rules that a process keeps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    broken: Option<Rule>,
}

impl Rules {
    /// Breaks one rule.
    #[cfg(test)]
    pub(crate) fn without(rule: Option<Rule>) -> Self {
        Self { broken: rule }
    }

    #[cfg(test)]
    pub(crate) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    #[cfg(not(test))]
    pub(crate) fn keeps(self, _rule: Rule) -> bool {
        true
    }
}
