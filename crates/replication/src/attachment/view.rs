//! What can be told of an attachment.

use super::Attachment;
use crate::record::Record;
use crate::units::{ReplicaId, Span};
use std::collections::BTreeMap;

/// How an attachment is, at the time of its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The record as it knows it; nothing before it was read.
    pub record: Option<Record>,
    /// Since when a replica owes an answer.
    pub lag: BTreeMap<ReplicaId, Span>,
    /// What is being made equal.
    pub copying: Option<Copying>,
    /// Operations that are not answered.
    pub operations: usize,
}

/// Making replicas equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copying {
    /// The replica that is being brought back; without one, all that are in sync are made equal.
    pub to: Option<ReplicaId>,
    /// Not all that may differ is known yet.
    pub is_listing: bool,
    /// Blocks that are to be compared still, of those that are known.
    pub blocks_left: u64,
}

impl Attachment {
    /// Tells how it is. (It goes through all that is under way, so it is not meant for every event.)
    #[must_use]
    pub fn view(&self) -> View {
        let lag = self.links.iter().filter_map(|(id, link)| {
            let since = link.owes_since()?;
            Some((*id, Span(self.now.0.saturating_sub(since.0))))
        });
        let copying = self.copier.as_ref().map(|copier| Copying {
            to: copier.target(),
            is_listing: copier.is_listing(),
            blocks_left: copier.blocks_left(),
        });
        let record = self.record().cloned();
        View { record, lag: lag.collect(), copying, operations: self.operations.len() }
    }
}
