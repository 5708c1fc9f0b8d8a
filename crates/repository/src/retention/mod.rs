//! Which recovery points are kept, and why.
//!
//! The planner is pure: what is known of the recovery points, a policy, the instant and the time zone go in; for each point all
//! reasons to keep it come out, or none. It deletes nothing.
//!
//! Three things hold whatever the policy says:
//!
//! 1. The newest complete recovery point of a group is kept: a policy alone must never take the last way back.
//! 2. The newest recovery point of a group is kept, also if it is incomplete: what it has of the last days is nowhere else.
//! 3. A pinned recovery point is kept.
//!
//! Complete points fill a rule first. Incomplete ones get only the places that are left, so a run of failures cannot push the
//! last good points out.

mod group;
mod period;
mod policy;
mod within;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;

pub use group::{Group, GroupBy};
pub use period::Every;
pub use policy::{NoRule, Policy};
pub use within::Within;

use crate::ids::PointId;
use crate::tags::{Tag, Tags};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

/// What the planner knows of a recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub id: PointId,
    /// When it was taken.
    pub created: Timestamp,
    /// Those with which it competes for the places of a rule.
    pub group: Group,
    /// Its tags.
    pub tags: Tags,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Whether everything that was wanted is in it.
    pub complete: bool,
}

/// One reason to keep a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "rule")]
pub enum Reason {
    /// It is one of the newest.
    Last {
        /// Which, counted from 1, the newest.
        place: u32,
    },
    /// It is the newest of a period.
    Every {
        /// The rule.
        every: Every,
        /// The period, as people write it.
        period: String,
    },
    /// It is young enough.
    Within {
        /// How young.
        within: Within,
    },
    /// It has a tag that keeps.
    Tag {
        /// The tag.
        tag: Tag,
    },
    /// It is pinned.
    Pinned,
    /// It is the newest complete one of its group.
    NewestComplete,
    /// It is the newest of its group, though not complete.
    Newest,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last { place } => write!(f, "last {place}"),
            Self::Every { every, period } => write!(f, "{every} {period}"),
            Self::Within { within } => write!(f, "within {within}"),
            Self::Tag { tag } => write!(f, "tag {tag}"),
            Self::Pinned => f.write_str("pinned"),
            Self::NewestComplete => f.write_str("newest complete"),
            Self::Newest => f.write_str("newest"),
        }
    }
}

/// What becomes of a recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The recovery point.
    pub point: Known,
    /// Why it is kept; it is forgotten if there is no reason.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// Whether it is kept.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides about recovery points; gives the groups in order, and in each the newest first.
///
/// `now` matters for the rule about age only, and `zone` for where hours, days, weeks, months and years begin.
pub fn decide(policy: &Policy, points: Vec<Known>, now: Timestamp, zone: &TimeZone) -> Vec<Decision> {
    let mut groups = BTreeMap::<Group, Vec<Decision>>::new();
    for point in points {
        groups.entry(point.group.clone()).or_default().push(Decision { point, reasons: Vec::new() });
    }
    for decisions in groups.values_mut() {
        // Two of one instant are told apart by their names, so that the order of the input does not matter.
        decisions.sort_by(|a, b| (b.point.created, &b.point.id).cmp(&(a.point.created, &a.point.id)));
        decide_group(policy, decisions, now, zone);
    }
    groups.into_values().flatten().collect()
}

fn decide_group(policy: &Policy, decisions: &mut [Decision], now: Timestamp, zone: &TimeZone) {
    if let Some(count) = policy.last {
        keep_last(count.get(), decisions);
    }
    for (every, count) in &policy.every {
        keep_every(*every, count.get(), decisions, zone);
    }
    if let Some(within) = policy.within {
        let since = within.before(now, zone);
        keep(decisions, |point| (point.created >= since).then_some(Reason::Within { within }));
    }
    for tag in &policy.tags {
        keep(decisions, |point| point.tags.contains(tag).then(|| Reason::Tag { tag: tag.clone() }));
    }
    keep(decisions, |point| point.pinned.then_some(Reason::Pinned));
    if let Some(newest) = decisions.iter_mut().find(|decision| decision.point.complete) {
        newest.reasons.push(Reason::NewestComplete);
    }
    if let Some(newest) = decisions.first_mut().filter(|decision| !decision.point.complete) {
        newest.reasons.push(Reason::Newest);
    }
}

fn keep(decisions: &mut [Decision], why: impl Fn(&Known) -> Option<Reason>) {
    for decision in decisions {
        decision.reasons.extend(why(&decision.point));
    }
}

/// The complete ones first, then the incomplete ones; in both the newest first.
fn by_preference(decisions: &mut [Decision]) -> Vec<&mut Decision> {
    let mut preferred: Vec<_> = decisions.iter_mut().collect();
    preferred.sort_by_key(|decision| Reverse(decision.point.complete));
    preferred
}

fn keep_last(count: u32, decisions: &mut [Decision]) {
    for (place, decision) in (1..=count).zip(by_preference(decisions)) {
        decision.reasons.push(Reason::Last { place });
    }
}

/// Keeps the newest of each of the last periods that have one, complete ones first.
fn keep_every(every: Every, count: u32, decisions: &mut [Decision], zone: &TimeZone) {
    let mut taken = std::collections::HashSet::new();
    for decision in by_preference(decisions) {
        let period = every.period(decision.point.created, zone);
        if taken.len() < count as usize && taken.insert(period.clone()) {
            decision.reasons.push(Reason::Every { every, period });
        }
    }
}
