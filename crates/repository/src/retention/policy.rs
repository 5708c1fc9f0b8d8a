//! The rules of a policy.

use super::{Every, Within};
use crate::tags::Tag;
use std::num::NonZeroU32;

/// What is to be kept. A point that several rules keep is kept for all these reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) last: Option<NonZeroU32>,
    pub(super) every: Vec<(Every, NonZeroU32)>,
    pub(super) within: Option<Within>,
    pub(super) tags: Vec<Tag>,
}

/// A policy without any rule would forget almost everything, which nobody asks for in this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a policy without any rule would forget nearly everything")]
pub struct NoRule;

impl Policy {
    /// A policy of these rules, of which there must be one: the newest `last`; one of each of the last periods that have one; those
    /// that are not older than `within`; those with one of the tags.
    pub fn new(
        last: Option<NonZeroU32>,
        every: impl IntoIterator<Item = (Every, NonZeroU32)>,
        within: Option<Within>,
        tags: Vec<Tag>,
    ) -> Result<Self, NoRule> {
        let policy = Self { last, every: every.into_iter().collect(), within, tags };
        let has_rule = last.is_some() || !policy.every.is_empty() || within.is_some() || !policy.tags.is_empty();
        if has_rule { Ok(policy) } else { Err(NoRule) }
    }
}
