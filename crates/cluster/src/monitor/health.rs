//! Whether the storage of a node is gone, by what several observers say.
//!
//! A daemon that is silent may be busy, be replaced, or be cut off from the API server alone and serve its volumes on. So silence makes it suspect and nothing
//! more: some of the nodes that live are asked to look for it, and what they see they tell in their own `StorageNode`s ([`crate::Agent`]). Its storage is
//! offline when it has been silent for [`Times::offline_after`] and none of them reaches it.
//!
//! Who hears of nobody has no observers, so nothing follows from an API server that is away or slow.

use crate::times::Times;
use api::{StorageHealth, StorageState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// Nodes that are asked at once. More of them make nothing surer.
const OBSERVERS: usize = 5;

/// What is known of a node, as one that is judged and as one that is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness {
    pub(super) name: String,
    pub(super) silent_for: Duration,
    /// The nodes that it was asked for and does not reach.
    pub(super) unreachable: Vec<String>,
    /// What was held of it before.
    pub(super) health: Option<StorageHealth>,
}

/// What is held of one of the nodes now. They are in the order of their names.
pub(super) fn judge(node: &Witness, all: &[Witness], times: &Times, now: Timestamp) -> Option<StorageHealth> {
    if node.silent_for < times.dead_after {
        return None;
    }
    let observers = observers(node, all, times);
    let names = |of: Vec<&&Witness>| of.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    let (missing, others): (Vec<_>, Vec<_>) = observers.iter().partition(|one| one.unreachable.contains(&node.name));
    let is_long = node.silent_for >= times.offline_after;
    let state =
        if is_long && !missing.is_empty() && others.is_empty() { StorageState::Offline } else { StorageState::Suspect };
    let silent = "its daemon does not say that it lives";
    let message = match (missing.is_empty(), others.is_empty()) {
        (true, true) => format!("{silent}, and there is no other node that could look for it"),
        (false, true) => format!("{silent}, and it is out of reach of {}", names(missing)),
        (true, false) => format!("{silent}; {} look for it, and may reach it", names(others)),
        (false, false) => {
            format!("{silent}; it is out of reach of {}, but maybe not of {}", names(missing), names(others))
        }
    };
    let before = node.health.as_ref().filter(|health| health.state == state);
    let since = before.map_or(Time(now), |health| health.since.clone());
    let observers = observers.iter().map(|one| one.name.clone()).collect();
    Some(StorageHealth { state, since, observers, message })
}

/// Those that live among the ones that were asked, and others in place of those that do not.
fn observers<'a>(node: &Witness, all: &'a [Witness], times: &Times) -> Vec<&'a Witness> {
    let asked = node.health.iter().flat_map(|health| &health.observers).collect::<Vec<_>>();
    // From the node on, so that not the same ones look for all.
    let (before, after) = all.split_at(all.partition_point(|one| one.name <= node.name));
    let others = after.iter().chain(before).filter(|one| one.name != node.name && one.silent_for < times.dead_after);
    let (first, rest): (Vec<_>, Vec<_>) = others.partition(|one| asked.contains(&&one.name));
    let mut chosen: Vec<_> = first.into_iter().chain(rest).take(OBSERVERS).collect();
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes `a`, `b`, …: for how many seconds each has been silent, and whom it does not reach.
    fn nodes(of: &[(u64, &[&str])]) -> Vec<Witness> {
        let name = |i: usize| char::from(b'a' + u8::try_from(i).unwrap()).to_string();
        let node = |(i, (silent, unreachable)): (usize, &(u64, &[&str]))| Witness {
            name: name(i),
            silent_for: Duration::from_secs(*silent),
            unreachable: unreachable.iter().map(|&one| one.to_owned()).collect(),
            health: None,
        };
        of.iter().enumerate().map(node).collect()
    }

    fn judged(all: &[Witness]) -> Option<StorageHealth> {
        judge(&all[0], all, &Times::default(), Timestamp::UNIX_EPOCH)
    }

    fn state(all: &[Witness]) -> Option<StorageState> {
        judged(all).map(|health| health.state)
    }

    #[test]
    fn only_what_is_silent_for_long_and_reached_by_nobody_is_offline() {
        use StorageState::{Offline, Suspect};
        assert_eq!(state(&nodes(&[(0, &[]), (0, &["a"]), (0, &["a"])])), None, "it lives, whatever others say");
        assert_eq!(state(&nodes(&[(9, &[]), (0, &["a"]), (0, &["a"])])), Some(Suspect), "not for long");
        assert_eq!(state(&nodes(&[(31, &[]), (0, &["a"]), (0, &["a"])])), Some(Offline));
        assert_eq!(
            state(&nodes(&[(31, &[]), (0, &["a"]), (0, &[])])),
            Some(Suspect),
            "one reaches it, or has not looked"
        );
        assert_eq!(
            state(&nodes(&[(31, &[]), (0, &["a"]), (31, &["a"])])),
            Some(Offline),
            "one that is silent says nothing"
        );
        assert_eq!(state(&nodes(&[(31, &[]), (0, &[]), (31, &["a"])])), Some(Suspect), "nor does what it said before");
        assert_eq!(
            state(&nodes(&[(31, &[]), (31, &["a"]), (31, &["a"])])),
            Some(Suspect),
            "who hears of nobody knows nothing"
        );
        assert_eq!(state(&nodes(&[(31, &[])])), Some(Suspect), "nobody could say so");
    }

    #[test]
    fn who_was_asked_is_asked_on_and_others_in_place_of_those_that_died() {
        let mut all = nodes(&[(9, &[]), (0, &[]), (0, &[]), (0, &[]), (0, &[]), (0, &[]), (0, &[]), (0, &[])]);
        let asked = judged(&all).unwrap();
        assert_eq!(asked.observers, ["b", "c", "d", "e", "f"]);
        all[0].health = Some(StorageHealth { observers: vec!["c".into(), "h".into(), "d".into()], ..asked });
        all[3].silent_for = Duration::from_secs(9);
        assert_eq!(judged(&all).unwrap().observers, ["b", "c", "e", "f", "h"]);
    }

    #[test]
    fn the_time_is_when_the_state_began_and_the_words_name_who_says_so() {
        let mut all = nodes(&[(20, &[]), (0, &["a"]), (0, &[])]);
        let times = Times::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = judge(&all[0], &all, &times, at(1)).unwrap();
        assert_eq!(first.message, "its daemon does not say that it lives; it is out of reach of b, but maybe not of c");
        all[0].health = Some(first);
        assert_eq!(judge(&all[0], &all, &times, at(2)).unwrap().since, Time(at(1)));
        (all[0].silent_for, all[2].unreachable) = (Duration::from_secs(30), vec!["a".into()]);
        let offline = judge(&all[0], &all, &times, at(3)).unwrap();
        assert_eq!((offline.state, offline.since), (StorageState::Offline, Time(at(3))));
        assert_eq!(offline.message, "its daemon does not say that it lives, and it is out of reach of b, c");
    }
}
