//! A model of the rules about attachments, membership and leases, in which every order of events is tried.
//!
//! It is not the program: it is what the rules say (`crates/replication`), small enough to be gone through as a whole. The simulation runs the program, and some orders of
//! events.
//!
//! # What is in it
//!
//! * Two or three replicas, two attachments, one block. Either attachment takes the volume over from the other by force, at any time.
//! * The record changes by compare-and-swap. A swap is done at any time after it was asked for, also when nobody waits for it any more; answers get lost.
//! * Writes reach replicas, and their answers the attachment, at any time or never, also after an epoch has ended.
//! * Replicas leave the set, are copied to, and join again, or are given up meanwhile.
//! * Time passes in steps of one lease: a lease that was given in this step ends with it.
//!
//! Taken as one step, since what comes in between is fenced or can only shorten a lease: a seal with its answer, the leases of all replicas, a copy.
//! Not in it, and left to the simulation: loss of power, what is done twice, clocks that differ, snapshots and growth.

#![cfg(test)]

mod actions;
mod properties;
mod state;

use properties::SAFETY;
use state::{Broken, Volume};
use stateright::{Checker, HasDiscoveries, Model};

/// Goes through all states: nothing that must never be is anywhere. Tells how many there are, and what of that which must be possible was seen.
fn explore(volume: Volume) -> Vec<&'static str> {
    let checker = volume.clone().checker().spawn_bfs().join();
    assert!(checker.is_done());
    for name in SAFETY {
        if let Some(path) = checker.discovery(name) {
            panic!("not so: {name}; after {:#?}", path.into_actions());
        }
    }
    println!("{volume:?}: {} states", checker.unique_state_count());
    checker.discoveries().into_keys().collect()
}

/// The first thing that must never be and is, without a rule.
fn broken(rule: Broken) -> Option<&'static str> {
    let volume = Volume { replicas: 2, most_epochs: 4, most_writes: 2, broken: Some(rule) };
    let checker = volume.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.discoveries().into_keys().find(|name| SAFETY.contains(name))
}

#[test]
fn the_rules_hold_in_every_order() {
    explore(Volume { replicas: 2, most_epochs: 3, most_writes: 2, broken: None });
    explore(Volume { replicas: 3, most_epochs: 2, most_writes: 1, broken: None });
}

/// `make sim`.
#[test]
#[ignore = "takes minutes, and 4 GiB of memory"]
fn the_rules_hold_in_every_order_of_more_events() {
    let seen = explore(Volume { replicas: 2, most_epochs: 4, most_writes: 2, broken: None });
    // A model in which nothing happens proves nothing.
    assert_eq!(seen.len(), properties::POSSIBLE, "only these were seen: {seen:#?}");
    explore(Volume { replicas: 3, most_epochs: 3, most_writes: 1, broken: None });
}

#[test]
fn every_rule_that_is_broken_is_found_out() {
    let rules = [
        Broken::AwaitLease,
        Broken::Lease,
        Broken::RecordFirst,
        Broken::RefuseLower,
        Broken::RefuseFinished,
        Broken::HeedUnresolved,
        Broken::MakeEqual,
    ];
    for rule in rules {
        let found = broken(rule);
        println!("without {rule:?}: {found:?}");
        assert!(found.is_some(), "nothing shows that {rule:?} is broken");
    }
}
