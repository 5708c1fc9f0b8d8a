//! Which of the places that may be chosen is the best one for the next replica.

use crate::cluster::Domains;
use crate::measure::{Rule, Spot};
use crate::strategy::Enforcement;
use std::cmp::Reverse;

/// Shares of free room that differ by less are the same, so that replicas go where few are, and not to and fro.
const SHARE_STEPS: u128 = 20;

/// The smallest is the best. The order of the fields is the order of what matters.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank<'a> {
    kept: Reverse<u64>,
    in_region: usize,
    in_zone: usize,
    in_rack: usize,
    free_share: Reverse<u128>,
    replicas: u32,
    free: Reverse<u64>,
    node: &'a str,
    pool: &'a str,
}

/// How good a spot is, given those that are chosen.
pub(crate) fn rank<'a>(spot: usize, chosen: &[usize], spots: &[Spot<'a>], rules: &[Rule], size: u64) -> Rank<'a> {
    let this = &spots[spot];
    let together =
        |depth| chosen.iter().filter(|other| together(&this.domains, &spots[**other].domains, depth)).count();
    let free = this.free.saturating_sub(size);
    let share = u128::from(free) * SHARE_STEPS / u128::from(this.capacity.max(1));
    Rank {
        kept: Reverse(rules.iter().map(|rule| gain(rule, spot, chosen)).sum()),
        in_region: together(1),
        in_zone: together(2),
        in_rack: together(3),
        free_share: Reverse(share),
        replicas: this.replicas,
        free: Reverse(free),
        node: this.node,
        pool: this.pool,
    }
}

/// What a preferred rule gains by this spot.
fn gain(rule: &Rule, spot: usize, chosen: &[usize]) -> u64 {
    let Enforcement::Preferred { weight } = rule.enforcement else { return 0 };
    let with: Vec<_> = chosen.iter().copied().chain([spot]).collect();
    let gained = rule.count(&with).min(rule.needed) > rule.count(chosen).min(rule.needed);
    if gained { u64::from(weight) } else { 0 }
}

/// Whether two nodes may share their fate in the domains down to this depth: they do unless one of these is known to differ.
fn together(one: &Domains, other: &Domains, depth: usize) -> bool {
    let parts = [(&one.region, &other.region), (&one.zone, &other.zone), (&one.rack, &other.rack)];
    !parts.iter().take(depth).any(|(one, other)| matches!((one, other), (Some(one), Some(other)) if one != other))
}
