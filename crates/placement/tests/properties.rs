//! What holds for any cluster and any request, against a search that tries everything and knows nothing of the one that is tested.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use placement::{Cluster, Labels, Node, Place, Pool, Request, place};
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::naive::keeps_the_rules;
use support::worlds::{cluster, request};

/// Where one replica could be, before any rule.
fn spots(cluster: &Cluster, request: &Request) -> Vec<Place> {
    let is_taken = |node: &Node| {
        request.present.iter().any(|place| place.node == node.name) || request.leaving.contains(&node.name)
    };
    let open = cluster.nodes.iter().filter(|node| node.closed.is_none() && !is_taken(node));
    let of = |node: &Node| -> Vec<Place> {
        let fit = node.pools.iter().filter(|pool| pool.free >= request.size);
        fit.map(|pool| Place { node: node.name.clone(), pool: pool.name.clone() }).collect()
    };
    open.flat_map(of).collect()
}

/// Whether there is any choice at all, by trying every one.
fn exists(cluster: &Cluster, request: &Request, spots: &[Place], chosen: &mut Vec<Place>) -> bool {
    if chosen.len() == request.replicas {
        return keeps_the_rules(cluster, request, chosen);
    }
    for (index, spot) in spots.iter().enumerate() {
        if chosen.iter().all(|other| other.node != spot.node) {
            chosen.push(spot.clone());
            let found = exists(cluster, request, &spots[index + 1..], chosen);
            chosen.pop();
            if found {
                return true;
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_choice_is_allowed_and_is_found_if_there_is_one((cluster, request) in (cluster(), request())) {
        let spots = spots(&cluster, &request);
        let is_possible = exists(&cluster, &request, &spots, &mut Vec::new());
        match place(&cluster, &request) {
            Ok(places) => {
                prop_assert_eq!(places.len(), request.replicas);
                let nodes: BTreeSet<_> = places.iter().map(|place| &place.node).collect();
                prop_assert_eq!(nodes.len(), places.len(), "two replicas on one node");
                prop_assert!(places.iter().all(|place| spots.contains(place)), "{:?} are not all open", places);
                prop_assert!(keeps_the_rules(&cluster, &request, &places), "{:?} breaks a rule", places);
            }
            Err(refusal) => {
                prop_assert!(!is_possible, "there is a choice, and it is refused: {}", refusal);
                let told: BTreeSet<_> = refusal.nodes.iter().map(|verdict| verdict.node.clone()).collect();
                let all: BTreeSet<_> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
                prop_assert_eq!(told, all, "a refusal names every node");
                let text = refusal.to_string();
                prop_assert!(cluster.nodes.iter().all(|node| text.contains(&format!("node {}: ", node.name))), "{}", text);
                let is_explained = refusal.found < request.replicas || !refusal.rules.is_empty();
                prop_assert!(is_explained, "nothing is in the way: {}", text);
            }
        }
    }

    #[test]
    fn the_order_in_which_things_are_told_changes_nothing((cluster, request) in (cluster(), request())) {
        let mut other = cluster.clone();
        other.nodes.reverse();
        other.nodes.iter_mut().for_each(|node| node.pools.reverse());
        other.volumes.reverse();
        let answers = [&cluster, &cluster, &other].map(|cluster| place(cluster, &request));
        prop_assert_eq!(answers[0].as_ref().ok(), answers[1].as_ref().ok());
        prop_assert_eq!(answers[0].as_ref().ok(), answers[2].as_ref().ok());
    }
}

#[test]
fn a_thousand_nodes_and_rules_that_exclude_each_other_take_no_time() {
    let node = |n: usize| {
        let zone = format!("zone-{}", n % 7);
        let labels: Labels = [("zone".into(), zone), ("rack".into(), format!("rack-{}", n % 40))].into();
        let pool =
            |name: &str| Pool { name: name.into(), labels: Labels::new(), capacity: 1000, free: 900, replicas: 0 };
        let domains = placement::Domains::default();
        Node { name: format!("node-{n}"), domains, labels, closed: None, pools: vec![pool("a"), pool("b")] }
    };
    let cluster = Cluster { nodes: (0..1000).map(node).collect(), volumes: Vec::new() };
    let rule = |key: &str| placement::ReplicaRule {
        enforcement: placement::Enforcement::Required,
        affected: None,
        scope: placement::Scope::Topology(key.into()),
    };
    let mut request = Request { size: 10, replicas: 7, ..Request::default() };
    request.strategy.replica_anti_affinity = vec![rule("zone"), rule("rack")];
    assert_eq!(place(&cluster, &request).unwrap().len(), 7);
    request.replicas = 8;
    let refusal = place(&cluster, &request).unwrap_err();
    assert_eq!(refusal.nodes.len(), 1000);
    assert!(
        refusal.rules[0].contains("with different zone) can be kept by 7 of the 8 replicas that have to"),
        "{:?}",
        refusal.rules
    );
}
